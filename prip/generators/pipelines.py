"""Loading diffusers pipelines: from safetensors, in one dtype, with the sampler and the UNet that were asked for."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError, InputError, require
from ..hub.names import split_revision
from ..loading.strict import quiet
from .schedulers import DEFAULT, STORED, make_scheduler, matches_flows

DEFAULTS_FILE = "generator.json"
"""Beside a pipeline's own files: how many steps, how much guidance and which size it was made for."""

UPSCALER = "IFSuperResolutionPipeline"
"""The class of a second stage."""


def default_guidance(pipeline: Any) -> float:
    """Returns the guidance that a pipeline takes when it is not told."""
    return float(inspect.signature(pipeline.__call__).parameters["guidance_scale"].default)


def load_pipeline(
    name_or_path: str,
    dtype: torch.dtype,
    revision: str | None = None,
    variant: str | None = None,
    unet: str | None = None,
    scheduler: str | None = None,
    safety_checker: bool = True,
) -> tuple[Any, dict[str, Any]]:
    """Returns a text-to-image pipeline on the CPU, and how it is sampled where PRIP stored that with it.

    Arguments and errors are those of `DiffusersGenerator.from_pretrained`.
    """
    diffusers = require("diffusers", "generate")
    import_module(".autoencoder", __package__)  # diffusers finds a class of ours only where its module is loaded
    place, pinned = split_revision(name_or_path)
    if pinned is not None and revision is not None:
        raise InputError(f"revision: {name_or_path!r} has one already, {revision!r} came")
    defaults = Path(place).expanduser() / DEFAULTS_FILE
    stored = json.loads(defaults.read_text(encoding="utf-8")) if defaults.is_file() else {}
    source = {"revision": pinned or revision}
    with _silent(diffusers), _as_checkpoint_errors(f"generator: no diffusers pipeline at {name_or_path!r}"):
        index = diffusers.DiffusionPipeline.load_config(place, **source)
        parts = _without_checker(index, safety_checker)
        if unet is not None:
            if "unet" not in index:
                raise InputError(f"unet: {name_or_path!r} is a {index.get('_class_name')}, which has none")
            parts["unet"] = _load_unet(diffusers, unet, dtype)
        pipeline = diffusers.AutoPipelineForText2Image.from_pretrained(
            place, use_safetensors=True, dtype=dtype, variant=variant, **source, **parts
        )
        name = scheduler or (STORED if stored or matches_flows(pipeline.scheduler) else DEFAULT)
        pipeline.scheduler = make_scheduler(name, pipeline.scheduler)
    return pipeline, stored


def load_upscaler(
    name: str,
    dtype: torch.dtype,
    variant: str | None = None,
    scheduler: str | None = None,
    safety_checker: bool = True,
) -> Any:
    """Returns the second stage of DeepFloyd-IF on the CPU, without its text encoder: it reads the first one's.

    name: a folder, or a Hub id, "ID@REVISION" too. The other arguments and errors are those of
    `DiffusersGenerator.from_pretrained`; InputError is for a pipeline that is no second stage, too.
    """
    diffusers = require("diffusers", "generate")
    place, revision = split_revision(name)
    with _silent(diffusers), _as_checkpoint_errors(f"upscaler: no diffusers pipeline at {name!r}"):
        index = diffusers.DiffusionPipeline.load_config(place, revision=revision)
        kind = index.get("_class_name")
        if kind != UPSCALER:
            raise InputError(f"upscaler: wanted an {UPSCALER}, {name!r} is a {kind}")
        parts = {"text_encoder": None, "tokenizer": None, **_without_checker(index, safety_checker)}
        pipeline = diffusers.IFSuperResolutionPipeline.from_pretrained(
            place, use_safetensors=True, dtype=dtype, variant=variant, revision=revision, **parts
        )
        pipeline.scheduler = make_scheduler(scheduler or DEFAULT, pipeline.scheduler)
    return pipeline


def _without_checker(index: Mapping[str, Any], safety_checker: bool) -> dict[str, Any]:
    """Returns what leaves a pipeline's safety checker out, where it has one that is not wanted."""
    unwanted = not safety_checker and "safety_checker" in index
    return {"safety_checker": None, "requires_safety_checker": False} if unwanted else {}


def _load_unet(diffusers: Any, name: str, dtype: torch.dtype) -> Any:
    """Loads a UNet strictly, from `name` itself or from unet/ in it."""
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
    problems = [
        f"{what}: {', '.join(sorted(info[what]))}" for what in ("missing_keys", "unexpected_keys") if info[what]
    ]
    if problems:
        raise CheckpointError(f"unet: {name!r} does not fit: {'; '.join(problems)}")
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
