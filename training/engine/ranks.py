"""Communication between the processes of a run; with a single process, every function is the identity.

Rows are dealt to the processes in turn, `group` rows at a time: the refinements of one user prompt.
"""

from __future__ import annotations

import torch
from torch import Tensor, distributed


def rank() -> int:
    """Return the rank of this process."""
    return distributed.get_rank() if _several() else 0


def count() -> int:
    """Return the number of processes that train together."""
    return distributed.get_world_size() if _several() else 1


def wait() -> None:
    """Return when all processes have called this."""
    if count() > 1:
        distributed.barrier()


def gather_rows(own: Tensor, group: int = 1) -> Tensor:
    """Return the rows of all processes, in the order in which a single process would have them.

    Args:
        own: (rows, ...), with the same number of rows in each process; rows of different lengths are padded with 0.
        group: Consecutive rows that are dealt together.
    """
    if count() == 1:
        return own
    if own.dim() > 1:
        width = torch.tensor(own.shape[1], device=own.device)
        distributed.all_reduce(width, distributed.ReduceOp.MAX)
        own = torch.nn.functional.pad(own, (0, int(width) - own.shape[1]))
    parts = [torch.empty_like(own) for _ in range(count())]
    distributed.all_gather(parts, own.contiguous())
    groups = [part.unflatten(0, (-1, group)) for part in parts]
    return torch.stack(groups, dim=1).flatten(0, 2)


def rows_of_this(rows: Tensor, group: int = 1) -> Tensor:
    """Return the rows of this process among those of all: the inverse of `gather_rows`."""
    return rows[(torch.arange(len(rows), device=rows.device) // group) % count() == rank()]


def local_rows(rows: Tensor, process: int, group: int = 1) -> Tensor:
    """Convert global row indices to indices among the rows of `process`, int64 (n,), dropping those of others."""
    number, within = rows // group, rows % group
    return (number // count() * group + within)[number % count() == process]


def total(values: Tensor) -> Tensor:
    """Return the sum over the processes."""
    if count() == 1:
        return values
    values = values.clone()
    distributed.all_reduce(values)
    return values


def _several() -> bool:
    return distributed.is_available() and distributed.is_initialized()
