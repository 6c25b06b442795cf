"""What ComfyUI does with a custom node, in small: loads its folder, checks inputs, runs it, keeps what has not changed.

Facts from ComfyUI's nodes.py (load_custom_node) and execution.py (validate_inputs, get_input_data, IsChangedCache,
execute).
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KINDS = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}
"""What a value of each type is made of, as ComfyUI converts what the browser sends."""


def load_custom_node(folder: Path) -> Any:
    """Return the module of a folder in custom_nodes: named by its path, with underscored dots."""
    name = str(folder).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, folder / "__init__.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def settings_of(node: type, name: str) -> tuple[Any, dict[str, Any]]:
    """Return the type and the settings of an input."""
    inputs = node.INPUT_TYPES()  # type: ignore[attr-defined]
    declared = {**inputs["required"], **inputs.get("optional", {})}[name]
    return declared[0], declared[1] if len(declared) > 1 else {}


def validated(node: Any, sent: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the inputs converted to their types, and what is wrong with them."""
    values, wrong = dict(sent), []
    own = getattr(node, "VALIDATE_INPUTS", None)
    checked_by_node = inspect.getfullargspec(own).args if own else []
    declared = node.INPUT_TYPES()
    wrong += [f"{name}: required input is missing" for name in declared["required"] if name not in sent]
    for name in [*declared["required"], *declared.get("optional", {})]:
        if name not in sent or isinstance(sent[name], list):
            continue
        kind, settings = settings_of(node, name)
        try:
            values[name] = KINDS.get(kind, lambda value: value)(sent[name]) if isinstance(kind, str) else sent[name]
        except ValueError as error:
            wrong.append(f"{name}: {error}")
            continue
        if name in checked_by_node:
            continue
        if "min" in settings and values[name] < settings["min"]:
            wrong.append(f"{name}: {values[name]} smaller than min of {settings['min']}")
        if "max" in settings and values[name] > settings["max"]:
            wrong.append(f"{name}: {values[name]} bigger than max of {settings['max']}")
        if isinstance(kind, list) and values[name] not in kind:
            wrong.append(f"{name}: {values[name]!r} not in {kind}")
    if own:
        given = {name: None if isinstance(value, list) else value for name, value in values.items()}
        verdict = own(**{name: given[name] for name in checked_by_node if name in given})
        if verdict is not True:
            wrong.append(str(verdict))
    return values, wrong


@dataclass
class Host:
    """Runs one node again and again, and only when something has changed. `runs` counts how often it ran."""

    node: Any
    runs: int = 0
    _kept: dict[Any, Any] = field(default_factory=dict)

    def queue(self, **sent: Any) -> dict[str, Any]:
        """Return what the node returns, under torch.inference_mode as ComfyUI runs it.

        A link to another node is sent as ["id", 0], and what it gives as `linked`. What changes besides the inputs is
        asked for before any node has run: with None for each link. Raises AssertionError for inputs that ComfyUI
        refuses.
        """
        import torch

        linked = sent.pop("linked", None)
        values, wrong = validated(self.node, sent)
        assert not wrong, wrong
        changed = self._changed({name: None if isinstance(value, list) else value for name, value in values.items()})
        values = {name: linked if isinstance(value, list) else value for name, value in values.items()}
        key = (tuple(sorted(values.items())), changed)
        if key not in self._kept:
            self.runs += 1
            with torch.inference_mode():
                self._kept[key] = getattr(self.node(), self.node.FUNCTION)(**values)
        return self._kept[key]

    def _changed(self, constants: dict[str, Any]) -> Any:
        """Return what the node says of itself; what it raises is only logged there, and it runs each time."""
        try:
            return self.node.IS_CHANGED(**constants)
        except Exception:
            return float("nan")

    def defaults(self) -> dict[str, Any]:
        """Return the inputs as the browser sends them from a fresh node."""
        inputs = self.node.INPUT_TYPES()
        return {name: settings_of(self.node, name)[1]["default"] for part in inputs.values() for name in part}
