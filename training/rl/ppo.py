"""The mathematics of token-level PPO: pure functions on tensors, no models.

Shapes: (batch, length) over the actions of a row, right-padded; `mask` is bool, True where an action was taken.
Proximal policy optimisation: Schulman et al. 2017, arXiv 1707.06347. Generalised advantages: arXiv 1506.02438.
Group advantages: Shao et al. 2024, arXiv 2402.03300. Nothing here reads a value where the mask is False.

`count` is given where the rows are only some of those over which a mean is taken: the number of actions of them all.
The results for the several parts then add up to that for the whole.
"""

from __future__ import annotations

import torch
from torch import Tensor


def masked_mean(values: Tensor, mask: Tensor, count: int | None = None) -> Tensor:
    """Returns the mean of `values` where `mask` is True, as a scalar; 0 if it is True nowhere."""
    return torch.where(mask, values, 0).sum() / (mask.sum().clamp(min=1) if count is None else max(1, count))


def whiten(values: Tensor, mask: Tensor, epsilon: float = 1e-8) -> Tensor:
    """Returns (values - mean) / sqrt(variance + epsilon) over the mask, and 0 outside it; the variance is unbiased.

    A single value under the mask has no variance: it becomes 0.
    """
    centred = torch.where(mask, values - masked_mean(values, mask), 0)
    variance = centred.square().sum() / (mask.sum() - 1).clamp(min=1)
    return centred * torch.rsqrt(variance + epsilon)


def allowed_log_softmax(logits: Tensor, allowed: Tensor) -> Tensor:
    """Returns log-probabilities over the allowed tokens: (batch, length, vocab) float32, -inf for the others.

    `allowed` is bool (batch, length, vocab). A position that allows nothing (padding) is taken to allow everything.
    """
    allowed = allowed | ~allowed.any(dim=-1, keepdim=True)
    return logits.float().masked_fill(~allowed, -torch.inf).log_softmax(dim=-1)


def token_log_probabilities(logits: Tensor, allowed: Tensor, actions: Tensor, mask: Tensor) -> Tensor:
    """Returns the log-probability of each action among the allowed tokens: (batch, length) float32, 0 outside the mask.

    logits (batch, length, vocab), [:, t] being what chose actions[:, t]; allowed bool (batch, length, vocab); actions
    int64 (batch, length). An action that was not allowed has -inf.
    """
    chosen = allowed_log_softmax(logits, allowed).gather(-1, actions.unsqueeze(-1)).squeeze(-1)
    return torch.where(mask, chosen, 0)


def token_entropy(logits: Tensor, allowed: Tensor, mask: Tensor) -> Tensor:
    """Returns the entropy in nats of the choice at each position: (batch, length), 0 outside the mask."""
    log_probabilities = allowed_log_softmax(logits, allowed)
    finite = log_probabilities.masked_fill(log_probabilities == -torch.inf, 0)
    return torch.where(mask, -(log_probabilities.exp() * finite).sum(dim=-1), 0)


def penalised_rewards(scores: Tensor, new: Tensor, reference: Tensor, mask: Tensor, kl_weight: float) -> Tensor:
    """Returns the reward of each action, (batch, length): minus kl_weight * (new - reference), and the row's score at
    its last action.

    scores (batch,); new and reference are log-probabilities (batch, length). Outside the mask the reward is 0.
    """
    rewards = torch.where(mask, -kl_weight * (new - reference), 0)
    return rewards + torch.where(last_actions(mask), scores.unsqueeze(1), 0)


def last_actions(mask: Tensor) -> Tensor:
    """Returns bool (batch, length): True at the last action of each row; a row without actions has none."""
    following = torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], dim=1)
    return mask & ~following


def generalised_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, discount: float = 1.0, trace: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Returns advantages and returns (advantages + values), both (batch, length) and 0 outside the mask.

    advantage[t] = delta[t] + discount * trace * advantage[t + 1], delta[t] = reward[t] + discount * value[t + 1] -
    value[t]; after the last action the value is 0. No gradient passes.
    """
    with torch.no_grad():
        rewards, values = torch.where(mask, rewards, 0), torch.where(mask, values, 0)
        advantages = torch.zeros_like(values)
        next_advantage = next_value = torch.zeros_like(values[:, 0])
        for step in reversed(range(values.shape[1])):
            delta = rewards[:, step] + discount * next_value - values[:, step]
            next_advantage = torch.where(mask[:, step], delta + discount * trace * next_advantage, 0)
            next_value = values[:, step]
            advantages[:, step] = next_advantage
        return advantages, advantages + values


def group_advantages(scores: Tensor, group_size: int, epsilon: float = 1e-4) -> Tensor:
    """Returns (score - mean of its group) / (deviation of its group + epsilon), (batch,).

    Rows stand group by group, `group_size` refinements of one prompt together; the deviation is unbiased. A group
    whose scores are all equal has advantage 0.
    """
    groups = scores.view(-1, group_size)
    centred = groups - groups.mean(dim=1, keepdim=True)
    return (centred / (groups.std(dim=1, keepdim=True) + epsilon)).view(-1)


def policy_loss(
    new: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, clip: float, count: int | None = None
) -> Tensor:
    """Returns the clipped policy loss: mean of max(-A r, -A clamp(r, 1 - clip, 1 + clip)) with r = exp(new - old)."""
    ratio = torch.exp(torch.where(mask, new - old, 0))
    clipped = ratio.clamp(1 - clip, 1 + clip)
    return masked_mean(torch.maximum(-advantages * ratio, -advantages * clipped), mask, count)


def value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip: float, count: int | None = None
) -> Tensor:
    """Returns half the mean of the larger squared error: of the value, or of the value kept within clip of the old."""
    values, old_values, returns = (torch.where(mask, given, 0) for given in (values, old_values, returns))
    clipped = old_values + (values - old_values).clamp(-clip, clip)
    return 0.5 * masked_mean(torch.maximum((values - returns).square(), (clipped - returns).square()), mask, count)


def kl_loss(new: Tensor, reference: Tensor, mask: Tensor, count: int | None = None) -> Tensor:
    """Returns an unbiased and positive estimate of KL(new, reference): mean of exp(d) - d - 1, d = reference - new."""
    difference = torch.where(mask, reference - new, 0)
    return masked_mean(torch.expm1(difference) - difference, mask, count)


def clip_fraction(new: Tensor, old: Tensor, mask: Tensor, clip: float, count: int | None = None) -> Tensor:
    """Returns the share of actions whose ratio exp(new - old) lies outside [1 - clip, 1 + clip]."""
    ratio = torch.exp(torch.where(mask, new - old, 0))
    return masked_mean(((ratio - 1).abs() > clip).float(), mask, count)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor, epsilon: float = 1e-8) -> Tensor:
    """Returns 1 - variance(returns - values) / variance(returns) over the mask: 1 is perfect, 0 no better than the
    mean."""
    residual, returns = (returns - values)[mask], returns[mask]
    return 1 - residual.var(correction=0) / (returns.var(correction=0) + epsilon)
