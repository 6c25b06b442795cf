"""Updates end once the policy has moved too far, and the weight of the KL adapts to a target."""

from __future__ import annotations

import csv
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_rl import GROUP, LOOP, VALUE, make_parts, rl_settings, warm_up

from prip.errors import InputError
from prip.training.rl import ppo
from prip.training.rl import stage as rl
from prip.training.settings import OptimizerSettings, PpoSettings

BASELINES = {"group": GROUP, "value": VALUE}
STEPS = 4
"""Optimizer steps of an iteration: 2 epochs of 12 rollouts, 6 at a time"""


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    return warm_up(tmp_path_factory.mktemp("warm"), data)


def log_of(folder: Path, warm: Path, **options: Any) -> list[dict[str, float]]:
    """Train two iterations, and return their metrics."""
    rl.run(rl_settings(folder, loop=replace(LOOP, steps=2), **options), make_parts(warm))
    with (folder / "rl" / "logs" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["reward"]]
    return [{name: float(value) for name, value in row.items() if value} for row in rows]


@pytest.mark.parametrize("baseline", BASELINES)
def test_an_iteration_ends_beyond_target_kl(
    tmp_path: Path, warm: Path, baseline: str, caplog: pytest.LogCaptureFixture
) -> None:
    options: dict[str, Any] = {"ppo": BASELINES[baseline], "optimizer": OptimizerSettings(lr=0.02)}
    free = log_of(tmp_path / "free", warm, **options)
    assert [row["updates"] for row in free] == [STEPS, STEPS] and free[0]["update_kl"] > 0.01
    assert "optimizer steps" not in caplog.text
    options["ppo"] = replace(BASELINES[baseline], target_kl=1e-4)
    with caplog.at_level(logging.WARNING):
        held = log_of(tmp_path / "held", warm, **options)
    assert held[0]["updates"] == 1, "in a later iteration all refinements of a prompt may be worth the same"
    assert f"iteration 0: took 1 of {STEPS} optimizer steps" in caplog.text


def test_the_weight_of_the_kl_adapts() -> None:
    assert ppo.adapted_weight(0.1, 0.05, 0.05) == pytest.approx(0.1)
    assert ppo.adapted_weight(0.1, 0.055, 0.05) == pytest.approx(0.101)
    assert ppo.adapted_weight(0.1, 9.0, 0.05) == pytest.approx(0.102)
    assert ppo.adapted_weight(0.1, -1.0, 0.05) == pytest.approx(0.098)


@pytest.mark.parametrize("baseline", BASELINES)
def test_a_run_adapts_the_weight_after_each_iteration(tmp_path: Path, warm: Path, baseline: str) -> None:
    rows = log_of(tmp_path, warm, ppo=replace(BASELINES[baseline], kl=0.1, adaptive_kl=0.05))
    assert rows[0]["kl_weight"] == pytest.approx(0.1)
    expected = ppo.adapted_weight(0.1, rows[0]["kl"], 0.05)
    assert rows[1]["kl_weight"] == pytest.approx(expected, rel=1e-4) and expected != 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ppo": {"target_kl": 0.0}}, "target_kl: expected a number above 0, got 0.0"),
        ({"ppo": {"adaptive_kl": -1.0}}, "adaptive_kl: expected a number above 0, got -1.0"),
        ({"ppo": {"adaptive_kl": 0.1, "kl": 0.0}}, "kl: expected a first weight above 0 for adaptive_kl, got 0.0"),
        ({"ppo": {"target_kl": 0.1}, "algorithm": "grpo"}, "target_kl: expected null for algorithm: grpo, got 0.1"),
        ({"ppo": {"target_kl": 0.1}, "strategy": "deepspeed-2"}, "expected auto or ddp for ppo.target_kl"),
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        chosen = dict(options)
        rl_settings(tmp_path, **(chosen | {"ppo": PpoSettings(**chosen.pop("ppo"))}))
