"""The examples of each batch, as a function of (seed, stage, step, process) alone."""

from __future__ import annotations

from collections.abc import Sequence

from ..runs.seeds import permutation_indices


class StepOrder:
    """The examples of each step, and each process's share of them.

    A step takes batch_size x accumulate x processes examples: the same ones in the same order for equal products.

    Args:
        count: Examples to choose from.
        batch_size: Examples in a batch of one process.
        accumulate: Batches of one process in a step.
        seed, stage: Seed of the run, and the stage as a part of it.
        lengths: Length of each example, to sort those of each step, so that its batches need little padding; none to
            leave them in random order. Which examples a step takes does not depend on their lengths.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        accumulate: int,
        seed: int,
        stage: str,
        lengths: Sequence[int] = (),
    ) -> None:
        self._count, self._batch_size, self._accumulate = count, batch_size, accumulate
        self._seed, self._stage, self._lengths = seed, stage, lengths

    def total(self, processes: int) -> int:
        """Return the number of examples of a step."""
        return self._batch_size * self._accumulate * processes

    def examples(self, step: int, processes: int) -> list[int]:
        """Return the indices of the examples of `step`, over all processes."""
        total = self.total(processes)
        indices = permutation_indices(step * total, total, self._count, self._seed, self._stage, "order")
        return sorted(indices, key=self._lengths.__getitem__) if self._lengths else indices

    def share(self, part: int, process: int, processes: int) -> slice:
        """Return which of a step's examples `process` takes in batch number `part` of the step.

        The processes take turns, so that their batches are equally long at the same time.
        """
        size = self._batch_size * processes
        return slice(part * size + process, (part + 1) * size, processes)
