"""Explain errors of the Hub in one line: the cause and the remedy."""

from __future__ import annotations

LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


def is_offline(error: Exception) -> bool:
    """Return whether HF_HUB_OFFLINE prevented the request."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    return isinstance(error, OfflineModeIsEnabled)


def is_passing(error: Exception) -> bool:
    """Return whether a retry may succeed: no network, a timeout, or a failure of the Hub."""
    error = _cause(error)
    status = _status(error)
    return status >= 500 or status == 429 if status else is_offline(error) or _is_transport(error)


def may_be_the_token(error: Exception) -> bool:
    """Return whether the token may lack a permission."""
    return _status(error) in (401, 403, 404)


def explain(error: Exception, repository: str) -> str:
    """Return the meaning of an error of huggingface_hub or its HTTP client, and the remedy.

    Args:
        error: The error.
        repository: Path of the repository's page on the Hub, as from `page_of`.
    """
    from huggingface_hub import constants, errors, get_token

    error = _cause(error)
    page = f"{constants.ENDPOINT}/{repository}"
    status, reason = _status(error), _reason(error)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "the Hub could not be reached: HF_HUB_OFFLINE is set; unset it to use the Hub"
    if isinstance(error, errors.HFValidationError):
        return f"expected the name of a repository (owner/name), got {repository!r}"
    if isinstance(error, errors.GatedRepoError):
        return f"the repository is gated: ask for access at {page}, then {LOG_IN}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"no such revision on the Hub; {page}/tree/main lists branches and tags"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"the Hub shows no such repository; check the name, and if it is private, {LOG_IN}"
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return f"a file that the Hub lists does not exist ({reason}); try again"
    if status == 401:
        refusal = "does not accept your token" if get_token() else "shows no such repository without a token"
        return f"the Hub {refusal}; check the name, and {LOG_IN}"
    if status == 403:
        return f"the Hub forbids it ({reason}); to use another account, {LOG_IN}"
    if status == 429:
        return "the Hub received too many requests from this address; try again in a few minutes"
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
    """Return the error that made huggingface_hub look for a file that the cache lacks, else the error itself."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    hidden = isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception)
    return _cause(error.__cause__) if hidden else error  # type: ignore[arg-type]


def _status(error: Exception) -> int:
    """Return the HTTP status of an error, 0 if there was no response."""
    from huggingface_hub.errors import HfHubHTTPError

    return error.response.status_code if isinstance(error, HfHubHTTPError) and error.response is not None else 0


def _ancestry(error: Exception) -> set[str]:
    """Return the names of an error's classes; the HTTP client depends on the release of huggingface_hub."""
    return {ancestor.__name__ for ancestor in type(error).__mro__}


def _is_transport(error: Exception) -> bool:
    return not _ancestry(error).isdisjoint(("TransportError", "TimeoutException"))


def _reason(error: Exception) -> str:
    """Return an error's message on one line; of an HTTP response, only the first line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    message = " ".join(lines[:1] if _status(error) else lines)[:300]
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
