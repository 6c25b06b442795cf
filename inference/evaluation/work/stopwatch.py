"""Measures how long each kind of work takes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Stopwatch:
    """Seconds by kind of work."""

    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    @contextmanager
    def on(self, work: str) -> Iterator[None]:
        """Add the time of the block to `work`."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[work] += time.perf_counter() - began
