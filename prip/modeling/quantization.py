"""Weights in fewer bits than they were trained in: less memory, and less to read for every token. torchao computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import InputError, require

if TYPE_CHECKING:
    import torch
    from torch import nn

QUANTIZATIONS = ("int8",)
"""int8: the weights of linear layers, each row with a scale of its own; activations stay as they are."""


def check_quantization(quantization: object) -> None:
    """Raise InputError for a quantization that is not there, MissingExtraError when its library is not installed."""
    if quantization is None:
        return
    if quantization not in QUANTIZATIONS:
        raise InputError(f"quantization must be one of {', '.join(QUANTIZATIONS)} or None, it is {quantization!r}")
    require("torchao.quantization", "quantize")


def quantize(model: nn.Module, quantization: str) -> None:
    """Quantise the linear layers of a model in place. Embeddings, norms and the dtype of computing stay. Errors as in
    `check_quantization`."""
    check_quantization(quantization)
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    quantize_(model, Int8WeightOnlyConfig())


def is_quantized(model: nn.Module) -> bool:
    """Return whether any weight of a model is quantised."""
    return any(hasattr(weight, "__tensor_flatten__") for weight in model.parameters())


def weight_bytes(model: nn.Module) -> int:
    """Return the bytes that a model's parameters take, shared ones once, scales included."""
    return sum(map(_bytes, model.parameters()))


def _bytes(tensor: torch.Tensor) -> int:
    if hasattr(tensor, "__tensor_flatten__"):
        names, _ = tensor.__tensor_flatten__()
        return sum(_bytes(getattr(tensor, name)) for name in names)
    return tensor.numel() * tensor.element_size()
