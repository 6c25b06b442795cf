"""A frozen generator around any diffusers text-to-image pipeline."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from ..devices import as_device
from ..errors import InputError
from ..loading.strict import quiet
from .families import FAMILIES, PromptEncodings, denoiser, family_of, native_size, unlogged_truncation
from .pipelines import DEFAULTS_FILE, PipelineOptions, Upscaler, default_guidance, load_pipeline, load_upscaler
from .prompt_tokens import PipelineTokens
from .safety import CHECKER
from .seeded import STREAMS, UPSCALER_STREAMS, no_other_randomness, seeded
from .sur_adapter import SurAdapter, load_sur_adapter

ORIGIN = "_name_or_path"
"""Entry of a saved config with the place that its part was loaded from."""


@dataclass(frozen=True)
class DrawingOptions:
    """How a `DiffusersGenerator` draws, and the memory it may use."""

    steps: int = 20
    """Sampler steps; an upscaler takes as many."""
    guidance: float | None = None
    """Classifier-free guidance scale; None is the pipeline's default."""
    height: int | None = None
    """Of the images in pixels; None is the pipeline's native height."""
    width: int | None = None
    """Of the images in pixels; None is the pipeline's native width."""
    batch_size: int = 64
    """Images drawn at once."""
    prompt_cache: int = 256
    """Prompts whose embeddings are cached."""
    channels_last: bool = False
    """Whether the UNet and the autoencoder use the channels-last memory format."""
    compile: bool = False
    """Whether the UNet or transformer is compiled by torch.compile."""


