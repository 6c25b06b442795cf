"""Devices of the parts: in place all the time, or offloaded to CPU memory while unused."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

import torch

from prip.fingerprints import modules_inside

from ..settings import RunSettings


class Offloading:
    """Moves an offloaded part to the device while it is in use, and back to the CPU afterwards.

    Args:
        parts: Modules, or objects that contain some, by name.
        offloaded: Names of the parts that stay on the CPU while unused; unknown names are ignored.
        device: The device on which parts are used.
    """

    def __init__(
        self, parts: Mapping[str, object], offloaded: Collection[str] = (), device: torch.device | str = "cpu"
    ) -> None:
        self.parts, self.offloaded, self.device = dict(parts), frozenset(offloaded), torch.device(device)
        self._users = dict.fromkeys(self.parts, 0)

    def settle(self) -> None:
        """Move every part to the device on which it stays while unused."""
        for name, part in self.parts.items():
            move(part, "cpu" if name in self.offloaded else self.device)

    @contextmanager
    def using(self, name: str) -> Iterator[None]:
        """Keep the part `name` on the device until its last user exits."""
        if name not in self.parts or name not in self.offloaded:
            yield
            return
        if not self._users[name]:
            move(self.parts[name], self.device)
        self._users[name] += 1
        try:
            yield
        finally:
            self._users[name] -= 1
            if not self._users[name]:
                move(self.parts[name], "cpu")


def move(part: object, device: torch.device | str) -> None:
    """Move all modules in `part`, or in each part of a list, by its own `to(device)` if it has one."""
    if isinstance(part, list | tuple):
        for member in part:
            move(member, device)
    elif isinstance(part, torch.nn.Module):
        torch.nn.Module.to(part, device)
    elif callable(to := getattr(part, "to", None)):
        to(device)
    else:
        for module in modules_inside(part):
            torch.nn.Module.to(module, device)


def parts_device(settings: RunSettings) -> torch.device:
    """Return the device on which this process draws, scores and decodes."""
    if settings.device == "cpu" or (settings.device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
