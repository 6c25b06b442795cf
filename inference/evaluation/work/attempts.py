"""Runs work on a batch in which single jobs may fail without affecting the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from prip.errors import PripError

PATIENCE = 8
"""When this many jobs fail one after another, starting with the first, all are assumed to fail."""

_T = TypeVar("_T")


def one_by_one(
    label: str, work: Callable[[list[_T]], list], jobs: list[_T], *, proven: bool = False
) -> tuple[list, list[str]]:
    """Run `work`, which returns one result per job, on all jobs at once, or on one at a time when that fails.

    Returns:
        The result of each job, None where it failed, and the reason of each failure, "" for success.

    Raises:
        PripError: The first PATIENCE jobs fail, and the worker is not `proven`: it has never succeeded.
    """
    if not jobs:
        return [], []
    try:
        return _results(work, jobs), [""] * len(jobs)
    except Exception as error:  # a job that fails becomes a row with its error; the run goes on
        if len(jobs) == 1:
            return [None], [_reason(error)]
    results: list[Any] = []
    reasons: list[str] = []
    for job in jobs:
        try:
            results += _results(work, [job])
            reasons.append("")
        except Exception as error:
            results.append(None)
            reasons.append(_reason(error))
            if not proven and all(reasons) and len(reasons) == PATIENCE:
                raise PripError(f"{label}: the first {len(reasons)} of {len(jobs)} failed: {reasons[-1]}") from error
    return results, reasons


def each(
    label: str, attempt: Callable[[list[_T]], list], jobs: list[_T], *, proven: bool = False
) -> tuple[list, list[str]]:
    """As `one_by_one`, for work that isolates failures itself: `attempt` returns a result or an exception per job.

    Until something has succeeded, the first PATIENCE jobs are tried before the others.
    """
    first = len(jobs) if proven else PATIENCE
    results = attempt(jobs[:first])
    reasons = [_reason(result) if isinstance(result, Exception) else "" for result in results]
    if jobs[first:]:
        if all(reasons):
            raise PripError(f"{label}: the first {len(reasons)} of {len(jobs)} failed: {reasons[-1]}") from results[-1]
        later_results, later_reasons = each(label, attempt, jobs[first:], proven=True)
        results, reasons = results + later_results, reasons + later_reasons
    return [None if reason else result for result, reason in zip(results, reasons, strict=True)], reasons


def _results(work: Callable[[list[_T]], list], jobs: list[_T]) -> list:
    results = work(jobs)
    if len(results) != len(jobs):
        raise PripError(f"expected {len(jobs)} results, got {len(results)}")
    return results


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
