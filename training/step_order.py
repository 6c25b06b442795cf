"""Which examples stand in which batch: a function of (seed, stage, step, process), and of nothing that ran before."""

from __future__ import annotations

from dataclasses import dataclass

from .seeds import permutation_indices


@dataclass(frozen=True)
class StepOrder:
    """The examples of each step, and the share of each process and batch in them.

    A step takes batch_size x accumulate x processes examples: the same ones in the same order however that product is
    made up.
    """

    count: int
    """Examples to choose from"""
    batch_size: int
    """Examples in a batch of one process"""
    accumulate: int
    """Batches of one process in a step"""
    seed: int
    stage: str

    def examples(self, step: int, processes: int) -> list[int]:
        """Returns the places of all examples of `step`, those of every process."""
        total = self.batch_size * self.accumulate * processes
        return permutation_indices(step * total, total, self.count, self.seed, self.stage, "order")

    def share(self, part: int, process: int, processes: int) -> slice:
        """Returns which of a step's examples batch number `part` of the step holds for `process`."""
        size = self.batch_size * processes
        return slice(part * size + process, (part + 1) * size, processes)
