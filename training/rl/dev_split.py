"""The dev split of every algorithm: greedy refinements of fixed prompts, drawn with fixed seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..engine import ranks
from ..rollouts.policy import Learner, Policy
from ..rollouts.scores import GainScorer
from ..runs.preview import Column, write_preview
from ..runs.seeds import DEV_SEED
from . import ppo


@dataclass(frozen=True)
class DevSplit:
    """User prompts of the dev split, with the policy and the scorer that measure them."""

    prompts: Sequence[str]
    images_per_prompt: int
    policy: Policy
    scorer: GainScorer
    chunk: int
    """Refinements whose log-probabilities are computed at once"""
    first_seed: int = DEV_SEED
    """First image seed of each prompt"""

    @torch.no_grad()
    def measure(self, part: Learner, reference: Learner, device: torch.device) -> dict[str, float]:
        """Measure the learning `part`. Each process measures its share, and all return the same.

        Returns:
            dev_reward (mean gain over plain), dev_reward_NAME (raw gain of each reward), dev_kl (exact KL of `part` to
            `reference`, in nats per token), and dev_modifiers and dev_response_length, both per prompt.
        """
        # Every process refines the same number of prompts; rows beyond the last prompt are dropped after gathering.
        processes, count = ranks.count(), len(self.prompts)
        indices = range(ranks.rank(), -(-count // processes) * processes, processes)
        refinements = self.policy.refine([self.prompts[index % count] for index in indices])
        seeds = [list(range(self.first_seed, self.first_seed + self.images_per_prompt)) for _ in refinements]
        scores = self.scorer.score(refinements, seeds)
        batch = self.policy.collate(refinements)
        # The KL is summed over the whole vocabulary, not estimated from the tokens chosen.
        divergences = []
        with self.policy.offloading.using("decoder"):
            for rows in torch.arange(len(batch)).split(self.chunk):
                chunk = batch.rows(rows).to(device)
                allowed = chunk.allowed
                new, warm = (
                    ppo.allowed_log_softmax(self.policy.action_logits(model, chunk)[0], allowed)
                    for model in (part, reference)
                )
                difference = torch.where(new.isfinite(), new - warm, 0)
                divergences.append((new.exp() * difference).sum(dim=-1))

        def gather(values: torch.Tensor) -> torch.Tensor:
            return ranks.gather_rows(values.to(device))[:count]

        kl, lengths = gather(torch.cat(divergences)), gather(batch.mask.sum(dim=1))
        mask = torch.arange(kl.shape[1], device=device) < lengths.unsqueeze(1)
        separator = self.policy.refiner.sampler.separator
        modifiers = gather(torch.tensor([refinement.actions.count(separator) + 1 for refinement in refinements]))
        scored = ~gather(scores.blackened)
        metrics = {
            "dev_reward": gather(scores.gain)[scored].mean().item(),
            "dev_kl": ppo.masked_mean(kl, mask).item(),
            "dev_modifiers": modifiers.double().mean().item(),
            "dev_response_length": lengths.float().mean().item(),
        }
        for name in scores.refined:
            metrics[f"dev_reward_{name}"] = gather(scores.raw_gain(name))[scored].mean().item()
        return metrics

    def preview(self, path: Path, count: int) -> None:
        """Write the picture of the first `count` prompts, plain and refined.

        All processes must call this, because they refine together; only the first draws and writes.
        """
        refinements = self.policy.refine(self.prompts[:count])
        if ranks.rank():
            return
        images, total = self.scorer.images, self.scorer.total
        user_prompts, seeds = [refinement.user_prompt for refinement in refinements], [DEV_SEED] * len(refinements)
        plain = images.draw(user_prompts, seeds)
        refined = images.draw([refinement.refined_prompt for refinement in refinements], seeds)
        with images.offloading.using("rewards"):
            gains = (total(user_prompts, refined) - total(user_prompts, plain)).tolist()
        rows = zip(refinements, plain, refined, gains, strict=True)
        write_preview(
            path,
            [Column(refinement.user_prompt, refinement.refined_prompt, a, b, gain) for refinement, a, b, gain in rows],
        )
