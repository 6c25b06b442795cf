"""The processes of a run, known before torch.distributed is initialized: rank, number, and a barrier between them."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from pathlib import Path

from prip.errors import PripError

WAIT_TIMEOUT_S = 3600
"""How long processes wait for one another: the first may load parts meanwhile"""
_PAUSE_S = 0.1


def process_rank() -> int:
    """Return the rank of this process, 0 for the first or only one.

    It is read from the environment variables of the launcher (torchrun, Lightning or Slurm).
    """
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        if name in os.environ:
            return int(os.environ[name])
    return 0


def started_together() -> int:
    """Return the number of processes that torchrun or Slurm's srun started at once, else 1.

    Those that Lightning starts do not count: they begin when the first one is about to train.
    """
    if "RANK" in os.environ:
        return int(os.environ.get("WORLD_SIZE", 1))
    return 1 if "LOCAL_RANK" in os.environ else int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))


def wait_for_the_first(folder: Path) -> None:
    """Return once the first process calls `release_the_others` with the same `folder`.

    A process that waits keeps touching a file there, until it has been deleted.

    Raises:
        PripError: That takes more than WAIT_TIMEOUT_S.
    """
    folder.mkdir(parents=True, exist_ok=True)
    request = folder / f"{process_rank()}-{uuid.uuid4().hex}"
    request.touch()
    deadline = time.monotonic() + WAIT_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            os.utime(request)
        except FileNotFoundError:
            return
        time.sleep(_PAUSE_S)
    request.unlink(missing_ok=True)
    raise PripError(f"{folder}: waited {WAIT_TIMEOUT_S} s for the first process")


def release_the_others(folder: Path) -> None:
    """Let all other processes that were started together with this one return from `wait_for_the_first`.

    Files that nobody touches were left by an earlier run that was killed, and are deleted.

    Raises:
        PripError: One of them does not wait within WAIT_TIMEOUT_S.
    """
    missing = set(range(1, started_together()))
    first_seen: dict[Path, int] = {}
    deadline = time.monotonic() + WAIT_TIMEOUT_S
    while missing:
        if time.monotonic() > deadline:
            raise PripError(f"{folder}: waited {WAIT_TIMEOUT_S} s for the processes {sorted(missing)}")
        for request in folder.glob("*-*"):
            touched = request.stat().st_mtime_ns
            if touched != first_seen.setdefault(request, touched):
                request.unlink()
                missing.discard(int(request.name.partition("-")[0]))
        time.sleep(_PAUSE_S)
    shutil.rmtree(folder, ignore_errors=True)
