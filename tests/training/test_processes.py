"""Encoder and decoder in two gloo processes: the same losses and weights as in one, and one resumes what two saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from processes import run_script
from safetensors.torch import load_file
from stage_jobs import STAGES, logged, train_stage

pytestmark = pytest.mark.slow
STRATEGIES = ["ddp", "deepspeed-2", "deepspeed-3"]
OPTIONAL = {"padding_share"}  # each process pads its own share


def job(folder: Path, stage: str, data: Path, **options: Any) -> None:
    """Runs a stage in `folder` as a process of its own, which starts what others it needs."""
    run_script(
        folder,
        f"""
        from pathlib import Path
        from stage_jobs import train_stage

        if __name__ == "__main__":
            train_stage({stage!r}, Path({str(folder)!r}), Path({str(data)!r}), **{options!r})
        """,
    )


def assert_same_run(one: Path, other: Path, stage: str) -> None:
    """Asserts that the logs and the parts of two runs agree to 1e-5."""
    rows = logged(one, stage), logged(other, stage)
    assert len(rows[0]) == len(rows[1]) == 6
    for mine, theirs in zip(*rows, strict=True):
        assert mine.keys() == theirs.keys() and {"loss", "gradient_norm"} <= mine.keys()
        for name in mine.keys() - OPTIONAL:
            assert theirs[name] == pytest.approx(mine[name], rel=1e-5, abs=1e-5), (mine["step"], name)
    parts = [load_file(run / stage / "part" / "model.safetensors") for run in (one, other)]
    assert parts[0].keys() == parts[1].keys()
    for name, value in parts[0].items():
        assert torch.allclose(value, parts[1][name], rtol=0, atol=1e-5), name


@pytest.fixture(scope="module", params=STAGES)
def single(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, data: Path) -> tuple[str, Path]:
    """A stage, and its run in one process."""
    run = tmp_path_factory.mktemp(request.param)
    train_stage(request.param, run, data)
    return request.param, run


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_learn_what_one_does(
    tmp_path: Path, data: Path, single: tuple[str, Path], strategy: str, accumulate: int
) -> None:
    stage, run = single
    loop = {"batch_size": 4 // accumulate, "accumulate": accumulate}
    job(tmp_path, stage, data, devices=2, strategy=strategy, loop=loop)
    assert_same_run(run, tmp_path, stage)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_process_resumes_what_two_saved(
    tmp_path: Path, data: Path, single: tuple[str, Path], strategy: str
) -> None:
    stage, run = single
    job(tmp_path, stage, data, devices=2, strategy=strategy, loop={"batch_size": 4}, exit_at=4)
    saved = load_file(tmp_path / stage / "part" / "model.safetensors")
    assert not (tmp_path / stage / "metrics.json").exists()
    job(tmp_path, stage, data, resume=True, exit_at=4)
    checkpoint = torch.load(tmp_path / stage / "state" / "last.ckpt", weights_only=True)
    (loop,) = (state for name, state in checkpoint["callbacks"].items() if name.startswith("StageLoop"))
    assert loop["steps_done"] == loop["best_step"] == 4
    assert saved and all(
        torch.equal(value, checkpoint["state_dict"][f"{stage}.{name}"]) for name, value in saved.items()
    )
    job(tmp_path, stage, data, resume=True)
    assert_same_run(run, tmp_path, stage)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_processes_resume_what_two_saved(
    tmp_path: Path, data: Path, single: tuple[str, Path], strategy: str
) -> None:
    stage, run = single
    common = {"devices": 2, "strategy": strategy, "loop": {"batch_size": 4}}
    job(tmp_path, stage, data, **common, exit_at=4)
    job(tmp_path, stage, data, **common, resume=True)
    assert_same_run(run, tmp_path, stage)