class DiffusersGenerator:
    """A `Generator` around a frozen diffusers pipeline; an image depends only on its prompt and seed."""

    def __init__(
        self,
        pipeline: Any,
        options: DrawingOptions | None = None,
        *,
        name: str = "diffusion",
        unet: str | None = None,
        adapter: SurAdapter | None = None,
        upscaler: Upscaler | None = None,
    ) -> None:
        """Freeze a pipeline.

        Args:
            pipeline: A text-to-image pipeline.
            options: How it draws; with an upscaler, height and width are those of the upscaled images.
            name: Of the generator in tables.
            unet: Where the pipeline's UNet was loaded from, if not with the pipeline.
            adapter: Transforms Stable Diffusion's prompt embeddings.
            upscaler: Second stage of DeepFloyd-IF.

        Raises:
            InputError: If the adapter or the upscaler does not fit the pipeline.
        """
        self.pipeline = pipeline
        self.name = name
        self.options = options = options or DrawingOptions()
        self.steps, self.batch_size = options.steps, options.batch_size
        self.guidance = default_guidance(pipeline) if options.guidance is None else options.guidance
        self.height, self.width = options.height, options.width
        self.unet, self.adapter, self.upscaler = unet, adapter, upscaler
        self._sizes = {side: size for side in ("height", "width") if (size := getattr(options, side)) is not None}
        self._first_sizes = self._sizes if upscaler is None else upscaler.small_size(pipeline, self._sizes)
        self._pipelines = [pipeline] if upscaler is None else [pipeline, upscaler.pipeline]
        self._freeze()
        family = family_of(pipeline)
        self._tokens = PipelineTokens(pipeline, family.options.get("clean_caption") if family else None)
        self.token_limit = self._tokens.default_limit
        if adapter is not None:
            _check_adapter(adapter, pipeline)
            adapter.to(pipeline.device)
        self._encodings = PromptEncodings(pipeline, family, options.prompt_cache, adapter) if family else None
        self._drew = False

    def _freeze(self) -> None:
        for stage in self._pipelines:
            stage.set_progress_bar_config(disable=True)
            if self.options.compile:
                denoiser(stage).compile()
            for part in stage.components.values():
                if isinstance(part, torch.nn.Module):
                    part.requires_grad_(False).eval()
                    if self.options.channels_last:
                        part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @classmethod
    def from_pretrained(cls, name_or_path: str, device: str | torch.device | None = None, **options: Any) -> Self:
        """Load a pipeline from a folder or the Hub.

        Args:
            name_or_path: A folder, or a Hub id, also "ID@REVISION".
            device: None is a GPU if there is one.
            **options: Fields of `PipelineOptions` and of `DrawingOptions`; steps, guidance, height and width default
                to those stored with the pipeline.

        Raises:
            CheckpointError: If there is no such pipeline, or its weights do not fit.
            MissingExtraError: If diffusers is not installed.
            InputError: If an option is unknown or does not fit the pipeline.
        """
        loading, drawing = _split(options)
        pipeline, stored = load_pipeline(name_or_path, loading)
        adapter = None if loading.adapter is None else load_sur_adapter(loading.adapter, loading.adapter_weight)
        upscaler = None if loading.upscaler is None else load_upscaler(loading.upscaler, loading)
        generator = cls(
            pipeline, DrawingOptions(**{**stored, **drawing}), unet=loading.unet, adapter=adapter, upscaler=upscaler
        )
        return generator.to(as_device(device))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the pipeline and its steps, guidance and size, but not where it was loaded from.

        Raises:
            InputError: If there is an adapter or an upscaler, which a saved pipeline cannot hold.
        """
        if self.adapter is not None or self.upscaler is not None:
            raise InputError("generator: one with an adapter or an upscaler cannot be saved as one pipeline")
        with quiet():
            self.pipeline.save_pretrained(folder, safe_serialization=True)
        for path in [Path(folder) / "model_index.json", *Path(folder).glob("*/config.json")]:
            config = json.loads(path.read_text(encoding="utf-8"))
            if config.pop(ORIGIN, None) is not None:
                path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        sampling = {"steps": self.steps, "guidance": self.guidance, "height": self.height, "width": self.width}
        defaults = json.dumps({key: value for key, value in sampling.items() if value is not None})
        (Path(folder) / DEFAULTS_FILE).write_text(defaults + "\n", encoding="utf-8")

    @property
    def sampling(self) -> str:
        """Describes how images are sampled; equal for generators that sample alike."""
        size = f", {self.height or 'native'} x {self.width or 'native'}" if self._sizes else ""
        tuned = f", UNet of {self.unet}" if self.unet else ""
        text = f"{self.steps} steps, guidance {self.guidance}, {_sampler(self.pipeline)}{size}{tuned}"
        if self.adapter is not None:
            text += f", SUR adapter of {self.adapter.name} by {self.adapter.weight}"
        if self.upscaler is not None:
            text += f", upscaled by {self.upscaler.name}: guidance {self.upscaler.guidance}, "
            text += _sampler(self.upscaler.pipeline)
        return text

    @property
    def has_safety_checker(self) -> bool:
        """Whether a safety checker may blacken images, see `blackened`."""
        return any(stage.components.get(CHECKER) is not None for stage in self._pipelines)

    def show_progress(self, label: str | None) -> None:
        """Show a progress bar of the steps on stderr, with this label; None, as at first, shows none."""
        for stage in self._pipelines:
            stage.set_progress_bar_config(disable=label is None, desc=label, leave=False)

    def count_tokens(self, text: str) -> int:
        """Count tokens as the text encoder with the longest input does, without start and end tokens."""
        return self._tokens.count_tokens(text)

    def to(self, device: str | torch.device) -> Self:
        """Move the networks and the cached embeddings to a device."""
        with quiet():
            for stage in self._pipelines:
                stage.to(torch.device(device))
        if self._encodings is not None:
            self._encodings.to(self.pipeline.device)
        return self

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        """Draw one image for each (prompt, seed).

        Args:
            prompts: n prompts.
            seeds: n seeds.

        Returns:
            Images, uint8 `(n, 3, height, width)` on the CPU.

        Raises:
            InputError: If there is not one seed per prompt, or the sampler uses randomness other than the seeds'.
        """
        if len(prompts) != len(seeds):
            raise InputError(f"seeds: expected one for each of {len(prompts)} prompts, got {len(seeds)}")
        starts = range(0, len(prompts), self.batch_size)
        with unlogged_truncation(self._pipelines):
            batches = [self._draw(prompts[i : i + self.batch_size], seeds[i : i + self.batch_size]) for i in starts]
        if batches:
            return torch.cat(batches)
        height, width = native_size(self._pipelines[-1])
        return torch.zeros(0, 3, self.height or height, self.width or width, dtype=torch.uint8)

    def _draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        # "np" is the output that every family denormalises and checks for safety; the second stage reads "pt"
        last = {"output_type": "np", **self._sizes}
        if self.upscaler is None:
            images = self._run(self.pipeline, prompts, seeds, self.guidance, STREAMS, **last)
        else:
            first = {"output_type": "pt", **self._first_sizes}
            last["image"] = self._run(self.pipeline, prompts, seeds, self.guidance, STREAMS, **first)
            second = self.upscaler
            images = self._run(second.pipeline, prompts, seeds, second.guidance, UPSCALER_STREAMS, **last)
        self._drew = True
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
        return (pixels.clamp(0, 1) * 255).round().to(torch.uint8)

    def _run(
        self,
        pipeline: Any,
        prompts: Sequence[str],
        seeds: Sequence[int],
        guidance: float,
        streams: tuple[str, str],
        **arguments: Any,
    ) -> Any:
        """Run a pipeline; in the first batch, check that no randomness other than the seeds' is used."""
        if self._encodings is not None:
            arguments |= self._encodings(prompts, guided=guidance > 1)
        else:
            arguments["prompt"] = list(prompts)
        sampler = f"generator: {type(pipeline.scheduler).__name__}"
        check = nullcontext() if self._drew else no_other_randomness(pipeline.device, sampler)
        with check, seeded(pipeline, seeds, streams) as generators:
            return pipeline(
                generator=generators, num_inference_steps=self.steps, guidance_scale=guidance, **arguments
            ).images


def _split(options: Mapping[str, Any]) -> tuple[PipelineOptions, dict[str, Any]]:
    """Split options by dataclass: what is loaded, and how it draws. Raises InputError for an unknown one."""
    loading = {field.name for field in fields(PipelineOptions)}
    drawing = {field.name for field in fields(DrawingOptions)}
    for name in options:
        if name not in loading | drawing:
            raise InputError(f"generator: expected options among {', '.join(sorted(loading | drawing))}, got {name!r}")
    return (
        PipelineOptions(**{name: value for name, value in options.items() if name in loading}),
        {name: value for name, value in options.items() if name in drawing},
    )


def _sampler(pipeline: Any) -> str:
    scheduler = pipeline.scheduler
    settings = {key: value for key, value in scheduler.config.items() if not key.startswith("_")}
    return f"{type(scheduler).__name__} {json.dumps(settings, sort_keys=True, default=str)}"


def _check_adapter(adapter: SurAdapter, pipeline: Any) -> None:
    if family_of(pipeline) is not FAMILIES["StableDiffusionPipeline"]:
        raise InputError(f"adapter: expected a StableDiffusionPipeline, got {type(pipeline).__name__}")
    width, expected = adapter.fc.out_features, pipeline.text_encoder.config.hidden_size
    if width != expected:
        raise InputError(f"adapter: expected one for embeddings of width {expected}, got width {width}")
