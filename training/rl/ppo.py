"""The mathematics of token-level PPO for Eq. 3, as pure functions on tensors.

Shapes are (batch, length) over the actions of each row, right-padded; `mask` is bool, True where an action was taken.
Values outside the mask are never read. Proximal policy optimization: Schulman et al. 2017, arXiv 1707.06347.
Generalized advantages: arXiv 1506.02438. Group advantages: Shao et al. 2024, arXiv 2402.03300.

`count` replaces the number of actions in a mean, for rows that are only a part of a batch; the results of all parts
then add up to that of the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor


def masked_mean(values: Tensor, mask: Tensor, count: int | None = None) -> Tensor:
    """Return the mean of `values` under the mask as a scalar, 0 for an empty mask."""
    return torch.where(mask, values, 0).sum() / (mask.sum().clamp(min=1) if count is None else max(1, count))


def whiten(values: Tensor, mask: Tensor, epsilon: float = 1e-8) -> Tensor:
    """Return (values - mean) / sqrt(variance + epsilon) under the mask and 0 outside; the variance is unbiased.

    A single value under the mask becomes 0.
    """
    centred = torch.where(mask, values - masked_mean(values, mask), 0)
    variance = centred.square().sum() / (mask.sum() - 1).clamp(min=1)
    return centred * torch.rsqrt(variance + epsilon)


def allowed_log_softmax(logits: Tensor, allowed: Tensor) -> Tensor:
    """Return the log-probabilities over the allowed tokens.

    Args:
        logits: (batch, length, vocab).
        allowed: bool (batch, length, vocab). A position that allows no token (padding) is treated as allowing all.

    Returns:
        float32 (batch, length, vocab), -inf for tokens that are not allowed.
    """
    allowed = allowed | ~allowed.any(dim=-1, keepdim=True)
    return logits.float().masked_fill(~allowed, -torch.inf).log_softmax(dim=-1)


def token_log_probabilities(logits: Tensor, allowed: Tensor, actions: Tensor, mask: Tensor) -> Tensor:
    """Return the log-probability of each action among the allowed tokens.

    Args:
        logits: (batch, length, vocab); logits[:, t] chose actions[:, t].
        allowed: bool (batch, length, vocab).
        actions: int64 (batch, length).
        mask: bool (batch, length).

    Returns:
        float32 (batch, length): -inf for an action that is not allowed, 0 outside the mask.
    """
    chosen = allowed_log_softmax(logits, allowed).gather(-1, actions.unsqueeze(-1)).squeeze(-1)
    return torch.where(mask, chosen, 0)


def token_entropy(logits: Tensor, allowed: Tensor, mask: Tensor) -> Tensor:
    """Return the entropy in nats at each position, (batch, length), 0 outside the mask."""
    log_probabilities = allowed_log_softmax(logits, allowed)
    finite = log_probabilities.masked_fill(log_probabilities == -torch.inf, 0)
    return torch.where(mask, -(log_probabilities.exp() * finite).sum(dim=-1), 0)


def penalized_rewards(scores: Tensor, new: Tensor, reference: Tensor, mask: Tensor, kl_weight: float) -> Tensor:
    """Return the reward of each action: -kl_weight * (new - reference), plus the row's score at its last action.

    Args:
        scores: (batch,).
        new, reference: Log-probabilities under the policy and the warmed-up model, (batch, length).
        mask: bool (batch, length).
        kl_weight: Weight of the KL penalty.

    Returns:
        (batch, length), 0 outside the mask.
    """
    rewards = torch.where(mask, -kl_weight * (new - reference), 0)
    return rewards + torch.where(last_actions(mask), scores.unsqueeze(1), 0)


def last_actions(mask: Tensor) -> Tensor:
    """Return bool (batch, length), True at the last action of each row that has one."""
    following = torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], dim=1)
    return mask & ~following


def generalized_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, discount: float = 1.0, trace: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Return advantages and returns (advantages + values), both (batch, length) and 0 outside the mask.

    advantage[t] = delta[t] + discount * trace * advantage[t + 1] with delta[t] = reward[t] + discount * value[t + 1] -
    value[t]; the value after the last action is 0. No gradient passes.
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


def group_advantages(scores: Tensor, group_size: int, epsilon: float = 1e-4, scored: Tensor | None = None) -> Tensor:
    """Return (score - mean of its group) / (deviation of its group + epsilon), (batch,).

    Consecutive rows form a group: the `group_size` refinements of one user prompt. The deviation is unbiased; a group
    of equal scores has advantage 0. Rows that are not `scored`, bool (batch,), belong to no group and have advantage 0.
    """
    groups = scores.view(-1, group_size)
    kept = torch.ones_like(groups, dtype=torch.bool) if scored is None else scored.view(-1, group_size)
    count = kept.sum(dim=1, keepdim=True)
    mean = torch.where(kept, groups, 0).sum(dim=1, keepdim=True) / count.clamp(min=1)
    centred = torch.where(kept, groups - mean, 0)
    deviation = (centred.square().sum(dim=1, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
    return (centred / (deviation + epsilon)).view(-1)


def policy_loss(
    new: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, clip: float, count: int | None = None
) -> Tensor:
    """Return the clipped policy loss: the mean of max(-A r, -A clamp(r, 1 - clip, 1 + clip)), r = exp(new - old)."""
    ratio = torch.exp(torch.where(mask, new - old, 0))
    clipped = ratio.clamp(1 - clip, 1 + clip)
    return masked_mean(torch.maximum(-advantages * ratio, -advantages * clipped), mask, count)


def value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip: float, count: int | None = None
) -> Tensor:
    """Return half the mean of the larger squared error: of the value, or of the value clipped around the old one."""
    values, old_values, returns = (torch.where(mask, tensor, 0) for tensor in (values, old_values, returns))
    clipped = old_values + (values - old_values).clamp(-clip, clip)
    return 0.5 * masked_mean(torch.maximum((values - returns).square(), (clipped - returns).square()), mask, count)


def kl_loss(new: Tensor, reference: Tensor, mask: Tensor, count: int | None = None) -> Tensor:
    """Return an unbiased, nonnegative estimate of KL(new, reference): mean of exp(d) - d - 1, d = reference - new."""
    difference = torch.where(mask, reference - new, 0)
    return masked_mean(torch.expm1(difference) - difference, mask, count)


def adapted_weight(weight: float, kl: float, target: float) -> float:
    """Return the KL weight of the next iteration, which moves by at most 2 % towards holding `kl` at `target`.

    This is the proportional controller of Ziegler et al. 2019, arXiv 1909.08593.
    """
    return weight * (1 + 0.1 * min(0.2, max(-0.2, kl / target - 1)))


def clip_fraction(new: Tensor, old: Tensor, mask: Tensor, clip: float, count: int | None = None) -> Tensor:
    """Return the share of actions with a ratio exp(new - old) outside [1 - clip, 1 + clip]."""
    ratio = torch.exp(torch.where(mask, new - old, 0))
    return masked_mean(((ratio - 1).abs() > clip).float(), mask, count)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor, epsilon: float = 1e-8) -> Tensor:
    """Return 1 - variance(returns - values) / variance(returns) under the mask: 1 is perfect, 0 is a constant guess."""
    residual, returns = (returns - values)[mask], returns[mask]
    return 1 - residual.var(correction=0) / (returns.var(correction=0) + epsilon)
