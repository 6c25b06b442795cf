"""What the processes of a run tell each other. In a run of one process, everything is its own.

Rows are dealt out to the processes in turn, `group` rows at a time: the refinements of one user prompt.
"""

from __future__ import annotations

import torch
from torch import Tensor, distributed


def rank() -> int:
    """Returns the place of this process among those that train together."""
    return distributed.get_rank() if _several() else 0


def count() -> int:
    """Returns how many processes train together."""
    return distributed.get_world_size() if _several() else 1


def gather_rows(own: Tensor, group: int = 1) -> Tensor:
    """Returns the rows of all processes in the order in which one process would have them.

    own: (rows, ...) with equally many rows in each; a second dimension may differ in length, and is filled up with 0.
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
    """Returns those of the rows of all processes that were dealt out to this one: what `gather_rows` was given."""
    return rows[(torch.arange(len(rows), device=rows.device) // group) % count() == rank()]


def local_places(rows: Tensor, process: int, group: int = 1) -> Tensor:
    """Returns where those of `rows`, places among the rows of all processes, stand that are dealt out to `process`:
    their places among its own rows, int64 (n,), in the order of `rows`."""
    number, within = rows // group, rows % group
    return (number // count() * group + within)[number % count() == process]


def total(values: Tensor) -> Tensor:
    """Returns the sum over the processes."""
    if count() == 1:
        return values
    values = values.clone()
    distributed.all_reduce(values)
    return values


def _several() -> bool:
    return distributed.is_available() and distributed.is_initialized()
