"""Settings of the stage that makes the data of the warm-ups."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from prip.errors import InputError
from prip.hub.names import is_dataset_file, parse_dataset_file

from .shared import DrawingSettings, RunSettings, check_at_least, check_fraction


@dataclass(frozen=True, kw_only=True)
class SystemPromptSettings:
    """Which system prompts the decoder learns from: those whose own image scores well."""

    keep_share: float = 0.5
    """Share of the system prompts that is kept: those whose image has the highest standardised sum of rewards."""

    ranked_by: tuple[str, ...] = ()
    """Names of the rewards in that sum, which also chooses among several images of a prompt; empty means all."""

    thresholds: dict[str, float] = field(default_factory=dict)
    """Reward name to the raw score that the image must exceed as well, for each reward named."""

    scored_for: Literal["prompt", "start"] = "prompt"
    """What the image is scored for: its whole prompt, or what stands before the first comma there (what a user might
    have typed, for rewards that know user prompts only)."""

    def __post_init__(self) -> None:
        check_fraction(self, "keep_share")
        if not self.keep_share > 0:
            raise InputError("keep_share: expected more than 0, got 0")


@dataclass(frozen=True, kw_only=True)
class SourceSettings:
    """Which parts of `diffusiondb` are read."""

    subset: Literal["2m", "large"] = "2m"
    """Which of the two sets of a repository on the Hub; of a folder all parts are read, whichever they are of."""

    first_part: int = 1
    """Number of the first part."""

    part_limit: int = 0
    """At most so many parts from there on; 0 reads all."""

    keep: bool = False
    """Keep the zips in the Hub's cache, so that the pivots do not fetch them again: 1.6 TB for all of 2m."""

    def __post_init__(self) -> None:
        check_at_least(self, 1, "first_part")
        check_at_least(self, 0, "part_limit")


@dataclass(frozen=True, kw_only=True)
class FilterSettings:
    """Which images are passed over, as the metadata tells: what it does not tell passes."""

    max_image_nsfw: float = 1.0
    """Images whose image_nsfw is larger are passed over; 1 keeps all, as scores lie between 0 and 1."""

    max_prompt_nsfw: float = 1.0
    """Images whose prompt_nsfw is larger are passed over; 1 keeps all."""

    keep_blurred: bool = False
    """Keep images that were blurred before they were published (image_nsfw 2)."""

    keep_duplicates: bool = False
    """Keep images drawn again: of the same prompt, seed, steps, guidance, sampler and size."""

    def __post_init__(self) -> None:
        check_fraction(self, "max_image_nsfw", "max_prompt_nsfw")


@dataclass(frozen=True, kw_only=True)
class EvaluationSetSettings:
    """Evaluation sets, whose prompts must not be learnt from."""

    files: tuple[str | Path, ...] = ()
    """Files of prompts: .txt (one a line), .tsv, .csv or .json, here or as hf://datasets/OWNER/NAME[@REVISION]/PATH."""

    column: str = "prompt"
    """Column of tables, or key of JSON objects, that holds the prompts."""

    similarity: float = 0.8
    """Prompts whose n-grams agree to this Jaccard index or more with those of an evaluation prompt are removed like
    those that are the same; 0 removes only the same."""

    ngram: int = 5
    """Characters in an n-gram."""

    permutations: int = 128
    """Permutations of MinHash: more of them miss fewer near-duplicates, in more time."""

    def __post_init__(self) -> None:
        for file in self.files:
            if is_dataset_file(file):
                try:
                    parse_dataset_file(str(file))
                except InputError as error:
                    raise InputError(f"evaluation.files: {error}") from error
        check_fraction(self, "similarity")
        check_at_least(self, 1, "ngram")
        check_at_least(self, 16, "permutations")


