"""Settings of the stage that makes the warm-ups' data."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from prip.errors import InputError
from prip.hub.names import is_dataset_file, parse_dataset_file

from .shared import DrawingSettings, RunSettings, check_at_least, check_fraction


@dataclass(frozen=True, kw_only=True)
class SystemPromptSettings:
    """Which system prompts the decoder learns from: those whose images score well."""

    keep_share: float = 0.5
    """Share of the system prompts to keep, by the standardized sum of rewards of their best image."""
    ranked_by: tuple[str, ...] = ()
    """Rewards in that sum, which also picks among several images of a prompt; empty means all."""
    thresholds: dict[str, float] = field(default_factory=dict)
    """Raw scores that the image must also exceed, by reward."""
    scored_for: Literal["prompt", "start"] = "prompt"
    """Text to score the image for: the whole prompt, or the text before the first comma (for rewards trained on user
    prompts only)."""

    def __post_init__(self) -> None:
        check_fraction(self, "keep_share")
        if not self.keep_share > 0:
            raise InputError("keep_share: expected more than 0, got 0")


@dataclass(frozen=True, kw_only=True)
class SourceSettings:
    """Which parts of `diffusiondb` to read."""

    subset: Literal["2m", "large"] = "2m"
    """Which set of a Hub repository to read; ignored for a local folder."""
    first_part: int = 1
    """Number of the first part."""
    part_limit: int = 0
    """Maximum number of parts; 0 reads all."""
    keep: bool = False
    """Keep the zips in the Hub's cache, so that the pivots need no second download; all of 2m takes 1.6 TB."""

    def __post_init__(self) -> None:
        check_at_least(self, 1, "first_part")
        check_at_least(self, 0, "part_limit")


@dataclass(frozen=True, kw_only=True)
class FilterSettings:
    """Images to skip by their metadata; images without metadata are kept."""

    max_image_nsfw: float = 1.0
    """Skip images with a larger image_nsfw; scores range from 0 to 1, so 1 keeps all."""
    max_prompt_nsfw: float = 1.0
    """Skip images with a larger prompt_nsfw; 1 keeps all."""
    keep_blurred: bool = False
    """Keep images that were blurred before publication (image_nsfw 2)."""
    keep_duplicates: bool = False
    """Keep repeated images of the same prompt, seed, steps, guidance, sampler and size."""

    def __post_init__(self) -> None:
        check_fraction(self, "max_image_nsfw", "max_prompt_nsfw")


@dataclass(frozen=True, kw_only=True)
class EvaluationSetSettings:
    """Evaluation sets whose prompts are removed from the training data."""

    files: tuple[str | Path, ...] = ()
    """Files of prompts: .txt (one per line), .tsv, .csv or .json, local or as
    hf://datasets/OWNER/NAME[@REVISION]/PATH."""
    column: str = "prompt"
    """Column of tables, or key of JSON objects, with the prompts."""
    similarity: float = 0.8
    """Minimum Jaccard index of character n-grams at which a prompt counts as a near-duplicate and is removed too; 0
    removes exact matches only."""
    ngram: int = 5
    """Characters per n-gram."""
    permutations: int = 128
    """Permutations of MinHash; more take longer and miss fewer near-duplicates."""

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

    def packages(self) -> list[tuple[str, str]]:
        """Return the optional packages that near-duplicates need, as `RunSettings.packages` does."""
        return [("datasketch", "train")] if self.files and self.similarity else []


@dataclass(frozen=True, kw_only=True)
class RaySettings:
    """Scoring and pivots with Ray Data instead of in this process; the results are the same."""

    workers: int = 0
    """Number of actors, each of which loads the frozen parts once; 0 disables Ray."""
    address: str | None = None
    """Address of a Ray cluster, or "auto" for the cluster of this machine; null starts Ray locally."""
    num_cpus: float = 1.0
    """CPUs per actor, and its number of threads unless OMP_NUM_THREADS is set."""
    num_gpus: float = 0.0
    """GPUs per actor; a fraction shares one."""

    def __post_init__(self) -> None:
        check_at_least(self, 0, "workers", "num_cpus", "num_gpus")
        if self.address is not None and not self.workers:
            raise InputError("ray.workers: expected at least 1 where ray.address is given, got 0")


@dataclass(frozen=True, kw_only=True)
class PrepareSettings(DrawingSettings, RunSettings):
    """Make the warm-ups' data: draw or read images, score them, choose preferred images and system prompts, cache
    pivots."""

    diffusiondb: str | Path | None = None
    """Folder in DiffusionDB's layout, with parts as folders or zips, or a dataset on the Hub such as
    poloclub/diffusiondb[@REVISION]; null draws images into RUN/data/diffusiondb."""
    source: SourceSettings = field(default_factory=SourceSettings)
    """Parts of diffusiondb to read."""
    filters: FilterSettings = field(default_factory=FilterSettings)
    """Images to skip."""
    evaluation: EvaluationSetSettings = field(default_factory=EvaluationSetSettings)
    """Evaluation sets whose prompts are removed."""
    user_prompts: Path | None = None
    """Table of user prompts to draw (user_prompt, split); null means RUN/parts/prompts/user_prompts.parquet."""
    system_prompts: Path | None = None
    """Table of system prompts to draw (system_prompt, split); null means RUN/parts/prompts/system_prompts.parquet."""
    pivot_encoder: str | None = None
    """Pivot encoder, as a folder or ID[@REVISION] on the Hub; null means RUN/parts/pivot_encoder."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Dtype of the rewards and the pivot encoder; null uses their own. Pivots are stored in fp16."""
    images_per_user_prompt: int = 8
    """Images drawn per user prompt, from which the preferred one is chosen."""
    preferred_by: tuple[str, ...] = ()
    """Rewards whose standardized sum chooses the preferred images; empty means all."""
    preferred_per_prompt: int = 1
    """Training pairs per user prompt, with its best images."""
    system: SystemPromptSettings = field(default_factory=SystemPromptSettings)
    """System prompts to keep."""
    user_prompt_limit: int = 0
    """Maximum number of user prompts drawn or mined, chosen at random; 0 takes all."""
    system_prompt_limit: int = 0
    """Maximum number of system prompts drawn or mined, chosen at random; 0 takes all."""
    dev_share: float = 0.05
    """Share of the prompts of diffusiondb in the dev split, which takes whole series: edits of a prompt stay together.
    Tables of prompts have their own splits."""
    max_bad_share: float = 0.01
    """Maximum share of missing or broken images before the stage fails."""
    batch_size: int = 64
    """Images drawn, scored or encoded at once."""
    read_threads: int = 1
    """Threads that read and decode images, one batch ahead, per process or actor."""
    pivot_shard: int = 1024
    """Maximum number of images per pivot file; an interrupted run loses at most one file."""
    ray: RaySettings = field(default_factory=RaySettings)
    """Ray actors that score images and make pivots."""

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

    def packages(self) -> list[tuple[str, str]]:
        return [*self.evaluation.packages(), *([("ray", "ray")] if self.ray.workers else [])]
