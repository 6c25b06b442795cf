"""Load diffusers pipelines: from safetensors, in one dtype, with the chosen sampler, UNet and second stage."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..devices import as_dtype
from ..errors import CheckpointError, InputError, require
from ..hub.names import split_revision
from ..loading.strict import quiet
from .families import native_size
from .schedulers import DEFAULT, STORED, make_scheduler, matches_flows

if TYPE_CHECKING:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

DEFAULTS_FILE = "generator.json"
"""Beside a pipeline's own files: the steps, guidance and size that it was made for."""

FIRST_STAGE, SECOND_STAGE = "IFPipeline", "IFSuperResolutionPipeline"
"""Classes of DeepFloyd-IF's stages."""


@dataclass(frozen=True)
class PipelineOptions:
    """What a `DiffusersGenerator` loads."""

    dtype: str | torch.dtype | None = None
    """Of the networks, by name or torch's, whatever they are stored in; None is float32."""
    revision: str | None = None
    """Of the Hub repository, unless its id has one."""
    variant: str | None = None
    """Of the weight files, such as fp16."""
    unet: str | None = None
    """A tuned UNet that replaces the pipeline's, by folder or Hub id."""
    adapter: str | None = None
    """A SUR adapter for Stable Diffusion, by file, folder or Hub id."""
    adapter_weight: float | None = None
    """Share of the adapted embeddings, 0 to 1; None reads it from the adapter's folder name."""
    upscaler: str | None = None
    """The second stage of DeepFloyd-IF, by folder or Hub id."""
    scheduler: str | None = None
    """Sampler of both stages: a key of `SCHEDULERS`, a class of diffusers, or "stored". None is "stored" if PRIP saved
    the pipeline or it matches flows, else DPM-Solver++."""
    safety_checker: bool = True
    """Whether the pipeline's own safety checker, if any, blackens images that it takes for unsafe."""

    def __post_init__(self) -> None:
        if self.adapter is None and self.adapter_weight is not None:
            raise InputError(f"adapter_weight: expected None without an adapter, got {self.adapter_weight!r}")


