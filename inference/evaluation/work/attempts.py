"""Work on a batch of which some may fail: the others are spared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from prip.errors import PripError

PATIENCE = 8
"""So many jobs that fail one after the other, from the first on, are taken for a failure of all."""

_T = TypeVar("_T")


def one_by_one(
    what: str, work: Callable[[list[_T]], list], jobs: list[_T], proven: bool = False
) -> tuple[list, list[str]]:
    """Returns what `work` makes of each job, None where it fails for it alone, and why ("" where it does not).

    what: whose work it is, for the message. proven: whether it has ever gone well. Raises PripError where it has not,
    and the first PATIENCE jobs fail.
    """
    if not jobs:
        return [], []
    try:
        return _made(work, jobs), [""] * len(jobs)
    except Exception as error:  # one job that fails is a row with its error, not the end of the run
        if len(jobs) == 1:
            return [None], [_reason(error)]
    made: list[Any] = []
    reasons: list[str] = []
    for job in jobs:
        try:
            made += _made(work, [job])
            reasons.append("")
        except Exception as error:
            made.append(None)
            reasons.append(_reason(error))
            if not proven and all(reasons) and len(reasons) == PATIENCE:
                raise PripError(f"{what}: the first {len(reasons)} of {len(jobs)} failed: {reasons[-1]}") from error
    return made, reasons


def each(
    what: str, attempt: Callable[[list[_T]], list], jobs: list[_T], proven: bool = False
) -> tuple[list, list[str]]:
    """Does what `one_by_one` does with work that spares the others itself: `attempt` returns for each job what it makes
    of it, or the exception. While nothing has gone well, the first PATIENCE jobs are tried before the others."""
    first = len(jobs) if proven else PATIENCE
    made = attempt(jobs[:first])
    reasons = [_reason(one) if isinstance(one, Exception) else "" for one in made]
    if jobs[first:]:
        if all(reasons):
            raise PripError(f"{what}: the first {len(reasons)} of {len(jobs)} failed: {reasons[-1]}") from made[-1]
        rest, later = each(what, attempt, jobs[first:], True)
        made, reasons = made + rest, reasons + later
    return [None if reason else one for one, reason in zip(made, reasons, strict=True)], reasons


def _made(work: Callable[[list[_T]], list], jobs: list[_T]) -> list:
    made = work(jobs)
    if len(made) != len(jobs):
        raise PripError(f"wanted {len(jobs)} results, got {len(made)}")
    return made


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
