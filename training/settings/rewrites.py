"""Settings of the stage that makes the rewrites from which the paper's peers learn."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from .prepare import EvaluationSetSettings
from .shared import DrawingSettings, RunSettings, check_at_least, check_fraction


@dataclass(frozen=True, kw_only=True)
class SyntheticSettings(DrawingSettings):
    """Rewrites from the modifiers of DATA/system_prompts.parquet, as far as the rewards approve of them."""

    user_prompts: Literal["start", "table"] = "start"
    """start: what stands before the first modifier of a system prompt, which is what is made of it. table: the prompts
    of a table, each with the modifiers of several system prompts of its split."""

    table: Path | None = None
    """That table (user_prompt, split); null means RUN/parts/prompts/user_prompts.parquet."""

    per_user_prompt: int = 8
    """System prompts tried for each prompt of the table."""

    limit: int = 0
    """With start: at most so many system prompts are tried, chosen at random; 0 tries all."""

    images: int = 1
    """Images of the user prompt and of the system prompt, with the same seeds, whose mean scores are compared."""

    margin: float = 0.0
    """By how much the system prompt's images must score higher, for the user prompt, than the user prompt's: in
    deviations of the rewards on unrefined images."""

    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Number format of the rewards; null leaves it to them."""

    chunk: int = 256
    """Rewrites that are drawn and scored together: a run that is killed loses one such chunk."""

    def __post_init__(self) -> None:
        check_at_least(self, 1, "per_user_prompt", "images", "chunk")
        check_at_least(self, 0, "limit")


@dataclass(frozen=True, kw_only=True)
class SessionSettings:
    """Rewrites from a log of prompts: first and last prompt of a session."""

    log: Path | None = None
    """Metadata in DiffusionDB's layout, with user_name and timestamp; null means RUN/parts/log/metadata.parquet."""

    gap_minutes: float = 30.0
    """A session ends where more minutes pass between two prompts."""

    shared: float = 0.5
    """A session ends where two prompts in a row share less than this of the words of the one that has fewer."""

    max_prompt_nsfw: float = 1.0
    """Prompts whose prompt_nsfw is larger are passed over; 1 keeps all."""

    def __post_init__(self) -> None:
        check_at_least(self, 0, "gap_minutes")
        check_fraction(self, "shared", "max_prompt_nsfw")


@dataclass(frozen=True, kw_only=True)
class RewritesSettings(RunSettings):
    """Make the table of rewrites from which a decoder without pivot learns: RUN/rewrites/rewrites.parquet."""

    source: Literal["synthetic", "log"] = "synthetic"
    """synthetic: user prompts with modifiers that the rewards approve of (the paper's Rew-Syn). log: first and last
    prompts of sessions (Rew-Log)."""

    data: Path | None = None
    """Folder that prepare wrote; null means RUN/data."""

    synthetic: SyntheticSettings = field(default_factory=SyntheticSettings)
    """How synthetic rewrites are made."""

    sessions: SessionSettings = field(default_factory=SessionSettings)
    """How sessions are found."""

    evaluation: EvaluationSetSettings = field(default_factory=EvaluationSetSettings)
    """Whose prompts are removed."""

    dev_share: float = 0.1
    """Share of the user prompts that becomes the dev split; a table of user prompts holds splits of its own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction(self, "dev_share")
