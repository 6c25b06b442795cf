"""Any diffusers text-to-image pipeline as a frozen generator."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..loading import quiet
from ..places import as_device, as_dtype
from .families import PromptEncodings, denoiser, family_of, native_size, reading_tokenizer
from .pipelines import DEFAULTS_FILE, default_guidance, load_pipeline
from .seeded import no_other_randomness, seeded

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
    ) -> None:
        """pipeline: a text-to-image pipeline. steps, guidance: of its sampler; guidance None is the pipeline's default.
        height, width: of its images, None what it was made for. batch_size: images drawn at once. prompt_cache: prompts
        whose embeddings are kept. channels_last: memory format of the UNet and the autoencoder. compile: torch.compile
        of the UNet or transformer. unet: whose UNet the pipeline was given.
        """
        self.pipeline = pipeline
        self.name = name
        self.steps = steps
        self.guidance = default_guidance(pipeline) if guidance is None else guidance
        self.height, self.width = height, width
        self.batch_size = batch_size
        self.unet = unet
        self._tokenizer, self.token_limit = reading_tokenizer(pipeline)
        pipeline.set_progress_bar_config(disable=True)
        for part in self._networks():
            part.requires_grad_(False).eval()
            if channels_last:
                part.to(memory_format=torch.channels_last)
        if compile:
            denoiser(pipeline).compile()
        family = family_of(pipeline)
        self._encodings = PromptEncodings(pipeline, family, prompt_cache) if family else None
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
        scheduler: str | None = None,
        safety_checker: bool = True,
        **options: Any,
    ) -> DiffusersGenerator:
        """Loads a pipeline from a folder or the Hub, its networks in `dtype`, whatever they are stored in.

        name_or_path: a folder, or a Hub id, there at "ID@REVISION" or at `revision`. variant: of its weight files, such
        as fp16. unet: a tuned UNet in the pipeline's stead, by folder or Hub id. scheduler: a name of
        `schedulers.SCHEDULERS`, a class of diffusers, or "stored"; None is "stored" where PRIP saved the pipeline, else
        DPM-Solver++, except for pipelines that match flows, which keep their own. safety_checker: whether the
        pipeline's own, where it has one, blackens what it takes for unsafe. options: of the constructor; they override
        the steps, the guidance and the size stored with the pipeline.

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
        with quiet():
            pipeline.to(as_device(device))
        return cls(pipeline, unet=unet, **{**stored, **options})

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the pipeline, and how it is to be sampled; where it was loaded from is left out."""
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
        scheduler = self.pipeline.scheduler
        settings = {key: value for key, value in scheduler.config.items() if not key.startswith("_")}
        config = json.dumps(settings, sort_keys=True, default=str)
        size = f", {self.height or 'native'} x {self.width or 'native'}" if self.height or self.width else ""
        tuned = f", UNet of {self.unet}" if self.unet else ""
        return f"{self.steps} steps, guidance {self.guidance}, {type(scheduler).__name__} {config}{size}{tuned}"

    def count_tokens(self, text: str) -> int:
        """Tokens as the text encoder that reads furthest counts them, without those that frame every text."""
        return len(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def to(self, device: str | torch.device) -> DiffusersGenerator:
        """Moves all of it, what is kept of prompts too: to make room on an accelerator, and back. Returns itself."""
        with quiet():
            self.pipeline.to(torch.device(device))
        if self._encodings is not None:
            self._encodings.to(self.pipeline.device)
        return self

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        """Draws one image for each (prompt, seed): uint8 (n, 3, height, width) on the CPU."""
        if len(prompts) != len(seeds):
            raise ValueError(f"seeds: wanted one for each of {len(prompts)} prompts, got {len(seeds)}")
        starts = range(0, len(prompts), self.batch_size)
        drawn = [self._draw(prompts[i : i + self.batch_size], seeds[i : i + self.batch_size]) for i in starts]
        if drawn:
            return torch.cat(drawn)
        height, width = native_size(self.pipeline)
        return torch.zeros(0, 3, self.height or height, self.width or width, dtype=torch.uint8)

    def _draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        sizes = {"height": self.height, "width": self.width}
        arguments: dict[str, Any] = {key: value for key, value in sizes.items() if value is not None}
        if self._encodings is not None:
            arguments |= self._encodings(prompts, guided=self.guidance > 1)
        else:
            arguments["prompt"] = list(prompts)
        what = f"generator: {type(self.pipeline.scheduler).__name__}"
        check = nullcontext() if self._drew else no_other_randomness(self.pipeline.device, what)
        with check, seeded(self.pipeline, seeds) as generators:
            images = self.pipeline(
                generator=generators,
                num_inference_steps=self.steps,
                guidance_scale=self.guidance,
                output_type="np",  # the one in which every family denormalises, and checks safety where it does
                **arguments,
            ).images
        self._drew = True
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
        return (pixels.clamp(0, 1) * 255).round().to(torch.uint8)

    def _networks(self) -> list[Any]:
        return [part for part in self.pipeline.components.values() if isinstance(part, torch.nn.Module)]
