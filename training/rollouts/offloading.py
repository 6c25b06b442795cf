"""Where the frozen parts are: on the device, or in the CPU's memory while others work."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

import torch

from prip.fingerprints import modules_inside


class Residence:
    """Brings a part to its device while it is used; one that is offloaded waits on the CPU before and after."""

    def __init__(
        self, parts: Mapping[str, object], offloaded: Collection[str] = (), device: torch.device | str = "cpu"
    ) -> None:
        """parts: by name; anything with modules inside. A name that is not among them is not moved."""
        self.parts, self.offloaded, self.device = dict(parts), frozenset(offloaded), torch.device(device)
        self._users = dict.fromkeys(self.parts, 0)

    def settle(self) -> None:
        """Brings every part to where it is while nothing is used."""
        for name, part in self.parts.items():
            move(part, "cpu" if name in self.offloaded else self.device)

    @contextmanager
    def using(self, name: str) -> Iterator[None]:
        """Holds the part `name` on the device; the last to leave sends it back."""
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
    """Moves all modules inside `part`, by its own `to(device)` where it has one; of several parts, each."""
    if isinstance(part, list | tuple):
        for one in part:
            move(one, device)
    elif isinstance(part, torch.nn.Module):
        torch.nn.Module.to(part, device)
    elif callable(own := getattr(part, "to", None)):
        own(device)
    else:
        for module in modules_inside(part):
            torch.nn.Module.to(module, device)
