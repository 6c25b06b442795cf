"""What turns images into vectors, by whose distances diversity is measured."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from prip.pivot_encoders import load_pivot_encoder
from prip.protocols import Images

from ..checkpoint_parts import existing
from .kinds.registry import Context

Embedder = Callable[[Images], NDArray[np.float32]]
"""Images to vectors (n, width)."""


def make_pivots(name: str, context: Context, *, place: str | None = None) -> Embedder:
    """The kind `pivots`: the mean of an image's pivot vectors. place: a pivot encoder by folder or Hub id; None is the
    checkpoint's own."""
    encoder = load_pivot_encoder(
        str(existing(context.parts.pivot_encoder)) if place is None else place, device=context.device
    )

    def embed(images: Images) -> NDArray[np.float32]:
        return encoder(images).mean(dim=1).float().cpu().numpy()

    return embed
