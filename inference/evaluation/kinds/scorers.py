"""Any reward that PRIP can load as a scorer, and the pivot encoder as an embedder for diversity."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prip.errors import InputError
from prip.pivot_encoders import load_pivot_encoder
from prip.protocols import Images, Reward
from prip.rewards import load_reward

from ...checkpoint_parts import existing
from .registry import Context, Embedder


def make_reward(name: str, context: Context, *, place: str | None = None, dtype: str | None = None) -> Reward:
    """The kind `reward`: a reward that `prip.rewards.load_reward` can load.

    Args:
        place: A reward, such as hps-v2.1 or image-reward@REVISION; None is the checkpoint's reward of this name.
        dtype: Precision of its networks; None is float32.

    Raises:
        InputError: The checkpoint has no reward of this name.
    """
    if place is None:
        folder = existing(context.parts.rewards) / name
        if not folder.is_dir():
            known = ", ".join(sorted(path.name for path in context.parts.rewards.iterdir())) or "none"
            raise InputError(f"place: expected one for a reward that the checkpoint lacks (it has {known}), got none")
        place = str(folder)
    return load_reward(place, context.device, dtype)


def make_pivots(name: str, context: Context, *, place: str | None = None) -> Embedder:
    """The kind `pivots`: the mean of an image's pivot vectors.

    place: a pivot encoder by folder or Hub id; None is that of the checkpoint.
    """
    folder = str(existing(context.parts.pivot_encoder)) if place is None else place
    encoder = load_pivot_encoder(folder, device=context.device)

    def embed(images: Images) -> NDArray[np.float32]:
        return encoder(images).mean(dim=1).float().cpu().numpy()

    return embed
