"""Log-probabilities, entropies and values of sampled actions under the policy and the reference, and their metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..engine import ranks
from ..rollouts.policy import ActionBatch, Learner, Refinement
from ..rollouts.scores import Scores
from ..runs.seeds import derive_seed
from . import ppo
from .context import RlContext
from .value_head import ValueHead


@dataclass(frozen=True)
class ActionFigures:
    """Figures of each action, float32 (batch, length), 0 past a row's last action."""

    old: Tensor
    """Log-probability when the action was sampled"""
    reference: Tensor
    """Log-probability under the warmed-up model"""
    entropy: Tensor
    values: Tensor
    """Output of the value head, 0 without one"""

    def gathered(self, group: int) -> ActionFigures:
        """Return the figures of all processes, in the order of a single process; group: rollouts per user prompt."""
        columns = self.old, self.reference, self.entropy, self.values
        return ActionFigures(*(ranks.gather_rows(column, group) for column in columns))


@torch.no_grad()
def action_figures(
    context: RlContext, part: Learner, batch: ActionBatch, device: torch.device, value_head: ValueHead | None = None
) -> ActionFigures:
    """Return the figures of the actions in `batch`, which lies on the CPU, under the learning `part`."""
    columns: list[tuple[Tensor, ...]] = []
    for rows in torch.arange(len(batch)).split(context.settings.rollouts.chunk.score):
        chunk = batch.rows(rows).to(device)
        allowed = chunk.allowed
        logits, hidden = context.policy.action_logits(part, chunk)
        warm = context.policy.action_logits(context.reference, chunk)[0]
        values = torch.zeros(chunk.mask.shape, device=device)
        if value_head is not None:
            values = torch.where(chunk.mask, value_head(hidden), 0)
        columns.append(
            (
                ppo.token_log_probabilities(logits, allowed, chunk.actions, chunk.mask),
                ppo.token_log_probabilities(warm, allowed, chunk.actions, chunk.mask),
                ppo.token_entropy(logits, allowed, chunk.mask),
                values,
            )
        )
    return ActionFigures(*(torch.cat(column) for column in zip(*columns, strict=True)))


def rollout_metrics(
    context: RlContext, refinements: Sequence[Refinement], scores: Scores, figures: ActionFigures, device: torch.device
) -> dict[str, float]:
    """Return the metrics of an iteration's rollouts, over all processes."""
    group, generator = context.settings.rollouts.samples_per_prompt, context.scorer.images.generator

    def gather(values: Sequence[float] | Tensor) -> Tensor:
        return ranks.gather_rows(torch.as_tensor(values, device=device), group)

    whole, lengths = figures.gathered(group), gather([len(refinement.actions) for refinement in refinements])
    mask = torch.arange(whole.old.shape[1], device=device) < lengths.unsqueeze(1)
    distinct = gather([derive_seed(refinement.refined_prompt) for refinement in refinements])
    too_long = [
        float(generator.count_tokens(refinement.refined_prompt) > generator.token_limit) for refinement in refinements
    ]
    counts = torch.tensor([scores.drawn_refined, scores.drawn_plain, scores.left_out], device=device)
    drawn = ranks.total(counts).tolist()
    scored = ~gather(scores.blackened)
    metrics = {
        "reward": gather(scores.gain)[scored].mean().item(),
        "kl": ppo.masked_mean(whole.old - whole.reference, mask).item(),
        "entropy": ppo.masked_mean(whole.entropy, mask).item(),
        "response_length": lengths.float().mean().item(),
        "distinct_prompts": len(distinct.unique()) / len(distinct),
        "over_token_limit": gather(too_long).mean().item(),
        "drawn_refined": float(drawn[0]),
        "drawn_plain": float(drawn[1]),
        "blackened": float(drawn[2]),
    }
    for name in scores.refined:
        metrics[f"reward_{name}"] = gather(scores.raw_gain(name))[scored].mean().item()
    return metrics
