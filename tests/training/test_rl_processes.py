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

SCRIPT = """
from dataclasses import replace
from pathlib import Path

from made_rl import GROUP, LOOP, ROLLOUTS, VALUE, make_parts, rl_settings

from prip.training import rl
from prip.training.settings import ChunkSettings

loop = replace(LOOP, batch_size={batch}, steps={steps})
rollouts = replace(ROLLOUTS, dev_prompts=3, chunk=ChunkSettings(update=2))
shape = dict(devices={devices}, strategy={strategy!r}, resume={resume})
rl.run(rl_settings(Path({run!r}), ppo={baseline}, loop=loop, rollouts=rollouts, **shape), make_parts(Path({warm!r})))
"""


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A run whose encoder and decoder are warmed up."""
    return warm_up(tmp_path_factory.mktemp("warm"), data)


def train(
    folder: Path, warm: Path, baseline: str, devices: int, strategy: str, steps: int = 2, resume: bool = False
) -> Path:
    names = {"run": str(folder / "run"), "warm": str(warm), "baseline": baseline, "resume": resume}
    run_script(folder, SCRIPT.format(batch=4 // devices, devices=devices, strategy=strategy, steps=steps, **names))
    return folder / "run" / "rl"


def rollouts(folder: Path) -> pd.DataFrame:
    table = pd.read_parquet(folder / "rollouts")
    return table.sort_values(["iteration", "user_prompt", "refined_prompt"]).reset_index(drop=True)


def log_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "logs" / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "baseline"), [("ddp", "GROUP"), ("ddp", "VALUE"), ("deepspeed-2", "GROUP"), ("deepspeed-3", "GROUP")]
)
def test_two_processes_take_the_steps_of_one(tmp_path: Path, warm: Path, strategy: str, baseline: str) -> None:
    if strategy.startswith("deepspeed"):
        pytest.importorskip("deepspeed", reason="needs deepspeed")
    one = train(tmp_path / "one", warm, baseline, 1, "auto")
    two = train(tmp_path / "two", warm, baseline, 2, strategy)
    assert sorted(path.name for path in (two / "rollouts").iterdir()) == [
        f"iteration-00000{step}-{process}-of-2.parquet" for step in (0, 1) for process in (1, 2)
    ]
    tables = rollouts(one), rollouts(two)
    pd.testing.assert_frame_equal(*(table.drop(columns="log_probability") for table in tables))
    assert tables[1].log_probability.to_numpy() == pytest.approx(tables[0].log_probability.to_numpy(), abs=1e-4)
    for expected, found in zip(log_rows(one), log_rows(two), strict=True):
        for name, value in expected.items():
            if value:
                assert float(found[name]) == pytest.approx(float(value), rel=1e-4, abs=1e-5), (expected["step"], name)
    weights = [load_file(folder / "part" / "model.safetensors") for folder in (one, two)]
    assert all(torch.allclose(value, weights[1][name], atol=1e-5) for name, value in weights[0].items())
    assert (two / "refiner" / "config.json").is_file()
    files = [json.loads(path.read_text()) for path in (two / "baseline").glob("*.json")]
    assert len({file["moment"] for file in files}) > 2 and len(files) > 2 * 2


@pytest.mark.slow
def test_what_two_processes_began_one_may_finish(tmp_path: Path, warm: Path) -> None:
    whole = train(tmp_path / "whole", warm, "GROUP", 1, "auto", steps=3)
    cut = train(tmp_path / "cut", warm, "GROUP", 2, "ddp", steps=3)
    for path in (cut / "metrics.json", cut / "rollouts" / "iteration-000002-1-of-2.parquet"):
        path.unlink()
    again = train(tmp_path / "cut", warm, "GROUP", 1, "auto", steps=3, resume=True)
    pd.testing.assert_frame_equal(
        *(rollouts(folder).drop(columns="log_probability") for folder in (whole, again)), rtol=1e-5
    )


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
