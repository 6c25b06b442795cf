"""Weight-only quantization by torchao: less memory, and fewer bytes to read per token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import InputError, require

if TYPE_CHECKING:
    import torch
    from torch import nn

QUANTIZATIONS = ("int8",)
"""int8: weights of linear layers with one scale per row; activations keep their dtype."""


def check_quantization(quantization: object) -> None:
    """Raise InputError for an unknown quantization, MissingExtraError if torchao is not installed."""
    if quantization is None:
        return
    if quantization not in QUANTIZATIONS:
        raise InputError(f"quantization: expected one of {', '.join(QUANTIZATIONS)} or None, got {quantization!r}")
    require("torchao.quantization", "quantize")


def quantize(model: nn.Module, quantization: str) -> None:
    """Quantize the linear layers of a model in place; embeddings, norms and the compute dtype are unchanged.

    Errors are those of `check_quantization`.
    """
    check_quantization(quantization)
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    quantize_(model, Int8WeightOnlyConfig())


def is_quantized(model: nn.Module) -> bool:
    """Return whether any weight of a model is quantized."""
    return any(hasattr(weight, "__tensor_flatten__") for weight in model.parameters())


def weight_bytes(model: nn.Module) -> int:
    """Return the size of a model's parameters in bytes: shared ones once, scales included."""
    return sum(map(_bytes, model.parameters()))


def _bytes(tensor: torch.Tensor) -> int:
    if hasattr(tensor, "__tensor_flatten__"):
        names, _ = tensor.__tensor_flatten__()
        return sum(_bytes(getattr(tensor, name)) for name in names)
    return tensor.numel() * tensor.element_size()
