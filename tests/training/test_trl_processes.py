"""TRL's trainers in two processes, started by torchrun: as far as TRL allows, they take the steps of one."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from made_rl import assert_same_rollouts, warm_up
from processes import run_script
from safetensors.torch import load_file
from test_rl_processes import log_rows, rollouts

pytestmark = pytest.mark.slow
pytest.importorskip("trl", reason="needs trl, from the train extra")
ALGORITHMS = ["grpo", "rloo"]
MEANS_OF_MEANS = {"clip_fraction"}
"""What TRL logs as a mean over micro-batches, whatever number of tokens each has"""
JOB = """
from dataclasses import replace
from pathlib import Path

from made_rl import LOOP, ROLLOUTS, make_parts, rl_settings

from prip.training.rl import stage as rl
from prip.training.settings import ChunkSettings, OptimizerSettings, PpoSettings

if __name__ == "__main__":
    settings = rl_settings(
        Path({folder!r}),
        algorithm={algorithm!r},
        seed=2,
        devices={devices},
        ppo=PpoSettings(epochs=2, minibatch={minibatch}, kl=0.03),
        loop=replace(LOOP, batch_size={batch}, steps=3),
        optimizer=OptimizerSettings(lr=1e-4, clip=0.5),
        rollouts=replace(ROLLOUTS, dev_prompts=3, preview_every=2, preview_prompts=2, chunk=ChunkSettings(update=2)),
    )
    rl.run(settings, make_parts(Path({warm!r})))
"""


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A run whose encoder and decoder are warmed up."""
    return warm_up(tmp_path_factory.mktemp("warm"), data)


def train(folder: Path, warm: Path, algorithm: str, devices: int, minibatch: int) -> Path:
    """Runs rl for three iterations of 12 rollouts in fresh processes; returns the stage's folder."""
    shape = {"algorithm": algorithm, "devices": devices, "batch": 4 // devices, "minibatch": minibatch}
    run_script(folder, JOB.format(folder=str(folder), warm=str(warm), **shape), torchrun=devices if devices > 1 else 0)
    return folder / "rl"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_two_processes_take_the_steps_of_one(tmp_path: Path, warm: Path, algorithm: str) -> None:
    """A minibatch is all rollouts of an iteration: TRL deals smaller ones out at random in each process.

    The seed is one by which in each iteration some rewards of a user prompt differ: else a gradient is rounding errors,
    of which Adam makes whole steps.
    """
    single, double = (train(tmp_path / str(devices), warm, algorithm, devices, 12) for devices in (1, 2))
    tables = rollouts(single), rollouts(double)
    groups = tables[0].groupby(["iteration", "user_prompt"]).reward.std() > 0
    assert groups.groupby("iteration").any().all(), "the seed no longer has rewards that differ"
    assert_same_rollouts(*tables, tolerance=1e-5)
    rows = log_rows(single), log_rows(double)
    assert len(rows[0]) == len(rows[1]) == 4
    for mine, theirs in zip(*rows, strict=True):
        for name, value in mine.items():
            if value and name not in MEANS_OF_MEANS:
                assert float(theirs[name]) == pytest.approx(float(value), rel=1e-5, abs=1e-5), (mine["step"], name)
    weights = [load_file(folder / "part" / "model.safetensors") for folder in (single, double)]
    assert all(torch.allclose(value, weights[1][name], rtol=0, atol=1e-5) for name, value in weights[0].items())
    assert (double / "refiner" / "config.json").is_file() and len(list((double / "previews").iterdir())) == 2


def test_smaller_minibatches_are_dealt_out_by_trl(tmp_path: Path, warm: Path) -> None:
    """The same rollouts to begin with; what is learnt from them differs, but learning goes on."""
    single, double = (train(tmp_path / str(devices), warm, "grpo", devices, 6) for devices in (1, 2))
    tables = [table[table.iteration == 0] for table in (rollouts(single), rollouts(double))]
    pd.testing.assert_frame_equal(*tables)
    rows = log_rows(double)[1:]
    assert len(rows) == 3 and all(float(row["gradient_norm"]) > 0 for row in rows)
