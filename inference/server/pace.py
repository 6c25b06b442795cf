"""What a job is expected to take, by what those before it took."""

from __future__ import annotations

import math
import statistics
from collections import deque

MEASURED = 5
"""How many batches tell what a job takes: the one in the middle of them, so that a slow start is soon forgotten."""
BELIEVED_S = 60.0
"""How long a measurement is believed: when all was refused for so long, the next request is tried."""
SLACK = 1.25
"""What a job is expected to take, in what it took: without it, those that are begun last are often late by a hair."""


class Pace:
    """Seconds per job of the last batches. All times are on the clock of time.monotonic."""

    def __init__(self) -> None:
        self._seconds_per_job: deque[float] = deque(maxlen=MEASURED)
        self._noted = -math.inf

    def note(self, jobs: int, began: float, ended: float) -> None:
        """Take the times of a batch into account."""
        self._noted = ended
        self._seconds_per_job.append((ended - began) / jobs)

    def expected_s(self, now: float) -> float:
        """Return the seconds that a job is expected to take, 0 when that is not known."""
        known = self._seconds_per_job and now - self._noted <= BELIEVED_S
        return SLACK * statistics.median_low(self._seconds_per_job) if known else 0.0
