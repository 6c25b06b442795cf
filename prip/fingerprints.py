"""Proof that a frozen part stayed as it was."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from .errors import PripError

_DEPTH = 4


def freeze(part: object) -> None:
    """Puts every torch module inside `part` into evaluation mode, without gradients."""
    for module in modules_inside(part):
        module.eval().requires_grad_(False)


def modules_inside(part: object) -> list[nn.Module]:
    """Returns the outermost torch modules inside `part`, as `fingerprint` finds them."""
    return [value for value in _leaves(part, _DEPTH) if isinstance(value, nn.Module)]


def fingerprint(part: object) -> str:
    """Returns a hash of all weights inside `part`: a module, or an object that holds modules, be it in lists, dicts,
    pipelines or further objects. An object without modules is hashed by its tensors; beside modules, tensors are no
    weights: prompt encodings that are kept, or where a scheduler is.

    Two fingerprints are equal if and only if every tensor has the same name and the same bytes.
    """
    digest = hashlib.sha256()
    leaves = list(_leaves(part, _DEPTH))
    modules = [value for value in leaves if isinstance(value, nn.Module)]
    for value in modules or leaves:
        tensors = value.state_dict() if isinstance(value, nn.Module) else {"": value}
        for name, tensor in tensors.items():
            plain = tensor.detach().cpu().contiguous()
            digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}".encode())
            digest.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def fingerprints(parts: Mapping[str, object]) -> dict[str, str]:
    """Returns the fingerprint of each part, by its name."""
    return {name: fingerprint(part) for name, part in parts.items()}


def check_unchanged(stage: str, parts: Mapping[str, object], before: Mapping[str, str]) -> None:
    """Raises PripError if a part is not what `fingerprints` said before, which `stage` must not do."""
    changed = [name for name, found in fingerprints(parts).items() if found != before[name]]
    if changed:
        raise PripError(f"{stage}: frozen parts changed in training: {', '.join(changed)}")


def _leaves(part: object, depth: int) -> Iterator[nn.Module | Tensor]:
    """Yields the modules and tensors inside `part`, in an order that does not change."""
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
