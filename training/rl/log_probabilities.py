"""What rollouts look like to the models that made them: probabilities of their actions, and figures for the log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..engine import ranks
from ..rollouts.policy import ActionBatch, Learner, Refinement
from ..rollouts.scores import Scores
from ..runs.seeds import derive_seed
from . import ppo
from .context import Workshop


@dataclass(frozen=True)
class Replay:
    """Figures of each action, float32 (batch, length), 0 where there is none."""

    old: Tensor
    """Log-probability when it was sampled"""
    reference: Tensor
    """Log-probability by the warmed-up model"""
    entropy: Tensor
    values: Tensor
    """What the value head says, 0 without one"""


@torch.no_grad()
def replay(
    workshop: Workshop,
    part: Learner,
    batch: ActionBatch,
    device: torch.device,
    value_head: nn.Module | None = None,
) -> Replay:
    """Returns the figures of the actions in `batch`, which is on the CPU, by the learning `part`, in chunks."""
    columns: list[tuple[Tensor, ...]] = []
    for rows in torch.arange(len(batch)).split(workshop.rollouts.chunk.score):
        some = batch.rows(rows).to(device)
        allowed = some.allowed
        logits, hidden = workshop.policy.score(part, some)
        warm = workshop.policy.score(workshop.reference, some)[0]
        values = torch.zeros(some.mask.shape, device=device)
        if value_head is not None:
            values = torch.where(some.mask, value_head(hidden.float()).squeeze(-1), 0)
        columns.append(
            (
                ppo.token_log_probabilities(logits, allowed, some.actions, some.mask),
                ppo.token_log_probabilities(warm, allowed, some.actions, some.mask),
                ppo.token_entropy(logits, allowed, some.mask),
                values,
            )
        )
    return Replay(*(torch.cat(column) for column in zip(*columns, strict=True)))


def gather_replay(own: Replay, group: int) -> Replay:
    """Returns the figures of all processes' actions, in the order of one process."""
    return Replay(*(ranks.gather_rows(one, group) for one in (own.old, own.reference, own.entropy, own.values)))


def rollout_metrics(
    workshop: Workshop, refinements: Sequence[Refinement], scores: Scores, own: Replay, device: torch.device
) -> dict[str, float]:
    """Returns the log's figures of an iteration's rollouts, those of all processes."""
    group = workshop.rollouts.samples_per_prompt
    limit, count = workshop.scorer.generator.token_limit, workshop.scorer.generator.count_tokens

    def gather(values: Sequence[float] | Tensor) -> Tensor:
        return ranks.gather_rows(torch.as_tensor(values, device=device), group)

    whole, lengths = gather_replay(own, group), gather([len(one.actions) for one in refinements])
    mask = torch.arange(whole.old.shape[1], device=device) < lengths.unsqueeze(1)
    distinct = gather([derive_seed(one.refined_prompt) for one in refinements])
    drawn = ranks.total(torch.tensor([scores.drawn_refined, scores.drawn_plain], device=device)).tolist()
    metrics = {
        "reward": gather(scores.gain).mean().item(),
        "kl": ppo.masked_mean(whole.old - whole.reference, mask).item(),
        "entropy": ppo.masked_mean(whole.entropy, mask).item(),
        "response_length": lengths.float().mean().item(),
        "distinct_prompts": len(distinct.unique()) / len(distinct),
        "over_token_limit": gather([float(count(one.refined_prompt) > limit) for one in refinements]).mean().item(),
        "drawn_refined": float(drawn[0]),
        "drawn_plain": float(drawn[1]),
    }
    for name in scores.refined:
        metrics[f"reward_{name}"] = gather(scores.raw_gain(name)).mean().item()
    return metrics
