"""Images that a generator's safety checker blackened: no reward may score them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from ..protocols import Generator, Images

CHECKER = "safety_checker"
"""Component of the pipelines that have one: Stable Diffusion 1 and 2, DeepFloyd-IF."""


def blackened(generator: Generator, images: Images) -> Tensor:
    """Return which images the generator's safety checker blackened, bool `(n,)` on the images' device.

    A checker of diffusers sets every pixel to 0. Without a checker nothing counts, not even a black image.

    Args:
        generator: Drew the images; a generator without the attribute `has_safety_checker` has none.
        images: uint8 `(n, 3, height, width)`.
    """
    black = images.flatten(1).amax(dim=1) == 0 if images.numel() else images.new_zeros(len(images)).bool()
    return black if getattr(generator, "has_safety_checker", False) else black & False
