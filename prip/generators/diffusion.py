"""Any diffusers text-to-image pipeline as a frozen generator."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError, require
from ..loading import quiet
from ..randomness import random_generator

DEFAULTS_FILE = "generator.json"
"""Beside a pipeline's own files: how many steps and how much guidance it was made for."""
ORIGIN = "_name_or_path"
"""Entry of a saved config that tells where its part was loaded from."""


def latent_noise(seed: int, shape: tuple[int, ...]) -> Tensor:
    """Initial noise as a function of the seed alone: float32 of `shape`. Samplers that add noise draw it apart."""
    return torch.randn(shape, generator=random_generator("latents", seed))


class DiffusersGenerator:
    """A `Generator` around a diffusers pipeline, frozen; an image depends on its prompt and seed alone."""

    def __init__(
        self, pipeline: Any, name: str = "diffusion", steps: int = 20, guidance: float = 7.5, batch_size: int = 64
    ) -> None:
        """pipeline: a text-to-image pipeline. steps, guidance: of its sampler. batch_size: images drawn at once."""
        self.pipeline = pipeline
        self.name = name
        self.steps = steps
        self.guidance = guidance
        self.batch_size = batch_size
        self.token_limit = pipeline.tokenizer.model_max_length - 2
        pipeline.set_progress_bar_config(disable=True)
        for part in pipeline.components.values():
            if isinstance(part, torch.nn.Module):
                part.requires_grad_(False).eval()

    @classmethod
    def from_pretrained(
        cls, name_or_path: str, device: str | None = None, dtype: torch.dtype = torch.float32, **options: Any
    ) -> DiffusersGenerator:
        """Loads a pipeline from a folder or the Hub, its networks in `dtype`, whatever they are stored in.

        `options` override the steps and the guidance stored with it.

        Raises CheckpointError where there is no such pipeline, MissingExtraError without diffusers.
        """
        diffusers = require("diffusers", "generate")
        import_module(".autoencoder", __package__)  # diffusers finds a class of ours only where its module is loaded
        defaults = Path(name_or_path) / DEFAULTS_FILE
        if defaults.is_file():
            options = {**json.loads(defaults.read_text(encoding="utf-8")), **options}
        logging = diffusers.utils.logging
        logging.disable_progress_bar()
        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()
        try:
            with quiet():
                pipeline = diffusers.AutoPipelineForText2Image.from_pretrained(name_or_path, use_safetensors=True)
            for part in pipeline.components.values():
                if isinstance(part, torch.nn.Module):
                    part.to(dtype)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"generator: no diffusers pipeline at {name_or_path!r}: {error}") from error
        finally:
            logging.set_verbosity(verbosity)
        return cls(pipeline.to(device or ("cuda" if torch.cuda.is_available() else "cpu")), **options)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the pipeline, and how it is to be sampled; where it was loaded from is left out."""
        with quiet():
            self.pipeline.save_pretrained(folder, safe_serialization=True)
        for path in [Path(folder) / "model_index.json", *Path(folder).glob("*/config.json")]:
            config = json.loads(path.read_text(encoding="utf-8"))
            if config.pop(ORIGIN, None) is not None:
                path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        defaults = json.dumps({"steps": self.steps, "guidance": self.guidance})
        (Path(folder) / DEFAULTS_FILE).write_text(defaults + "\n", encoding="utf-8")

    @property
    def sampling(self) -> str:
        """How images are sampled, in words: equal for generators that sample alike."""
        scheduler = self.pipeline.scheduler
        config = json.dumps(dict(scheduler.config), sort_keys=True, default=str)
        return f"{self.steps} steps, guidance {self.guidance}, {type(scheduler).__name__} {config}"

    def count_tokens(self, text: str) -> int:
        """Tokens as the text encoder counts them, without those that begin and end every text."""
        return len(self.pipeline.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        """Draws one image for each (prompt, seed): uint8 (n, 3, height, width) on the CPU."""
        if len(prompts) != len(seeds):
            raise ValueError(f"seeds: wanted one for each of {len(prompts)} prompts, got {len(seeds)}")
        starts = range(0, len(prompts), self.batch_size)
        drawn = [self._draw(prompts[i : i + self.batch_size], seeds[i : i + self.batch_size]) for i in starts]
        if drawn:
            return torch.cat(drawn)
        side = self.pipeline.unet.config.sample_size * self.pipeline.vae_scale_factor
        return torch.zeros(0, 3, side, side, dtype=torch.uint8)

    def _draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        unet = self.pipeline.unet
        size = unet.config.sample_size
        shape = (unet.config.in_channels, size, size)
        latents = torch.stack([latent_noise(seed, shape) for seed in seeds])
        images = self.pipeline(
            prompt=list(prompts),
            latents=latents.to(unet.device, unet.dtype),
            generator=[random_generator("steps", seed) for seed in seeds],
            num_inference_steps=self.steps,
            guidance_scale=self.guidance,
            output_type="pt",
        ).images
        return (images.float().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
