"""Which examples stand in which batch: a function of (seed, stage, step, process), and of nothing that ran before."""

from __future__ import annotations

from collections.abc import Sequence

from ..runs.seeds import derive_seed, permutation_indices


class StepOrder:
    """The examples of each step, and the share of each process and batch in them.

    A step takes batch_size x accumulate x processes examples: the same ones in the same order however that product is
    made up.
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
        """count: examples to choose from. batch_size: examples in a batch of one process. accumulate: its batches in a
        step. window: steps whose examples are put in order of their `lengths` together, so that each step, and each
        batch in it, holds examples of like length; the steps of a window are then shuffled. 0 leaves the shuffle alone.
        """
        self._count, self._batch_size, self._accumulate = count, batch_size, accumulate
        self._seed, self._stage, self._window, self._lengths = seed, stage, window, lengths
        self._held: tuple[int, list[list[int]]] | None = None

    def total(self, processes: int) -> int:
        """Returns the number of examples of a step."""
        return self._batch_size * self._accumulate * processes

    def examples(self, step: int, processes: int) -> list[int]:
        """Returns the places of all examples of `step`, those of every process."""
        total = self.total(processes)
        if not self._window:
            return self._shuffled(step * total, total)
        number, place = divmod(step, self._window)
        if self._held is None or self._held[0] != number:
            self._held = (number, self._sorted_steps(number, total))
        return self._held[1][place]

    def share(self, part: int, process: int, processes: int) -> slice:
        """Returns which of a step's examples batch number `part` of the step holds for `process`."""
        size = self._batch_size * processes
        return slice(part * size + process, (part + 1) * size, processes)

    def _shuffled(self, start: int, count: int) -> list[int]:
        return permutation_indices(start, count, self._count, self._seed, self._stage, "order")

    def _sorted_steps(self, number: int, total: int) -> list[list[int]]:
        """Returns the examples of each step of a window."""
        size = self._window * total
        places = sorted(self._shuffled(number * size, size), key=self._lengths.__getitem__)
        seed = derive_seed(self._seed, self._stage, "steps of a window", number)
        order = permutation_indices(0, self._window, self._window, seed)
        return [places[at * total : (at + 1) * total] for at in order]
