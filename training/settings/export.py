"""Settings of the export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """Write all parts of a finished run as one checkpoint, in fp16, with its model card."""

    run: Path
    """Folder of the run, with all stages done."""
    to: Path
    """Folder of the checkpoint; an earlier checkpoint there is replaced."""
    evaluation: Path | None = None
    """summary.json of prip evaluate, whose figures go into the model card; null means RUN/evaluation/summary.json, if
    it exists."""
    push_to_hub: str | None = None
    """Publish the checkpoint on the Hub as owner/name."""
    private: bool = False
    """Publish to a private repository."""
