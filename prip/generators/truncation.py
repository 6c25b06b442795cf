"""Of a prompt that is longer than a text encoder reads: what libraries log, at length, each time one is cut."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

TOLD = ("Token indices sequence length is longer", "The following part of your input was truncated")
"""How these messages begin: transformers' and diffusers'."""


@contextmanager
def untold(pipelines: Iterable[Any]) -> Iterator[None]:
    """Within, the tokenizers and these pipelines do not log that they cut a prompt.

    How much is read, `token_limit` and `count_tokens` of a generator tell, and a refiner keeps to it.
    """
    modules = {kind.__module__ for pipeline in pipelines for kind in type(pipeline).__mro__}
    places = ["transformers.tokenization_utils_base", *(one for one in modules if one.startswith("diffusers."))]
    loggers = [logging.getLogger(place) for place in places]
    others = _Others()
    for logger in loggers:
        logger.addFilter(others)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(others)


class _Others(logging.Filter):
    """Lets all pass but these messages. One for each drawing: several may be under way."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith(TOLD)
