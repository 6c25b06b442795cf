"""Data that several tests of the training stages read."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from made_data import write_data  # noqa: E402


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as prepare writes it."""
    return write_data(tmp_path_factory.mktemp("data"))
