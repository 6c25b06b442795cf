"""Minibatches of rows: equal shares for any number of processes, and one exchange of gradients a step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import lightning as L
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from . import ranks


def balanced_minibatches(rows: int, size: int, group: int, generator: torch.Generator) -> list[Tensor]:
    """Return a random order of all rows, in minibatches that every number of processes shares equally.

    Rows lie with the processes in turn, `group` at a time (see `ranks`). Each minibatch takes as many rows of each
    residue class of the groups, modulo the greatest common divisor of their number and `size`. So the minibatches do
    not depend on the number of processes, and all processes have the same share if that number divides both.

    Args:
        rows: Rows of all processes, a multiple of `group`.
        size: Rows in a minibatch; the last one may have fewer.
        group: Consecutive rows that lie with the same process.
        generator: Source of randomness.

    Returns:
        Row indices of each minibatch, int64 (n,).
    """
    classes = math.gcd(rows // group, size)
    order = torch.randperm(rows, generator=generator)
    by_class = order[(order // group % classes).argsort(stable=True)].view(classes, -1)
    return [columns.flatten() for columns in by_class.split(size // classes, dim=1)]


@dataclass(frozen=True)
class Chunk:
    """Rows of a minibatch for one backward pass of this process."""

    rows: Tensor
    """int64 (n,): indices among this process's rows, at least one"""
    weight: int
    """0 if the process has no rows left and repeats its first, else 1"""
    last: bool
    """Whether it ends the minibatch"""


def chunks_of_this(minibatch: Tensor, chunk: int, group: int) -> Iterator[Chunk]:
    """Yield this process's chunks of a minibatch, at most `chunk` rows each; every process gets as many."""
    most = max(len(ranks.local_rows(minibatch, process, group)) for process in range(ranks.count()))
    own = ranks.local_rows(minibatch, ranks.rank(), group)
    for start in range(0, most, chunk):
        rows = own[start : start + chunk]
        yield Chunk(rows if len(rows) else torch.tensor([0]), min(len(rows), 1), start + chunk >= most)


def exchanged(module: L.LightningModule, last: bool) -> AbstractContextManager[None]:
    """Return the context of a backward pass under manual optimization: only the last of a step exchanges gradients.

    DDP averages over the processes what the passes before have summed in each. Other strategies are left as they are:
    DeepSpeed needs every pass.
    """
    model = module.trainer.strategy.model
    return model.no_sync() if isinstance(model, DistributedDataParallel) and not last else nullcontext()
