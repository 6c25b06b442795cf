"""Measures how long each kind of work takes, and shows what is being done."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tqdm import tqdm


def _untold(doing: str) -> None:
    """Show nothing."""


@dataclass
class Stopwatch:
    """Seconds by kind of work; while a bar is shown, it says what is being done."""

    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    _tell: Callable[[str], None] = _untold

    @contextmanager
    def on(self, work: str, doing: str = "") -> Iterator[None]:
        """Add the time of the block to `work`, and show `doing` in the bar."""
        if doing:
            self._tell(doing)
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[work] += time.perf_counter() - began

    @contextmanager
    def bar(self, name: str, prompts: int, shown: bool) -> Iterator[Callable[[int], object]]:
        """Show a progress bar, if `shown`, and yield the function that adds finished prompts to it."""
        with tqdm(total=prompts, desc=name, unit=" prompts", disable=not shown) as bar:
            self._tell = bar.set_postfix_str
            try:
                yield bar.update
                self._tell("done")
            finally:
                self._tell = _untold
