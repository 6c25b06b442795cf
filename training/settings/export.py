"""Settings of the export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """Put all parts of a finished run together as one checkpoint, in fp16, with its model card."""

    run: Path
    """Folder of the run, with all its stages done."""

    to: Path
    """Folder of the checkpoint; one that is there is replaced."""

    evaluation: Path | None = None
    """summary.json of prip evaluate, whose figures go into the model card; null means RUN/evaluation/summary.json, if
    there is one."""

    push_to_hub: str | None = None
    """Publish the checkpoint under this name on the Hub, owner/name; --push-to-hub is as good."""

    private: bool = False
    """Publish to a private repository."""
