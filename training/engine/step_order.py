"""The examples of each batch, as a function of (seed, stage, step, process) alone."""

from __future__ import annotations

from collections.abc import Sequence

from ..runs.seeds import derive_seed, permutation_indices


class StepOrder:
    """The examples of each step, and each process's share of them.

    A step takes batch_size x accumulate x processes examples: the same ones in the same order for equal products.

    Args:
        count: Examples to choose from.
        batch_size: Examples in a batch of one process.
        accumulate: Batches of one process in a step.
        seed, stage: Seed of the run, and the stage as a part of it.
        window: Steps whose examples are sorted by length together, so that those of a batch have similar lengths; the
            steps of a window are then shuffled. 0 only shuffles.
        lengths: Length of each example; required with a window.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        accumulate: int,
        seed: int,
        stage: str,
        window: int = 0,
        lengths: Sequence[int] = (),
    ) -> None:
        self._count, self._batch_size, self._accumulate = count, batch_size, accumulate
        self._seed, self._stage, self._window, self._lengths = seed, stage, window, lengths
        self._cached: tuple[int, list[list[int]]] | None = None

    def total(self, processes: int) -> int:
        """Return the number of examples of a step."""
        return self._batch_size * self._accumulate * processes

    def examples(self, step: int, processes: int) -> list[int]:
        """Return the indices of the examples of `step`, over all processes."""
        total = self.total(processes)
        if not self._window:
            return self._shuffled(step * total, total)
        number, offset = divmod(step, self._window)
        if self._cached is None or self._cached[0] != number:
            self._cached = (number, self._sorted_steps(number, total))
        return self._cached[1][offset]

    def share(self, part: int, process: int, processes: int) -> slice:
        """Return which of a step's examples `process` takes in batch number `part` of the step."""
        size = self._batch_size * processes
        return slice(part * size + process, (part + 1) * size, processes)

    def _shuffled(self, start: int, count: int) -> list[int]:
        return permutation_indices(start, count, self._count, self._seed, self._stage, "order")

    def _sorted_steps(self, number: int, total: int) -> list[list[int]]:
        size = self._window * total
        indices = sorted(self._shuffled(number * size, size), key=self._lengths.__getitem__)
        seed = derive_seed(self._seed, self._stage, "steps of a window", number)
        order = permutation_indices(0, self._window, self._window, seed)
        return [indices[step * total : (step + 1) * total] for step in order]
