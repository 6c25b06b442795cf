"""Generators: draw images from prompts and seeds."""

from __future__ import annotations

from typing import Any

from ..errors import broken_packages
from ..protocols import Generator


@broken_packages()
def load_generator(name_or_path: str, device: str | None = None, **options: Any) -> Generator:
    """Load a frozen generator.

    Args:
        name_or_path: A diffusers text-to-image pipeline by folder or Hub id (also "ID@REVISION"), or "renderer" for
            the miniature's renderer.
        device: Of the networks; None is a GPU if there is one.
        **options: Fields of `PipelineOptions` (dtype, revision, variant, unet, adapter, adapter_weight, upscaler,
            scheduler, safety_checker) and of `DrawingOptions` (steps, guidance, height, width, batch_size,
            prompt_cache, channels_last, compile), both in `prip.generators.diffusion`; for the renderer size and
            batch_size. Steps, guidance, height and width default to those stored with the pipeline.

    Returns:
        A generator: call it with n prompts and n seeds for uint8 images `(n, 3, height, width)` on the CPU. An image
        depends only on its prompt and seed.

    Raises:
        CheckpointError: If there is no such pipeline, or its weights do not fit.
        InputError: If an option is unknown or does not fit the pipeline.
        MissingExtraError: If diffusers is not installed.
    """
    if name_or_path == "renderer":
        from ..miniature.renderer import Renderer

        return Renderer(**options)
    from .diffusion import DiffusersGenerator

    return DiffusersGenerator.from_pretrained(name_or_path, device, **options)
