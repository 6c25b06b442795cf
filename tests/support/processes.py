"""Running a piece of Python in several processes, as a user's command would: Lightning starts the others."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent


def run_script(folder: Path, script: str, timeout_s: float = 900, torchrun: int = 0) -> str:
    """Runs `script` as a file in `folder` in a fresh interpreter; returns what it printed.

    Where the script trains with devices=2, Lightning starts the same file once more as the second process: so settings
    must not depend on anything but the file. tests/support and tests/training can be imported in it. One thread a
    process. Raises AssertionError, with what it printed, if it fails.

    torchrun: how many processes torchrun is to start at once; 0 for one, without it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "job.py"
    paths = [str(TESTS / "support"), str(TESTS / "training")]
    path.write_text(f"import sys\nsys.path[:0] = {paths!r}\n" + textwrap.dedent(script), encoding="utf-8")
    named = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
    environment = {name: value for name, value in os.environ.items() if name not in named}
    environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    start = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={torchrun}"] if torchrun else []
    command = [sys.executable, *start, str(path)]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=timeout_s)
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
    return done.stdout
