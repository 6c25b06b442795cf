"""The value head at a real decoder's width, on hidden states that share a part with one another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from made_rl import VALUE, make_parts, rl_settings, warm_up
from torch import Tensor, nn

from prip.errors import CheckpointError
from prip.training.engine.optimizers import build_optimizer
from prip.training.rl import ppo
from prip.training.rl import stage as rl
from prip.training.rl.value_head import ValueHead
from prip.training.settings import OptimizerSettings

WIDTH, TOPICS, ROWS = 4096, 16, 512
TARGET = 0.3
SCALES = {"adafactor": 1e-3, "adamw": 1e-4}


def iterations(common: float, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """States (ROWS, WIDTH) of root mean square 1, a share `common` of which is the same in all; and their returns,
    around TARGET, of which a part follows from the state."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    same, directions = normal(WIDTH), normal(TOPICS, WIDTH)
    for _ in range(count):
        topics = normal(ROWS, TOPICS)
        states = (
            common**0.5 * same
            + (0.2 / TOPICS) ** 0.5 * topics @ directions
            + (0.8 - common) ** 0.5 * normal(ROWS, WIDTH)
        )
        states = states / states.square().mean(dim=1, keepdim=True).sqrt()
        yield states, TARGET + 0.5 * topics[:, 0] + 0.5 * normal(ROWS)


@pytest.mark.parametrize("common", [0.1, 0.5])
@pytest.mark.parametrize("name", SCALES)
def test_values_are_right_at_width_4096(name: str, common: float) -> None:
    """The linear layer on the states as they are settled at -.46 and -.99 with the optimizer of the preset paper."""
    head = ValueHead(WIDTH)
    settings = OptimizerSettings(name=name, lr=SCALES[name], scale_parameter=True)
    optimizer = build_optimizer(settings, [nn.Parameter(torch.ones(2, 2))], new=head.parameters())
    mask, means, explained = torch.ones(ROWS, dtype=torch.bool), [], []
    for states, returns in iterations(common, 40):
        with torch.no_grad():
            old = head(states)
        means.append(old.mean().item())
        explained.append(ppo.explained_variance(old, returns, mask).item())
        for rows in torch.arange(ROWS).chunk(4):
            loss = ppo.value_loss(head(states[rows]), old[rows], returns[rows], mask[rows], 0.2)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            optimizer.step()
    assert means[0] == 0 and explained[0] == 0
    assert sum(means[-10:]) / 10 == pytest.approx(TARGET, abs=0.1)
    assert min(explained[-10:]) > 0.03


def test_the_scale_of_the_states_does_not_matter() -> None:
    head, states = ValueHead(8), torch.randn(3, 5, 8)
    nn.init.ones_(head.linear.weight)
    torch.testing.assert_close(head(states), head(30 * states))
    assert head(states).shape == (3, 5) and head(states.bfloat16()).dtype == torch.float32


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    return warm_up(tmp_path_factory.mktemp("warm"), data)


def test_the_head_has_steps_and_a_rate_of_its_own(tmp_path: Path, warm: Path) -> None:
    settings = rl_settings(
        tmp_path,
        ppo=type(VALUE)(baseline="value", value_lr=0.02),
        optimizer=OptimizerSettings(name="adafactor", scale_parameter=True, lr=1e-3),
    )
    module = rl.build_module(make_parts(warm), settings, tmp_path / "rl")
    learner, head = module.configure_optimizers()["optimizer"].param_groups
    assert module.value_head is not None
    assert {id(value) for value in head["params"]} == {id(value) for value in module.value_head.parameters()}
    assert {id(value) for value in learner["params"]} == {id(value) for value in module.encoder.parameters()}
    assert (learner["lr"], learner["scale_parameter"]) == (1e-3, True)
    assert (head["lr"], head["scale_parameter"]) == (0.02, False)


def test_a_checkpoint_of_the_earlier_head_is_refused(tmp_path: Path, warm: Path) -> None:
    module = rl.build_module(make_parts(warm), rl_settings(tmp_path, ppo=VALUE), tmp_path / "rl")
    with pytest.raises(CheckpointError, match="got one of an earlier version: start again with --overwrite"):
        module.on_load_checkpoint({"state_dict": {"value_head.weight": torch.zeros(1, 32)}})
