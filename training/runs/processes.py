"""The rank of this process, known before torch.distributed is initialized."""

from __future__ import annotations

import os


def process_rank() -> int:
    """Return the rank of this process, 0 for the first or only one.

    It is read from the environment variables of the launcher (torchrun, Lightning or Slurm).
    """
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        if name in os.environ:
            return int(os.environ[name])
    return 0
