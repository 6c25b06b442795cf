"""Settings of the stage that makes the prompt pairs of the paper's baselines."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from .prepare import EvaluationSetSettings
from .shared import DrawingSettings, RunSettings, check_at_least, check_fraction


@dataclass(frozen=True, kw_only=True)
class GainSettings(DrawingSettings):
    """Which pairs are kept: those whose system prompt's images the rewards prefer, for the user prompt."""

    required: bool = True
    """Whether pairs without a gain are left out; false keeps all, and neither draws nor scores."""
    images: int = 1
    """Images per prompt, with the same seeds for user and system prompt, whose mean scores are compared."""
    margin: float = 0.0
    """Minimum gain of the system prompt's images over the user prompt's, scored for the user prompt, in standard
    deviations of the rewards on unrefined images."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Dtype of the rewards; null uses their own."""
    chunk: int = 256
    """Rewrites drawn and scored together; an interrupted run loses at most one chunk."""

    def __post_init__(self) -> None:
        check_at_least(self, 1, "images", "chunk")


@dataclass(frozen=True, kw_only=True)
class SyntheticSettings:
    """Rewrites with the modifiers of DATA/system_prompts.parquet."""

    user_prompts: Literal["start", "table"] = "start"
    """start takes the text before the first modifier of each system prompt as its user prompt; table combines each
    prompt of a table with the modifiers of several system prompts of its split."""
    table: Path | None = None
    """Table (user_prompt, split) for user_prompts: table; null means RUN/parts/prompts/user_prompts.parquet."""
    per_user_prompt: int = 8
    """System prompts tried per prompt of the table."""
    limit: int = 0
    """With user_prompts: start, the maximum number of system prompts, chosen at random; 0 tries all."""

    def __post_init__(self) -> None:
        check_at_least(self, 1, "per_user_prompt")
        check_at_least(self, 0, "limit")


@dataclass(frozen=True, kw_only=True)
class SessionSettings:
    """Rewrites from a log of prompts: the first and last prompt of each session."""

    log: Path | None = None
    """Metadata in DiffusionDB's layout, with user_name and timestamp; null means RUN/parts/log/metadata.parquet."""
    gap_minutes: float = 30.0
    """A new session starts after a gap of more than this many minutes."""
    shared: float = 0.5
    """Two consecutive prompts of one session share at least this fraction of the shorter one's words."""
    max_prompt_nsfw: float = 1.0
    """Skip prompts with a larger prompt_nsfw; 1 keeps all."""

    def __post_init__(self) -> None:
        check_at_least(self, 0, "gap_minutes")
        check_fraction(self, "shared", "max_prompt_nsfw")


@dataclass(frozen=True, kw_only=True)
class RewritesSettings(RunSettings):
    """Make RUN/rewrites/rewrites.parquet, the prompt pairs from which a decoder without pivot learns."""

    source: Literal["synthetic", "log"] = "synthetic"
    """synthetic adds modifiers to user prompts (the paper's Rew-Syn); log pairs the first and last prompt of sessions
    (Rew-Log). Of both, the pairs are kept that the rewards approve."""
    data: Path | None = None
    """Folder written by prepare; null means RUN/data."""
    synthetic: SyntheticSettings = field(default_factory=SyntheticSettings)
    """Synthetic rewrites."""
    sessions: SessionSettings = field(default_factory=SessionSettings)
    """Sessions of the log."""
    gain: GainSettings = field(default_factory=GainSettings)
    """Which pairs are kept."""
    evaluation: EvaluationSetSettings = field(default_factory=EvaluationSetSettings)
    """Evaluation sets whose prompts are removed."""
    dev_share: float = 0.1
    """Share of the user prompts in the dev split, in whole series as for prepare; a table of user prompts has its own
    splits."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction(self, "dev_share")

    def packages(self) -> list[tuple[str, str]]:
        return self.evaluation.packages()
