"""Several processes take the steps of one: the batch is shared out, and so are the gradients."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from made_rl import warm_up
from processes import run_script
from safetensors.torch import load_file

from prip.training import ranks

JOB = """
from dataclasses import replace
from pathlib import Path

from made_rl import GROUP, LOOP, ROLLOUTS, VALUE, make_parts, rl_settings

from prip.training import rl
from prip.training.settings import ChunkSettings, OptimizerSettings

if __name__ == "__main__":
    loop = replace(LOOP, batch_size={batch}, steps={steps})
    rollouts = replace(ROLLOUTS, dev_prompts=3, chunk=ChunkSettings(update=2))
    for ppo in ({baselines}):
        settings = rl_settings(
            Path({folder!r}) / ppo.baseline,
            devices={devices},
            strategy={strategy!r},
            resume={resume},
            ppo=replace(ppo, entropy=0.1),
            loop=loop,
            optimizer=OptimizerSettings(lr=1e-4),
            rollouts=rollouts,
        )
        rl.run(settings, make_parts(Path({warm!r})))
"""


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A run whose encoder and decoder are warmed up."""
    return warm_up(tmp_path_factory.mktemp("warm"), data)


def train(
    folder: Path, warm: Path, devices: int, strategy: str, *, baselines: str, steps: int = 2, resume: bool = False
) -> None:
    """Runs rl in fresh processes, with 4 user prompts an iteration in all; FOLDER/BASELINE is the run of each."""
    shape = {"batch": 4 // devices, "devices": devices, "strategy": strategy, "steps": steps, "resume": resume}
    run_script(folder, JOB.format(folder=str(folder), warm=str(warm), baselines=baselines, **shape))


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, warm: Path) -> Path:
    """Runs in one process."""
    folder = tmp_path_factory.mktemp("one")
    train(folder, warm, 1, "auto", baselines="GROUP, VALUE")
    return folder


def rollouts(folder: Path) -> pd.DataFrame:
    table = pd.read_parquet(folder / "rollouts")
    return table.sort_values(["iteration", "user_prompt", "refined_prompt"]).reset_index(drop=True)


def log_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "logs" / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(tmp_path: Path, warm: Path, one: Path) -> None:
    """Two iterations of 12 rollouts in minibatches of 6, twice each.

    The entropy bonus gives every minibatch a gradient: where all rewards of a group are equal there is none without it,
    and Adam makes steps of rounding errors.
    """
    baselines = {"group": "GROUP, ", "value": "VALUE, "}
    train(tmp_path, warm, 2, "ddp", baselines="".join(baselines.values()))
    for baseline in baselines:
        single, double = one / baseline / "rl", tmp_path / baseline / "rl"
        assert sorted(path.name for path in (double / "rollouts").iterdir()) == [
            f"iteration-00000{step}-{process}-of-2.parquet" for step in (0, 1) for process in (1, 2)
        ]
        tables = rollouts(single), rollouts(double)
        pd.testing.assert_frame_equal(*(table.drop(columns="log_probability") for table in tables))
        expected = tables[0].log_probability.to_numpy()
        assert tables[1].log_probability.to_numpy() == pytest.approx(expected, abs=1e-5)
        for mine, theirs in zip(log_rows(single), log_rows(double), strict=True):
            for name, value in mine.items():
                if value:
                    assert float(theirs[name]) == pytest.approx(float(value), rel=1e-5, abs=1e-5), (mine["step"], name)
        weights = [load_file(folder / "part" / "model.safetensors") for folder in (single, double)]
        assert all(torch.allclose(value, weights[1][name], rtol=0, atol=1e-5) for name, value in weights[0].items())
        assert (double / "refiner" / "config.json").is_file()
        moments = {json.loads(path.read_text())["moment"] for path in (double / "baseline").glob("*.json")}
        assert {"statistics", "iteration 0", "iteration 1"} <= moments


@pytest.mark.slow
def test_what_two_processes_began_one_may_finish(tmp_path: Path, warm: Path) -> None:
    for name, devices, strategy in (("whole", 1, "auto"), ("cut", 2, "ddp")):
        train(tmp_path / name, warm, devices, strategy, baselines="GROUP, ", steps=3)
    cut = tmp_path / "cut" / "group" / "rl"
    for path in (cut / "metrics.json", cut / "rollouts" / "iteration-000002-1-of-2.parquet"):
        path.unlink()
    train(tmp_path / "cut", warm, 1, "auto", baselines="GROUP, ", steps=3, resume=True)
    assert (cut / "rollouts" / "iteration-000002.parquet").is_file()
    assert not (cut / "rollouts" / "iteration-000002-2-of-2.parquet").exists()
    tables = [rollouts(folder) for folder in (tmp_path / "whole" / "group" / "rl", cut)]
    pd.testing.assert_frame_equal(*(table.drop(columns="log_probability") for table in tables), rtol=1e-5)


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
    assert ranks.local_places(minibatch, 0, 3).tolist() == [4, 0]
    assert ranks.local_places(minibatch, 1, 3).tolist() == [0, 5, 1]
    assert [shares[1][place].item() for place in (0, 5, 1)] == [3, 11, 4]
    monkeypatch.setattr(ranks, "count", lambda: 1)
    assert ranks.gather_rows(places, 3) is places and ranks.total(places) is places