@dataclass(frozen=True, kw_only=True)
class RaySettings:
    """Scoring and pivots on Ray Data instead of in this process; the results are the same."""

    workers: int = 0
    """Actors, each with the frozen parts loaded once; 0 does without Ray."""

    address: str | None = None
    """Address of a Ray cluster, "auto" for the one that this machine belongs to; null starts Ray on this machine."""

    num_cpus: float = 1.0
    """CPUs of each actor, and threads that it computes with, unless OMP_NUM_THREADS says another number."""

    num_gpus: float = 0.0
    """GPUs of each actor; a fraction lets several share one."""

    def __post_init__(self) -> None:
        check_at_least(self, 0, "workers", "num_cpus", "num_gpus")
        if self.address is not None and not self.workers:
            raise InputError("ray.workers: expected at least 1 where ray.address is given, got 0")


@dataclass(frozen=True, kw_only=True)
class PrepareSettings(DrawingSettings, RunSettings):
    """Draw images, choose the preferred ones and the system prompts, cache their pivots."""

    diffusiondb: str | Path | None = None
    """Folder in DiffusionDB's layout to mine, its parts as folders or zips, or a dataset on the Hub such as
    poloclub/diffusiondb or poloclub/diffusiondb@REVISION; null draws a folder at RUN/data/diffusiondb."""

    source: SourceSettings = field(default_factory=SourceSettings)
    """Which parts of diffusiondb are read."""

    filters: FilterSettings = field(default_factory=FilterSettings)
    """Which images are passed over."""

    evaluation: EvaluationSetSettings = field(default_factory=EvaluationSetSettings)
    """Whose prompts are removed."""

    user_prompts: Path | None = None
    """Table of user prompts to draw (user_prompt, split); null means RUN/parts/prompts/user_prompts.parquet."""

    system_prompts: Path | None = None
    """Table of system prompts to draw (system_prompt, split); null means RUN/parts/prompts/system_prompts.parquet."""

    pivot_encoder: str | None = None
    """Pivot encoder by folder or ID[@REVISION] on the Hub; null means RUN/parts/pivot_encoder."""

    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Number format of rewards and pivot encoder; null leaves it to them. Pivots are kept in float16."""

    images_per_user_prompt: int = 8
    """Images drawn for each user prompt, among which the preferred one is chosen."""

    preferred_by: tuple[str, ...] = ()
    """Names of the rewards whose standardised sum chooses the preferred images; empty means all."""

    preferred_per_prompt: int = 1
    """How many of a user prompt's best images become a row of their own."""

    system: SystemPromptSettings = field(default_factory=SystemPromptSettings)
    """Which system prompts are kept."""

    user_prompt_limit: int = 0
    """At most so many user prompts are drawn, or mined from diffusiondb, chosen at random; 0 takes all."""

    system_prompt_limit: int = 0
    """At most so many system prompts are drawn, or kept of diffusiondb, chosen at random; 0 takes all."""

    dev_share: float = 0.05
    """Share of the prompts of `diffusiondb` that becomes the dev split; tables of prompts hold splits of their own."""

    max_bad_share: float = 0.01
    """The stage fails where a larger share of the images is missing or broken."""

    batch_size: int = 64
    """Images that are drawn, scored or encoded at once."""

    read_threads: int = 1
    """Threads that read and decode images, one batch ahead, in this process or in each actor."""

    pivot_shard: int = 1024
    """Images whose pivots share a file, at most; a run that is killed loses one such file."""

    ray: RaySettings = field(default_factory=RaySettings)
    """Who scores images and makes pivots."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 2, "images_per_user_prompt")
        check_at_least(self, 1, "preferred_per_prompt", "batch_size", "read_threads", "pivot_shard")
        check_at_least(self, 0, "user_prompt_limit", "system_prompt_limit")
        check_fraction(self, "dev_share", "max_bad_share")
        if self.preferred_per_prompt > self.images_per_user_prompt:
            raise InputError(
                f"preferred_per_prompt: expected at most images_per_user_prompt ({self.images_per_user_prompt}), "
                f"got {self.preferred_per_prompt}"
            )
        if self.diffusiondb is not None and self.system.scored_for != "prompt":
            raise InputError("scored_for: expected 'prompt' where diffusiondb is given, got 'start'")
