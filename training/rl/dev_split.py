"""What the policy earns on the dev split: refined greedily, drawn with fixed seeds. Every algorithm is measured so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from prip.rewards import StandardisedSum

from ..engine import ranks
from ..rollouts.image_scorer import ImageScorer
from ..rollouts.policy import Learner, Policy
from ..rollouts.scores import score_refinements
from ..runs.preview import Column, write_preview
from . import ppo
from .parts import DEV_SEED


@dataclass(frozen=True)
class DevSplit:
    """The chosen user prompts and what they are measured with."""

    prompts: Sequence[str]
    images_per_prompt: int
    policy: Policy
    scorer: ImageScorer
    total: StandardisedSum
    chunk: int
    """Refinements whose log-probabilities are computed at once"""

    @torch.no_grad()
    def measure(self, part: Learner, reference: Learner, device: torch.device) -> dict[str, float]:
        """Returns dev_reward (mean gain over plain, in the standardised sum), the raw gain of each reward, dev_kl (of
        the learning `part` to the warmed-up `reference`: exact, in nats per token), and dev_modifiers and
        dev_response_length of a prompt. Each process measures its share; all of them return the same.
        """
        processes, count = ranks.count(), len(self.prompts)
        places = range(ranks.rank(), -(-count // processes) * processes, processes)
        refinements = self.policy.refine([self.prompts[place % count] for place in places])
        seeds = [list(range(DEV_SEED, DEV_SEED + self.images_per_prompt)) for _ in refinements]
        scores = score_refinements(self.scorer, self.total, refinements, seeds)
        batch = self.policy.collate(refinements)
        divergences = []
        with self.policy.residence.using("decoder"):
            for rows in torch.arange(len(batch)).split(self.chunk):
                some = batch.rows(rows).to(device)
                allowed = some.allowed
                new, warm = (
                    ppo.allowed_log_softmax(self.policy.score(one, some)[0], allowed) for one in (part, reference)
                )
                difference = torch.where(new.isfinite(), new - warm, 0)
                divergences.append((new.exp() * difference).sum(dim=-1))
        separator = self.policy.refiner.sampler.separator

        def gather(values: torch.Tensor) -> torch.Tensor:
            return ranks.gather_rows(values.to(device))[:count]

        kl, lengths = gather(torch.cat(divergences)), gather(batch.mask.sum(dim=1))
        mask = torch.arange(kl.shape[1], device=device) < lengths.unsqueeze(1)
        modifiers = gather(torch.tensor([one.actions.count(separator) + 1 for one in refinements]))
        metrics = {
            "dev_reward": gather(scores.gain).mean().item(),
            "dev_kl": ppo.masked_mean(kl, mask).item(),
            "dev_modifiers": modifiers.double().mean().item(),
            "dev_response_length": lengths.float().mean().item(),
        }
        for name in scores.refined:
            metrics[f"dev_reward_{name}"] = gather(scores.raw_gain(name)).mean().item()
        return metrics

    def preview(self, path: Path, count: int) -> None:
        """Writes the picture of the first `count` prompts, plain and refined greedily. All processes refine, as those
        that share the weights out must; the first draws and writes."""
        refinements = self.policy.refine(self.prompts[:count])
        if ranks.rank():
            return
        owners, seeds = [one.user_prompt for one in refinements], [DEV_SEED] * len(refinements)
        plain = self.scorer.draw(owners, seeds)
        refined = self.scorer.draw([one.refined_prompt for one in refinements], seeds)
        with self.scorer.residence.using("rewards"):
            gains = self.total(owners, refined) - self.total(owners, plain)
        rows = zip(refinements, plain, refined, gains.tolist(), strict=True)
        write_preview(path, [Column(one.user_prompt, one.refined_prompt, a, b, gain) for one, a, b, gain in rows])