@dataclass(frozen=True)
class Upscaler:
    """DeepFloyd-IF's second stage, from 64 to 256 pixels a side; it reads the first stage's embeddings."""

    pipeline: Any
    """An IFSuperResolutionPipeline."""
    name: str = "upscaler"
    """Where it was loaded from."""

    @property
    def guidance(self) -> float:
        """The second stage's own default guidance."""
        return default_guidance(self.pipeline)

    def factor(self, base: Any) -> int:
        """Return the factor by which a side of the first stage's images grows.

        Raises:
            InputError: If `base` is not DeepFloyd-IF's first stage, or its size does not divide the second's.
        """
        if FIRST_STAGE not in [kind.__name__ for kind in type(base).__mro__]:
            raise InputError(f"upscaler: expected an {FIRST_STAGE} as generator, got {type(base).__name__}")
        large, small = native_size(self.pipeline)[0], native_size(base)[0]
        if large % small:
            raise InputError(f"upscaler: expected a multiple of the first stage's size {small}, got {large}")
        return large // small

    def small_size(self, base: Any, sizes: Mapping[str, int]) -> dict[str, int]:
        """Return the first stage's height and width for the second's, of those that are given."""
        factor = self.factor(base)
        for side, size in sizes.items():
            if size % factor:
                raise InputError(f"{side}: expected a multiple of the upscaler's factor {factor}, got {size}")
        return {side: size // factor for side, size in sizes.items()}


def default_guidance(pipeline: Any) -> float:
    """Return a pipeline's default guidance scale."""
    return float(inspect.signature(pipeline.__call__).parameters["guidance_scale"].default)


def load_pipeline(name_or_path: str, options: PipelineOptions) -> tuple[DiffusionPipeline, dict[str, Any]]:
    """Load a text-to-image pipeline on the CPU, without adapter and upscaler.

    Args:
        name_or_path: A folder, or a Hub id, also "ID@REVISION".
        options: What to load.

    Returns:
        The pipeline, and the drawing options that PRIP stored with it.

    Raises:
        CheckpointError: If there is no such pipeline, or its weights do not fit.
        MissingExtraError: If diffusers is not installed.
        InputError: If an option does not fit the pipeline.
    """
    diffusers = require("diffusers", "generate")
    import_module(".autoencoder", __package__)  # diffusers finds a class of ours only if its module is loaded
    place, revision = split_revision(name_or_path)
    if revision is not None and options.revision is not None:
        raise InputError(f"revision: expected None for {name_or_path!r}, which has one, got {options.revision!r}")
    revision = revision or options.revision
    defaults = Path(place).expanduser() / DEFAULTS_FILE
    stored = json.loads(defaults.read_text(encoding="utf-8")) if defaults.is_file() else {}
    with _silent(diffusers), _as_checkpoint_errors(f"generator: no diffusers pipeline at {name_or_path!r}"):
        index = diffusers.DiffusionPipeline.load_config(place, revision=revision)
        parts = _without_checker(index, options)
        if options.unet is not None:
            if "unet" not in index:
                raise InputError(f"unet: expected a pipeline with a UNet, got {index.get('_class_name')}")
            parts["unet"] = _load_unet(diffusers, options.unet, as_dtype(options.dtype))
        pipeline = diffusers.AutoPipelineForText2Image.from_pretrained(place, **_source(options, revision), **parts)
        name = options.scheduler or (STORED if stored or matches_flows(pipeline.scheduler) else DEFAULT)
        pipeline.scheduler = make_scheduler(name, pipeline.scheduler)
    return pipeline, stored


def load_upscaler(name: str, options: PipelineOptions) -> Upscaler:
    """Load the second stage of DeepFloyd-IF on the CPU, without its text encoder.

    Args:
        name: A folder, or a Hub id, also "ID@REVISION".
        options: dtype, variant, scheduler and safety_checker are used.

    Raises:
        CheckpointError: If there is no such pipeline, or its weights do not fit.
        InputError: If the pipeline is not a second stage, or an option does not fit it.
    """
    diffusers = require("diffusers", "generate")
    place, revision = split_revision(name)
    with _silent(diffusers), _as_checkpoint_errors(f"upscaler: no diffusers pipeline at {name!r}"):
        index = diffusers.DiffusionPipeline.load_config(place, revision=revision)
        if index.get("_class_name") != SECOND_STAGE:
            raise InputError(f"upscaler: expected an {SECOND_STAGE}, got {index.get('_class_name')} at {name!r}")
        parts = {"text_encoder": None, "tokenizer": None, **_without_checker(index, options)}
        pipeline = diffusers.IFSuperResolutionPipeline.from_pretrained(place, **_source(options, revision), **parts)
        pipeline.scheduler = make_scheduler(options.scheduler or DEFAULT, pipeline.scheduler)
    return Upscaler(pipeline, name)


def _source(options: PipelineOptions, revision: str | None) -> dict[str, Any]:
    variant, dtype = options.variant, as_dtype(options.dtype)
    return {"use_safetensors": True, "dtype": dtype, "variant": variant, "revision": revision}


def _without_checker(index: Mapping[str, Any], options: PipelineOptions) -> dict[str, Any]:
    """Return the parts that replace an unwanted safety checker."""
    unwanted = not options.safety_checker and "safety_checker" in index
    return {"safety_checker": None, "requires_safety_checker": False} if unwanted else {}


def _load_unet(diffusers: Any, name: str, dtype: torch.dtype) -> Any:
    """Load a UNet strictly, from `name` itself or from unet/ in it."""
    place, revision = split_revision(name)
    kind = diffusers.UNet2DConditionModel
    options: dict[str, Any] = {"revision": revision, "subfolder": "unet"}
    try:
        kind.load_config(place, **options)
    except OSError:
        options["subfolder"] = None
    with _as_checkpoint_errors(f"unet: no UNet at {name!r}"):
        unet, info = kind.from_pretrained(
            place, use_safetensors=True, dtype=dtype, output_loading_info=True, low_cpu_mem_usage=False, **options
        )
    keys = [f"{kind}: {', '.join(sorted(info[kind]))}" for kind in ("missing_keys", "unexpected_keys") if info[kind]]
    if keys:
        raise CheckpointError(f"unet: {name!r} does not fit: {'; '.join(keys)}")
    return unet


@contextmanager
def _as_checkpoint_errors(message: str) -> Iterator[None]:
    try:
        yield
    except (InputError, CheckpointError):
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{message}: {' '.join(str(error).split())[:600]}") from error


@contextmanager
def _silent(diffusers: Any) -> Iterator[None]:
    logging = diffusers.utils.logging
    logging.disable_progress_bar()
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with quiet():
            yield
    finally:
        logging.set_verbosity(verbosity)
