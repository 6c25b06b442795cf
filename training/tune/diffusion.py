"""Stable Diffusion with a sampler that stops at any step and images with gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prip.errors import InputError
from prip.generators.diffusion import DiffusersGenerator
from prip.generators.families import FAMILIES, PromptEncodings, denoiser, family_of, native_size
from prip.generators.seeded import seeded
from prip.protocols import Generator

from . import refl

SAMPLERS = "ddim, ddpm, dpm-solver++, pndm, unipc"
"""Samplers whose latents are x_t in the sense of `refl`."""


@dataclass(frozen=True)
class Noisy:
    """Latents at a step of the sampler, with the other inputs of the denoiser."""

    latents: Tensor
    """float32 (n, channels, height, width)"""
    timestep: Tensor
    text: Tensor
    """(n, length, width), or (2 n, length, width) under guidance: rows without prompt first"""


class TunableDiffusion:
    """A generator for tuning, with its own random numbers and guidance.

    Raises:
        InputError: It is not a StableDiffusionPipeline, `refl` has no formulas for its denoiser or sampler, or it
            cannot be saved as one pipeline.
    """

    def __init__(self, generator: Generator) -> None:
        if not isinstance(generator, DiffusersGenerator):
            raise InputError(f"generator: expected a diffusers pipeline, got {generator.name!r}")
        pipeline = generator.pipeline
        family = family_of(pipeline)
        if family is not FAMILIES["StableDiffusionPipeline"]:
            raise InputError(f"generator: expected a StableDiffusionPipeline, got a {type(pipeline).__name__}")
        if generator.adapter is not None or generator.upscaler is not None:
            raise InputError("generator: expected one pipeline, got one with an adapter or an upscaler")
        scheduler = pipeline.scheduler
        self.kind: str = scheduler.config.get("prediction_type", "epsilon")
        if self.kind not in refl.PREDICTIONS:
            kinds = ", ".join(refl.PREDICTIONS)
            raise InputError(f"generator: expected a denoiser that predicts one of {kinds}, got {self.kind!r}")
        if getattr(scheduler, "alphas_cumprod", None) is None or float(scheduler.init_noise_sigma) != 1:
            name = type(scheduler).__name__
            raise InputError(f"generator_options.scheduler: expected one of {SAMPLERS}, got {name}")
        if denoiser(pipeline).config.get("time_cond_proj_dim") is not None:
            raise InputError("generator: expected guidance by two predictions, got a denoiser that reads the guidance")
        if denoiser(pipeline).dtype != torch.float32:
            raise InputError(f"generator_options.dtype: expected float32, got {str(denoiser(pipeline).dtype)[6:]}")
        self.generator, self.pipeline = generator, pipeline
        self._encodings = PromptEncodings(pipeline, family, capacity=256)

    @property
    def denoiser(self) -> nn.Module:
        """The network that is trained."""
        return denoiser(self.pipeline)

    @property
    def frozen(self) -> dict[str, object]:
        """The pipeline's other networks, by name."""
        parts = self.pipeline.components.items()
        return {name: part for name, part in parts if isinstance(part, nn.Module) and part is not self.denoiser}

    def steps(self) -> int:
        """Return the number of sampling steps of an image."""
        self.pipeline.scheduler.set_timesteps(self.generator.steps)
        return len(self.pipeline.scheduler.timesteps)

    @torch.no_grad()
    def draw(self, prompts: Sequence[str], seeds: Sequence[int], steps: int) -> Noisy:
        """Draw the images of (prompt, seed) up to step `steps`, counted from 0; all steps give the clean latents."""
        pipeline, guidance = self.pipeline, self.generator.guidance
        scheduler, device = pipeline.scheduler, pipeline.device
        scheduler.set_timesteps(self.generator.steps, device=device)
        text = self.text(prompts, guidance > 1)
        height, width = native_size(pipeline)
        size = self.generator.height or height, self.generator.width or width
        channels = self.denoiser.config.in_channels  # type: ignore[union-attr]
        with seeded(pipeline, seeds) as generators:
            latents = pipeline.prepare_latents(len(prompts), channels, *size, torch.float32, device, generators)
            extra: dict[str, Any] = pipeline.prepare_extra_step_kwargs(generators, 0.0)
            for timestep in scheduler.timesteps[:steps]:
                prediction = self.predict(Noisy(latents, timestep, text)).float()
                latents = scheduler.step(prediction, timestep, latents, **extra, return_dict=False)[0]
        return Noisy(latents, scheduler.timesteps[min(steps, len(scheduler.timesteps) - 1)], text)

    def predict(self, noisy: Noisy) -> Tensor:
        """Return the denoiser's prediction under the generator's guidance, shaped like the latents; with gradient."""
        if len(noisy.text) == len(noisy.latents):
            return self.denoise(noisy.latents, noisy.timestep, noisy.text)
        both = self.denoise(torch.cat([noisy.latents] * 2), noisy.timestep, noisy.text)
        without_prompt, with_prompt = both.chunk(2)
        return refl.guided(without_prompt, with_prompt, self.generator.guidance)

    def denoise(self, latents: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
        """Return the denoiser's own prediction; timesteps: int64, one for all or (n,)."""
        return self.denoiser(latents, timesteps, encoder_hidden_states=text).sample

    def images(self, noisy: Noisy) -> Tensor:
        """Return the images implied by noisy latents, float32 (n, 3, height, width) in 0..255, with gradient."""
        prediction = self.predict(noisy).float()
        clean = refl.clean_latents(self.kind, prediction, noisy.latents, self.kept(noisy.timestep))
        return self.decode(clean)

    def decode(self, clean: Tensor) -> Tensor:
        """Decode clean latents into float32 images in 0..255, like the generator except for rounding."""
        vae = self.pipeline.vae
        decoded = vae.decode(clean / vae.config.scaling_factor).sample.float()
        return (decoded / 2 + 0.5).clamp(0, 1) * 255

    def kept(self, timesteps: Tensor) -> Tensor:
        """Return the share of the signal's variance left at each timestep, float32 (a in `refl`)."""
        shares = self.pipeline.scheduler.alphas_cumprod.to(timesteps.device)
        return shares[timesteps.long()].float()

    @torch.no_grad()
    def text(self, prompts: Sequence[str], guided: bool) -> Tensor:
        """Encode prompts for the denoiser, (n, length, width); if guided, after n rows without prompt."""
        encoded = self._encodings(prompts, guided)
        before = [encoded["negative_prompt_embeds"]] if guided else []
        return torch.cat([*before, encoded["prompt_embeds"]])

    def to(self, device: torch.device) -> None:
        """Move the generator and the cached encodings of prompts."""
        self.generator.to(device)
        self._encodings.to(device)
