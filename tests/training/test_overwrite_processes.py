"""Overwriting a run from several processes: none of them reads what the earlier run has left."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from processes import run_script

from prip.errors import PripError
from prip.training.runs import processes

JOB = """
import json, os, time
from pathlib import Path

from made_rl import rl_settings
from prip.training.data.reward_statistics import RewardStatistics
from prip.training.rl import parts
from prip.training.rollouts.image_scorer import PlainScoreCache
from prip.training.runs.run_folder import finished_metrics, stage_folder

if __name__ == "__main__":
    run = Path({run!r})
    rank = int(os.environ["RANK"])
    if rank == 0:
        time.sleep(1.5)  # loading takes the first process longer
    folder = stage_folder(rl_settings(run, devices=2, overwrite=True), "rl")
    if rank == 0:
        time.sleep(0.5)
        RewardStatistics({{"red": 1.0}}, {{"red": 2.0}}).write(folder / "reward_statistics.json")
    read = {{
        "finished": finished_metrics(folder),
        "baseline": len(PlainScoreCache(folder / "baseline")),
        "means": parts._statistics_of_the_first(folder / "reward_statistics.json", ["red"]).means,
    }}
    (run / f"read-{{rank}}.json").write_text(json.dumps(read))
"""


def test_no_process_reads_files_of_the_run_that_is_overwritten(tmp_path: Path) -> None:
    run, old = tmp_path / "run", tmp_path / "run" / "rl"
    (old / "baseline").mkdir(parents=True)
    (old / "settings.yaml").touch()
    (old / "metrics.json").write_text("{}")
    (old / "reward_statistics.json").write_text(json.dumps({"means": {"red": 50.0}, "deviations": {"red": 7.0}}))
    entry = {"moment": "", "scores": [["a cat", 1, {"red": 3.0}]]}
    (old / "baseline" / "old.json").write_text(json.dumps(entry))
    left = run / ".rl-processes" / "1-left-by-a-run-that-was-killed"
    left.parent.mkdir()
    left.touch()
    run_script(tmp_path, JOB.format(run=str(run)), torchrun=2)
    for rank in (0, 1):
        read = json.loads((run / f"read-{rank}.json").read_text())
        assert read == {"finished": None, "baseline": 0, "means": {"red": 1.0}}, f"process {rank}"
    assert not left.parent.exists()


def test_a_process_that_nobody_joins_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "WAIT_TIMEOUT_S", 0.3)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(PripError, match="waited 0.3 s for the first process"):
        processes.wait_for_the_first(tmp_path / "processes")
    assert os.listdir(tmp_path / "processes") == []
    monkeypatch.setenv("RANK", "0")
    began = time.monotonic()
    with pytest.raises(PripError, match=r"waited 0.3 s for the processes \[1, 2\]"):
        processes.release_the_others(tmp_path / "processes")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("variables", "number"),
    [
        ({}, 1),
        ({"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}, 4),
        ({"LOCAL_RANK": "1", "WORLD_SIZE": "4"}, 1),  # a process that Lightning started
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, 1),  # the batch script itself
        ({"SLURM_PROCID": "2", "SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4"}, 4),
    ],
)
def test_processes_of_a_launcher_are_counted(
    variables: dict[str, str], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert processes.started_together() == number
