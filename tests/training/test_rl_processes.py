"""Several processes take the steps of one: the batch is shared out, and so are the gradients."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from made_rl import assert_same_rollouts, warm_up
from processes import run_script
from safetensors.torch import load_file

from prip.training.engine import ranks

STRATEGIES = ["ddp", "deepspeed-2", "deepspeed-3"]
BASELINES = ["group", "value"]
JOB = """
from dataclasses import replace
from pathlib import Path

from made_rl import GROUP, LOOP, ROLLOUTS, VALUE, make_parts, rl_settings

from prip.training.rl import stage as rl
from prip.training.engine.callbacks import StageLoop
from prip.training.settings import ChunkSettings, OptimizerSettings
from prip.training.engine.sharding import whole_parameters

real = StageLoop._save


def save(self, trainer):
    real(self, trainer)
    with whole_parameters(self._module):
        if trainer.is_global_zero:
            self._module.export(self._folder / "saved")


if __name__ == "__main__":
    StageLoop._save = save
    loop = replace(LOOP, batch_size={batch}, steps=3)
    rollouts = replace(ROLLOUTS, dev_prompts=3, preview_every=2, preview_prompts=2, chunk=ChunkSettings(update=2))
    for ppo in (GROUP, VALUE):
        settings = rl_settings(
            Path({folder!r}) / ppo.baseline,
            devices={devices},
            strategy={strategy!r},
            resume={resume},
            ppo=replace(ppo, entropy=0.1),
            loop=loop,
            optimizer=OptimizerSettings(lr=1e-4, warmup_steps=2, clip=0.5),
            rollouts=rollouts,
        )
        rl.run(settings, make_parts(Path({warm!r})))
"""


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A run whose encoder and decoder are warmed up."""
    return warm_up(tmp_path_factory.mktemp("warm"), data)


def train(folder: Path, warm: Path, devices: int, strategy: str, *, resume: bool = False) -> None:
    """Runs rl in fresh processes, with 4 user prompts an iteration in all; FOLDER/BASELINE is the run of each.

    Three iterations of 12 rollouts in minibatches of 6, twice each, every minibatch in chunks. A checkpoint comes after
    the second; beside it, saved/ has the encoder as it was. The entropy bonus gives every minibatch a gradient: where
    all rewards of a group are equal there is none without it, and Adam makes steps of rounding errors.
    """
    shape = {"batch": 4 // devices, "devices": devices, "strategy": strategy, "resume": resume}
    run_script(folder, JOB.format(folder=str(folder), warm=str(warm), **shape))


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, warm: Path) -> Path:
    """Runs in one process."""
    folder = tmp_path_factory.mktemp("one")
    train(folder, warm, 1, "auto")
    return folder


@pytest.fixture(scope="module", params=STRATEGIES)
def two(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, warm: Path) -> Path:
    """Runs in two processes with one strategy."""
    folder = tmp_path_factory.mktemp(request.param)
    train(folder, warm, 2, request.param)
    return folder


def rollouts(folder: Path) -> pd.DataFrame:
    table = pd.read_parquet(folder / "rollouts")
    return table.sort_values(["iteration", "user_prompt", "refined_prompt"]).reset_index(drop=True)


def log_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "logs" / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def assert_same_run(single: Path, double: Path) -> None:
    """Asserts that rollouts, logs and weights of two runs agree to 1e-5."""
    tables = rollouts(single), rollouts(double)
    assert len(tables[0]) == 3 * 12
    assert_same_rollouts(*tables, tolerance=1e-5)
    rows = log_rows(single), log_rows(double)
    assert any(float(row["gradient_norm"]) > 0.5 for row in rows[0] if row["gradient_norm"]), "some norm is clipped"
    for mine, theirs in zip(*rows, strict=True):
        for name, value in mine.items():
            if value:
                assert float(theirs[name]) == pytest.approx(float(value), rel=1e-5, abs=1e-5), (mine["step"], name)
    weights = [load_file(folder / "part" / "model.safetensors") for folder in (single, double)]
    assert all(torch.allclose(value, weights[1][name], rtol=0, atol=1e-5) for name, value in weights[0].items())


@pytest.mark.slow
@pytest.mark.parametrize("baseline", BASELINES)
def test_two_processes_take_the_steps_of_one(one: Path, two: Path, baseline: str) -> None:
    """That the frozen parts stay bit-equal in every process, the run itself checks."""
    single, double = one / baseline / "rl", two / baseline / "rl"
    assert_same_run(single, double)
    assert sorted(path.name for path in (double / "rollouts").iterdir()) == [
        f"iteration-00000{step}-{process}-of-2.parquet" for step in range(3) for process in (1, 2)
    ]
    assert len(list((double / "previews").iterdir())) == 2
    assert (double / "refiner" / "config.json").is_file()
    moments = {json.loads(path.read_text())["moment"] for path in (double / "baseline").glob("*.json")}
    assert {"statistics", "iteration 0", "iteration 1", "iteration 2"} <= moments


@pytest.mark.slow
def test_one_process_finishes_what_two_began(tmp_path: Path, warm: Path, one: Path, two: Path) -> None:
    cut = tmp_path / "cut"
    shutil.copytree(two, cut)
    for baseline in BASELINES:
        for name in ("metrics.json", "rollouts/iteration-000002-1-of-2.parquet"):
            (cut / baseline / "rl" / name).unlink()
    train(cut, warm, 1, "auto", resume=True)
    for baseline in BASELINES:
        folder = cut / baseline / "rl"
        assert (folder / "rollouts" / "iteration-000002.parquet").is_file()
        assert not (folder / "rollouts" / "iteration-000002-2-of-2.parquet").exists()
        assert_same_run(one / baseline / "rl", folder)
        read = torch.load(folder / "state" / "last.ckpt", weights_only=True)["state_dict"]
        saved = load_file(folder / "saved" / "model.safetensors")
        assert saved and all(torch.equal(value, read[f"encoder.{name}"]) for name, value in saved.items())


def test_rows_are_dealt_out_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """12 rows, 4 groups of 3, among 2 processes."""
    monkeypatch.setattr(ranks, "count", lambda: 2)
    places = torch.arange(12)
    shares = []
    for process in (0, 1):
        monkeypatch.setattr(ranks, "rank", lambda process=process: process)
        shares.append(ranks.rows_of_this(places, 3))
    assert [share.tolist() for share in shares] == [[0, 1, 2, 6, 7, 8], [3, 4, 5, 9, 10, 11]]
    minibatch = torch.tensor([7, 3, 0, 11, 4])
    assert ranks.local_rows(minibatch, 0, 3).tolist() == [4, 0]
    assert ranks.local_rows(minibatch, 1, 3).tolist() == [0, 5, 1]
    assert [shares[1][place].item() for place in (0, 5, 1)] == [3, 11, 4]
    monkeypatch.setattr(ranks, "count", lambda: 1)
    assert ranks.gather_rows(places, 3) is places and ranks.total(places) is places
