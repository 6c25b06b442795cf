"""Any diffusers text-to-image pipeline as a frozen generator."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..devices import as_device, as_dtype
from ..errors import InputError
from ..loading.strict import quiet
from .families import FAMILIES, PipelineTokens, PromptEncodings, denoiser, family_of, native_size
from .pipelines import DEFAULTS_FILE, default_guidance, load_pipeline, load_upscaler
from .seeded import STREAMS, no_other_randomness, seeded
from .sur_adapter import SurAdapter, load_sur_adapter
from .truncation import untold
from .upscaling import STREAMS as UPSCALER_STREAMS
from .upscaling import Upscaler

ORIGIN = "_name_or_path"
"""Entry of a saved config that tells where its part was loaded from."""


class DiffusersGenerator:
    """A `Generator` around a diffusers pipeline, frozen; an image depends on its prompt and seed alone."""

    def __init__(
        self,
        pipeline: Any,
        name: str = "diffusion",
        steps: int = 20,
        guidance: float | None = None,
        height: int | None = None,
        width: int | None = None,
        batch_size: int = 64,
        prompt_cache: int = 256,
        channels_last: bool = False,
        compile: bool = False,
        unet: str | None = None,
        adapter: SurAdapter | None = None,
        upscaler: Upscaler | None = None,
    ) -> None:
        """pipeline: a text-to-image pipeline. steps, guidance: of its sampler; guidance None is the pipeline's default.
        height, width: of its images, None what it was made for. batch_size: images drawn at once. prompt_cache: prompts
        whose embeddings are kept. channels_last: memory format of the UNet and the autoencoder. compile: torch.compile
        of the UNet or transformer. unet: whose UNet the pipeline was given. adapter: what Stable Diffusion's prompt
        embeddings go through. upscaler: a second stage, with as many steps; height and width are those of its images.

        Raises InputError for an adapter or an upscaler that does not fit the pipeline.
        """
        self.pipeline = pipeline
        self.name = name
        self.steps = steps
        self.guidance = default_guidance(pipeline) if guidance is None else guidance
        self.height, self.width = height, width
        self.batch_size = batch_size
        self.unet, self.adapter, self.upscaler = unet, adapter, upscaler
        self._sizes = {side: size for side, size in (("height", height), ("width", width)) if size is not None}
        self._first_sizes = self._sizes if upscaler is None else upscaler.small_size(pipeline, self._sizes)
        self._tokens = PipelineTokens(pipeline)
        self.token_limit = self._tokens.token_limit
        self._pipelines = [pipeline] if upscaler is None else [pipeline, upscaler.pipeline]
        for stage in self._pipelines:
            stage.set_progress_bar_config(disable=True)
            if compile:
                denoiser(stage).compile()
        for part in self._networks():
            part.requires_grad_(False).eval()
            if channels_last:
                part.to(memory_format=torch.channels_last)
        family = family_of(pipeline)
        if adapter is not None:
            _check_adapter(adapter, pipeline)
            adapter.to(pipeline.device)
        self._encodings = PromptEncodings(pipeline, family, prompt_cache, adapter) if family else None
        self._drew = False

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        *,
        revision: str | None = None,
        variant: str | None = None,
        unet: str | None = None,
        adapter: str | None = None,
        adapter_weight: float | None = None,
        upscaler: str | None = None,
        scheduler: str | None = None,
        safety_checker: bool = True,
        **options: Any,
    ) -> DiffusersGenerator:
        """Loads a pipeline from a folder or the Hub, its networks in `dtype`, whatever they are stored in.

        name_or_path: a folder, or a Hub id, there at "ID@REVISION" or at `revision`. variant: of its weight files, such
        as fp16. unet: a tuned UNet in the pipeline's stead, by folder or Hub id. adapter, adapter_weight: a SUR adapter
        for Stable Diffusion, by file, folder or Hub id, and its share (see `load_sur_adapter`). upscaler: the second
        stage of DeepFloyd-IF, by folder or Hub id. scheduler: a name of `schedulers.SCHEDULERS`, a class of diffusers,
        or "stored", for both stages; None is "stored" where PRIP saved the pipeline, else DPM-Solver++, except for
        pipelines that match flows, which keep their own. safety_checker: whether the pipeline's own, where it has one,
        blackens what it takes for unsafe. options: of the constructor; they override the steps, the guidance and the
        size stored with the pipeline.

        Raises CheckpointError where there is no such pipeline, MissingExtraError without diffusers, InputError for an
        option that does not fit the pipeline.
        """
        pipeline, stored = load_pipeline(
            name_or_path,
            dtype=as_dtype(dtype),
            revision=revision,
            variant=variant,
            unet=unet,
            scheduler=scheduler,
            safety_checker=safety_checker,
        )
        if adapter is None and adapter_weight is not None:
            raise InputError(f"adapter_weight: wanted none without an adapter, got {adapter_weight!r}")
        parts: dict[str, Any] = {"unet": unet}
        if adapter is not None:
            parts["adapter"] = load_sur_adapter(adapter, adapter_weight)
        if upscaler is not None:
            second = load_upscaler(upscaler, as_dtype(dtype), variant, scheduler, safety_checker)
            parts["upscaler"] = Upscaler(second, upscaler)
        return cls(pipeline, **parts, **{**stored, **options}).to(as_device(device))

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the pipeline, and how it is to be sampled; where it was loaded from is left out.

        Raises InputError for a generator with an adapter or an upscaler, which would be left out too.
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
        """How images are sampled, in words: equal for generators that sample alike."""
        size = f", {self.height or 'native'} x {self.width or 'native'}" if self.height or self.width else ""
        tuned = f", UNet of {self.unet}" if self.unet else ""
        own = f"{self.steps} steps, guidance {self.guidance}, {_sampler(self.pipeline)}{size}{tuned}"
        if self.adapter is not None:
            own += f", SUR adapter of {self.adapter.name} by {self.adapter.weight}"
        if self.upscaler is not None:
            own += f", upscaled by {self.upscaler.name}: guidance {self.upscaler.guidance}, "
            own += _sampler(self.upscaler.pipeline)
        return own

    def show_progress(self, what: str | None) -> None:
        """Shows a bar of the steps on the error stream while images of `what` are drawn; None shows none, as before."""
        for stage in self._pipelines:
            stage.set_progress_bar_config(disable=what is None, desc=what, leave=False)

    def count_tokens(self, text: str) -> int:
        """Tokens as the text encoder that reads furthest counts them, without those that frame every text."""
        return self._tokens.count_tokens(text)

    def to(self, device: str | torch.device) -> DiffusersGenerator:
        """Moves all of it, what is kept of prompts too: to make room on an accelerator, and back. Returns itself."""
        with quiet():
            for stage in self._pipelines:
                stage.to(torch.device(device))
        if self._encodings is not None:
            self._encodings.to(self.pipeline.device)
        return self

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        """Draws one image for each (prompt, seed): uint8 (n, 3, height, width) on the CPU."""
        if len(prompts) != len(seeds):
            raise ValueError(f"seeds: wanted one for each of {len(prompts)} prompts, got {len(seeds)}")
        starts = range(0, len(prompts), self.batch_size)
        with untold(self._pipelines):
            drawn = [self._draw(prompts[i : i + self.batch_size], seeds[i : i + self.batch_size]) for i in starts]
        if drawn:
            return torch.cat(drawn)
        height, width = native_size(self._pipelines[-1])
        return torch.zeros(0, 3, self.height or height, self.width or width, dtype=torch.uint8)

    def _draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        # "np" is the output in which every family denormalises, and checks safety where it does; "pt" of the first
        # stage is what the second one reads
        last = {"output_type": "np", **self._sizes}
        if self.upscaler is None:
            images = self._run(self.pipeline, prompts, seeds, self.guidance, STREAMS, **last)
        else:
            first = {"output_type": "pt", **self._first_sizes}
            images = self._run(self.pipeline, prompts, seeds, self.guidance, STREAMS, **first)
            images = self._run(
                self.upscaler.pipeline, prompts, seeds, self.upscaler.guidance, UPSCALER_STREAMS, image=images, **last
            )
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
        """Returns a pipeline's images, of which the first ones are watched for randomness that is not the seeds'."""
        if self._encodings is not None:
            arguments |= self._encodings(prompts, guided=guidance > 1)
        else:
            arguments["prompt"] = list(prompts)
        what = f"generator: {type(pipeline.scheduler).__name__}"
        check = nullcontext() if self._drew else no_other_randomness(pipeline.device, what)
        with check, seeded(pipeline, seeds, streams) as generators:
            return pipeline(
                generator=generators, num_inference_steps=self.steps, guidance_scale=guidance, **arguments
            ).images

    def _networks(self) -> list[Any]:
        parts = [part for stage in self._pipelines for part in stage.components.values()]
        return [part for part in parts if isinstance(part, torch.nn.Module)]


def _sampler(pipeline: Any) -> str:
    """A pipeline's sampler and its settings, in words."""
    scheduler = pipeline.scheduler
    settings = {key: value for key, value in scheduler.config.items() if not key.startswith("_")}
    return f"{type(scheduler).__name__} {json.dumps(settings, sort_keys=True, default=str)}"


def _check_adapter(adapter: SurAdapter, pipeline: Any) -> None:
    if family_of(pipeline) is not FAMILIES["StableDiffusionPipeline"]:
        raise InputError(f"adapter: it is for a StableDiffusionPipeline, the generator is a {type(pipeline).__name__}")
    width, wanted = adapter.fc.out_features, pipeline.text_encoder.config.hidden_size
    if width != wanted:
        raise InputError(f"adapter: wanted one for embeddings of width {wanted}, {adapter.name!r} is for {width}")
