"""Which of a run's processes this is."""

from __future__ import annotations

import os


def process_rank() -> int:
    """Returns the place of this process among those that train together, 0 for the first or only one.

    It is read from what the launcher (torchrun, Lightning or Slurm) put into the environment, so that it is known
    before the processes know of each other.
    """
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        if name in os.environ:
            return int(os.environ[name])
    return 0
