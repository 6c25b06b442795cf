"""Generators: prompts and seeds to images."""

from __future__ import annotations

from typing import Any

from ..protocols import Generator


def load_generator(name_or_path: str, device: str | None = None, **options: Any) -> Generator:
    """Loads a generator: "renderer" is the miniature's renderer, all else a diffusers pipeline by folder or Hub id.

    options: arguments of `Renderer` or `DiffusersGenerator`.
    """
    if name_or_path == "renderer":
        from ..miniature.renderer import Renderer

        return Renderer(**options)
    from .diffusion import DiffusersGenerator

    return DiffusersGenerator.from_pretrained(name_or_path, device=device, **options)
