"""Pivot encoders: map images to pivots."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..devices import as_device, as_dtype
from ..errors import CheckpointError, broken_packages
from ..loading.folders import resolve_folder
from ..loading.untrusted import read_json
from ..protocols import PivotEncoder

if TYPE_CHECKING:
    import torch

MODEL_TYPES = {"prip_pivot_encoder": ("qformer", "QFormerPivotEncoder"), "blip-2": ("blip2", "Blip2PivotEncoder")}
"""Module and class by model_type: PRIP's own format, and BLIP-2 in transformers."""


@broken_packages()
def load_pivot_encoder(
    name_or_path: str | Path, device: str | torch.device | None = None, dtype: str | torch.dtype | None = None
) -> PivotEncoder:
    """Load a pivot encoder, frozen and in evaluation mode.

    Args:
        name_or_path: A folder or Hub id (also "ID@REVISION") in PRIP's own format or of a BLIP-2 in transformers'
            format, such as Salesforce/blip2-itm-vit-g; or lavis' file blip2_pretrained.pth.
        device: None is a GPU if there is one.
        dtype: Of the networks, by name or torch's; None is float32. BLIP-2's Q-Former and the pivots are always
            float32.

    Returns:
        A pivot encoder: call it with uint8 images `(n, 3, height, width)` for float32 pivots
        `(n, pivot_length, pivot_width)`.

    Raises:
        CheckpointError: If there is no pivot encoder, or its weights do not fit exactly.
    """
    encoder: Any
    path = Path(name_or_path).expanduser()
    if path.is_file():
        from .blip2 import Blip2PivotEncoder

        encoder = Blip2PivotEncoder.from_lavis(path, dtype=as_dtype(dtype))
    else:
        folder = resolve_folder(name_or_path)
        model_type = read_json(folder / "config.json").get("model_type")
        if model_type not in MODEL_TYPES:
            raise CheckpointError(f"{folder}: expected model_type {' or '.join(MODEL_TYPES)}, got {model_type!r}")
        module, class_name = MODEL_TYPES[model_type]
        kind = getattr(import_module(f".{module}", __package__), class_name)
        encoder = kind.from_pretrained(folder, dtype=as_dtype(dtype))
    return encoder.to(as_device(device)).requires_grad_(False).eval()
