"""PPO's mathematics: against numbers worked by hand, and against slow loops in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from prip.training.rl import ppo

BATCH, LENGTH, VOCAB = 5, 6, 7
LENGTHS = [6, 3, 1, 0, 5]


@pytest.fixture
def case() -> dict[str, torch.Tensor]:
    """Random numbers of every kind, nan outside the mask: whoever reads there is found out."""
    generator = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    mask = torch.arange(LENGTH)[None] < torch.tensor(LENGTHS)[:, None]
    made = {"logits": normal(BATCH, LENGTH, VOCAB), "scores": normal(BATCH), "mask": mask}
    made["allowed"] = torch.rand(BATCH, LENGTH, VOCAB, generator=generator) > 0.4
    made["actions"] = torch.randint(VOCAB, (BATCH, LENGTH), generator=generator)
    made["allowed"].scatter_(2, made["actions"].unsqueeze(-1), True)
    made["allowed"][~mask] = False
    for name in ("new", "old", "reference", "values", "old_values", "returns", "advantages", "rewards"):
        made[name] = torch.where(mask, 0.4 * normal(BATCH, LENGTH), torch.nan)
    return made


def pairs(mask: torch.Tensor) -> list[tuple[int, int]]:
    return [(row, step) for row in range(BATCH) for step in range(LENGTH) if mask[row, step]]


def test_masked_mean_by_hand() -> None:
    values = torch.tensor([[1.0, 2.0, torch.nan], [6.0, torch.nan, torch.nan]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert ppo.masked_mean(values, mask).item() == 3.0
    assert ppo.masked_mean(values, torch.zeros_like(mask)).item() == 0.0


def test_whiten_by_hand() -> None:
    values = torch.tensor([[1.0, 3.0, 100.0], [5.0, 100.0, 100.0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    expected = torch.tensor([[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])  # mean 3, unbiased variance 4
    torch.testing.assert_close(ppo.whiten(values, mask), expected, atol=1e-6, rtol=0)


def test_whiten_of_one_value_is_zero() -> None:
    assert ppo.whiten(torch.tensor([[7.0]]), torch.tensor([[True]])).item() == 0.0


def test_log_probabilities_by_hand() -> None:
    logits = torch.log(torch.tensor([[[1.0, 2.0, 5.0]]]))
    allowed = torch.tensor([[[True, True, False]]])
    chosen = ppo.token_log_probabilities(logits, allowed, torch.tensor([[1]]), torch.tensor([[True]]))
    assert chosen.item() == pytest.approx(math.log(2 / 3), abs=1e-6)
    banned = ppo.token_log_probabilities(logits, allowed, torch.tensor([[2]]), torch.tensor([[True]]))
    assert banned.item() == -math.inf


def test_log_probabilities_and_entropy_against_loops(case: dict[str, torch.Tensor]) -> None:
    chosen = ppo.token_log_probabilities(case["logits"], case["allowed"], case["actions"], case["mask"])
    entropy = ppo.token_entropy(case["logits"], case["allowed"], case["mask"])
    assert not ppo.allowed_log_softmax(case["logits"], case["allowed"]).isnan().any()
    for row in range(BATCH):
        for step in range(LENGTH):
            if not case["mask"][row, step]:
                assert chosen[row, step] == 0 and entropy[row, step] == 0
                continue
            weights = {
                token: math.exp(case["logits"][row, step, token].item())
                for token in range(VOCAB)
                if case["allowed"][row, step, token]
            }
            total = sum(weights.values())
            action = int(case["actions"][row, step])
            assert chosen[row, step].item() == pytest.approx(math.log(weights[action] / total), abs=1e-5)
            expected = -sum(w / total * math.log(w / total) for w in weights.values())
            assert entropy[row, step].item() == pytest.approx(expected, abs=1e-5)


def test_log_probabilities_have_finite_gradients(case: dict[str, torch.Tensor]) -> None:
    logits = case["logits"].clone().requires_grad_()
    chosen = ppo.token_log_probabilities(logits, case["allowed"], case["actions"], case["mask"])
    (chosen.sum() + ppo.token_entropy(logits, case["allowed"], case["mask"]).sum()).backward()
    assert logits.grad is not None and logits.grad.isfinite().all()
    assert (logits.grad[~case["allowed"]] == 0).all()
    assert logits.grad[case["allowed"]].abs().sum() > 0


def test_penalized_rewards_by_hand() -> None:
    mask = torch.tensor([[True, True, False], [False, False, False]])
    new = torch.tensor([[-1.0, -2.0, torch.nan]] * 2)
    reference = torch.tensor([[-1.5, -1.0, torch.nan]] * 2)
    rewards = ppo.penalized_rewards(torch.tensor([4.0, 9.0]), new, reference, mask, kl_weight=0.1)
    torch.testing.assert_close(rewards, torch.tensor([[-0.05, 4.1, 0.0], [0.0, 0.0, 0.0]]))


def test_generalized_advantages_by_hand() -> None:
    rewards, values = torch.tensor([[1.0, 2.0, torch.nan]]), torch.tensor([[0.5, 1.0, torch.nan]])
    mask = torch.tensor([[True, True, False]])
    advantages, returns = ppo.generalized_advantages(rewards, values, mask, discount=0.9, trace=0.5)
    # step 1: 2 - 1 = 1; step 0: 1 + 0.9 * 1 - 0.5 + 0.9 * 0.5 * 1 = 1.85
    torch.testing.assert_close(advantages, torch.tensor([[1.85, 1.0, 0.0]]))
    torch.testing.assert_close(returns, torch.tensor([[2.35, 2.0, 0.0]]))


@pytest.mark.parametrize(("discount", "trace"), [(1.0, 0.95), (0.9, 0.7), (0.8, 0.0), (1.0, 1.0)])
def test_generalized_advantages_against_the_sum_over_deltas(
    case: dict[str, torch.Tensor], discount: float, trace: float
) -> None:
    rewards, values = case["rewards"].numpy(), case["values"].numpy()
    advantages, returns = ppo.generalized_advantages(case["rewards"], case["values"], case["mask"], discount, trace)
    expected = np.zeros((BATCH, LENGTH))
    for row, length in enumerate(LENGTHS):
        deltas = [
            rewards[row, t] + (discount * values[row, t + 1] if t + 1 < length else 0.0) - values[row, t]
            for t in range(length)
        ]
        for t in range(length):
            expected[row, t] = sum((discount * trace) ** (later - t) * deltas[later] for later in range(t, length))
    np.testing.assert_allclose(advantages, expected, atol=1e-5)
    for row, step in pairs(case["mask"]):
        assert returns[row, step].item() == pytest.approx(expected[row, step] + values[row, step], abs=1e-5)


def test_group_advantages_by_hand() -> None:
    scores = torch.tensor([1.0, 2.0, 3.0, 5.0, 5.0, 5.0])
    expected = torch.tensor([-1.0, 0.0, 1.0, 0.0, 0.0, 0.0])
    torch.testing.assert_close(ppo.group_advantages(scores, 3, epsilon=0.0 + 1e-12), expected)


def test_policy_loss_by_hand() -> None:
    old = torch.zeros(1, 4)
    new = torch.log(torch.tensor([[1.5, 0.5, 1.5, 0.5]]))
    advantages = torch.tensor([[1.0, 1.0, -1.0, -1.0]])
    mask = torch.ones(1, 4, dtype=torch.bool)
    # -min(1.5, 1.2), -min(0.5, 0.8), max(1.5, 1.2), max(0.5, 0.8)
    loss = ppo.policy_loss(new, old, advantages, mask, clip=0.2)
    assert loss.item() == pytest.approx((-1.2 - 0.5 + 1.5 + 0.8) / 4, abs=1e-6)


def test_value_loss_by_hand() -> None:
    values, old_values = torch.tensor([[2.0, 0.1]]), torch.tensor([[0.0, 0.0]])
    returns, mask = torch.tensor([[3.0, 1.0]]), torch.ones(1, 2, dtype=torch.bool)
    # clipped to 0.5: max(1, 6.25) = 6.25; 0.1 is within the clip: 0.81
    assert ppo.value_loss(values, old_values, returns, mask, clip=0.5).item() == pytest.approx(0.25 * (6.25 + 0.81))


def test_losses_against_loops(case: dict[str, torch.Tensor]) -> None:
    clip, places = 0.2, pairs(case["mask"])
    tables = {name: case[name].double().numpy() for name in case if name not in ("mask", "allowed")}
    policy, value, outside, divergence = [], [], [], []
    for place in places:
        ratio = math.exp(tables["new"][place] - tables["old"][place])
        bounded = min(max(ratio, 1 - clip), 1 + clip)
        policy.append(-min(tables["advantages"][place] * ratio, tables["advantages"][place] * bounded))
        outside.append(abs(ratio - 1) > clip)
        moved = tables["values"][place] - tables["old_values"][place]
        kept = tables["old_values"][place] + min(max(moved, -clip), clip)
        target = tables["returns"][place]
        value.append(0.5 * max((tables["values"][place] - target) ** 2, (kept - target) ** 2))
        difference = tables["reference"][place] - tables["new"][place]
        divergence.append(math.exp(difference) - difference - 1)
    mask = case["mask"]
    found = ppo.policy_loss(case["new"], case["old"], case["advantages"], mask, clip)
    assert found.item() == pytest.approx(np.mean(policy), abs=1e-6)
    found = ppo.value_loss(case["values"], case["old_values"], case["returns"], mask, clip)
    assert found.item() == pytest.approx(np.mean(value), abs=1e-6)
    assert ppo.clip_fraction(case["new"], case["old"], mask, clip).item() == pytest.approx(np.mean(outside))
    assert 0 < np.mean(outside) < 1
    assert ppo.kl_loss(case["new"], case["reference"], mask).item() == pytest.approx(np.mean(divergence), abs=1e-6)


def test_losses_have_finite_gradients_beside_padding(case: dict[str, torch.Tensor]) -> None:
    mask = case["mask"]
    for name in ("policy", "value", "kl"):
        leaf = case["values" if name == "value" else "new"].clone().requires_grad_()
        if name == "policy":
            loss = ppo.policy_loss(leaf, case["old"], case["advantages"], mask, 0.2)
        elif name == "value":
            loss = ppo.value_loss(leaf, case["old_values"], case["returns"], mask, 0.2)
        else:
            loss = ppo.kl_loss(leaf, case["reference"], mask)
        loss.backward()
        assert leaf.grad is not None and leaf.grad[mask].isfinite().all() and leaf.grad[mask].abs().sum() > 0
        assert (leaf.grad[~mask] == 0).all(), name


def test_first_policy_gradient_is_the_plain_one() -> None:
    """With new equal to old, the gradient is that of -A log p: the policy gradient."""
    new = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    advantages = torch.tensor([[3.0, -0.5]])
    ppo.policy_loss(new, new.detach(), advantages, torch.ones(1, 2, dtype=torch.bool), 0.2).backward()
    torch.testing.assert_close(new.grad, -advantages / 2)


def test_explained_variance_by_hand() -> None:
    returns = torch.tensor([[1.0, 2.0, 3.0, 99.0]])
    mask = torch.tensor([[True, True, True, False]])
    assert ppo.explained_variance(returns + 5, returns, mask).item() == pytest.approx(1.0)
    values = torch.tensor([[2.0, 2.0, 2.0, 0.0]])
    assert ppo.explained_variance(values, returns, mask).item() == pytest.approx(0.0, abs=1e-6)
    values = torch.tensor([[1.5, 2.0, 2.5, 0.0]])
    assert ppo.explained_variance(values, returns, mask).item() == pytest.approx(0.75, abs=1e-6)
