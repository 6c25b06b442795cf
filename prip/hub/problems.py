"""What went wrong with the Hub, and what to do about it, in one line."""

from __future__ import annotations

LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


def is_offline(error: Exception) -> bool:
    """Whether the network was not even tried, since HF_HUB_OFFLINE is set."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    return isinstance(error, OfflineModeIsEnabled)


def is_passing(error: Exception) -> bool:
    """Whether a later try may succeed: no network, no answer in time, or the Hub's own failure."""
    error = _cause(error)
    status = _status(error)
    return status >= 500 or status == 429 if status else is_offline(error) or _is_transport(error)


def may_be_the_token(error: Exception) -> bool:
    """Whether the Hub refused somebody, not something."""
    return _status(error) in (401, 403, 404)


def explain(error: Exception, repository: str) -> str:
    """Return what an error of huggingface_hub, or of the HTTP client below it, means and what helps.

    repository: where its page lies below the Hub's address.
    """
    from huggingface_hub import constants, errors, get_token

    error = _cause(error)
    page = f"{constants.ENDPOINT}/{repository}"
    status, reason = _status(error), _reason(error)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "the Hub could not be reached: HF_HUB_OFFLINE is set; unset it to let PRIP ask the Hub"
    if isinstance(error, errors.HFValidationError):
        return f"{repository!r} is no name of a repository, owner/name was expected"
    if isinstance(error, errors.GatedRepoError):
        return f"the repository is gated: ask for access at {page}, then {LOG_IN}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"no such revision on the Hub; {page}/tree/main lists branches and tags"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"no repository that the Hub shows you; check the name, and if it is private {LOG_IN}"
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return f"a file that the Hub lists is not there ({reason}); try again"
    if status == 401:
        who = "does not accept your token" if get_token() else "shows nothing of that name to somebody unknown"
        return f"the Hub {who}; check the name, and {LOG_IN}"
    if status == 403:
        return f"the Hub does not allow it ({reason}); to be somebody else, {LOG_IN}"
    if status == 429:
        return "the Hub has had too many requests from here; try again in some minutes"
    if status >= 500:
        return f"the Hub failed with {status}; try again later"
    if status:
        return f"the Hub refused with {status} ({reason})"
    if "TimeoutException" in _ancestry(error):
        return f"the Hub at {constants.ENDPOINT} could not be reached: no answer in time; try again"
    if _is_transport(error):
        return f"the Hub at {constants.ENDPOINT} could not be reached ({reason}); check the network and try again"
    return reason


def _cause(error: Exception) -> Exception:
    """Return what lies below an error that only tells of the cache's lack."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    hidden = isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception)
    return _cause(error.__cause__) if hidden else error  # type: ignore[arg-type]


def _status(error: Exception) -> int:
    """Return the HTTP status that an error stands for, 0 where there was no answer."""
    from huggingface_hub.errors import HfHubHTTPError

    return error.response.status_code if isinstance(error, HfHubHTTPError) and error.response is not None else 0


def _ancestry(error: Exception) -> set[str]:
    """Return the names of an error's classes: huggingface_hub's releases differ in their HTTP client."""
    return {ancestor.__name__ for ancestor in type(error).__mro__}


def _is_transport(error: Exception) -> bool:
    return not _ancestry(error).isdisjoint(("TransportError", "TimeoutException"))


def _reason(error: Exception) -> str:
    """Return an error's own words on one line: all of them, or the first line of an answer's."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    own = " ".join(lines[:1] if _status(error) else lines)[:300]
    return f"{type(error).__name__}: {own}" if own else type(error).__name__
