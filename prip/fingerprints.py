"""Freeze parts, and check by hashes that training left them unchanged."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from .errors import PripError

_DEPTH = 4


def freeze(part: object) -> None:
    """Put every torch module inside `part` into evaluation mode, without gradients."""
    for module in modules_inside(part):
        module.eval().requires_grad_(False)


def modules_inside(part: object) -> list[nn.Module]:
    """Return the outermost torch modules inside `part`, as `fingerprint` finds them."""
    return [value for value in _leaves(part, _DEPTH) if isinstance(value, nn.Module)]


def fingerprint(part: object) -> str:
    """Return a hash of all weights inside a part: equal if and only if every tensor has the same name and bytes.

    Args:
        part: A module, or an object with modules in its lists, dicts, pipelines or attributes. Without any modules,
            its tensors are hashed; beside modules, other tensors are state and not weights (cached prompt encodings,
            the position of a scheduler).
    """
    digest = hashlib.sha256()
    leaves = list(_leaves(part, _DEPTH))
    modules = [value for value in leaves if isinstance(value, nn.Module)]
    for value in modules or leaves:
        tensors = value.state_dict() if isinstance(value, nn.Module) else {"": value}
        for name, tensor in tensors.items():
            content = tensor.detach().cpu().contiguous()
            digest.update(f"{name} {content.dtype} {tuple(content.shape)}".encode())
            digest.update(content.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def fingerprints(parts: Mapping[str, object]) -> dict[str, str]:
    """Return the fingerprint of each part, by name."""
    return {name: fingerprint(part) for name, part in parts.items()}


def check_unchanged(stage: str, parts: Mapping[str, object], before: Mapping[str, str]) -> None:
    """Raise PripError if `stage` has changed a part since `fingerprints` gave `before`."""
    changed = [name for name, digest in fingerprints(parts).items() if digest != before[name]]
    if changed:
        raise PripError(f"{stage}: frozen parts changed during training: {', '.join(changed)}")


def _leaves(part: object, depth: int) -> Iterator[nn.Module | Tensor]:
    """Yield the modules and tensors inside `part`, in a fixed order."""
    if isinstance(part, nn.Module | Tensor):
        yield part
    elif depth:
        for child in _children(part):
            yield from _leaves(child, depth - 1)


def _children(part: object) -> list[object]:
    if isinstance(part, Mapping):
        return list(part.values())
    if isinstance(part, list | tuple):
        return list(part)
    components = getattr(part, "components", None)
    if isinstance(components, dict):
        return [component for component in components.values() if isinstance(component, nn.Module)]
    return list(vars(part).values()) if hasattr(part, "__dict__") else []
