"""The node: it takes a prompt and options, and outputs the refined prompt and what was added."""

from __future__ import annotations

import re
import sys
from typing import Any

_WORD = re.compile(r"[^\s.,]")
"""What PRIP needs in a prompt; a prompt without words passes through, like an empty CLIP text."""
_REQUIRED = ("strength", "temperature", "seed")
_OPTIONAL = ("styles", "banned_terms", "no_artists", "keep_attributes", "token_budget")
"""Options of `refine` that are inputs. Stored workflows depend on the order of all inputs."""
_SETTINGS: dict[str, dict[str, Any]] = {
    "temperature": {"max": 2.0},
    "seed": {"min": 0, "max": 2**64 - 1, "control_after_generate": "fixed"},
    "token_budget": {"default": 75, "max": 511},
}
"""What differs from the option's own settings, for ComfyUI's widgets."""


class RefinePrompt:
    """The node, as ComfyUI's interface for nodes."""

    CATEGORY = "conditioning/prip"
    DESCRIPTION = (
        "Refines a prompt with PRIP: your words stay, on as many lines as you typed, and modifiers that image models "
        "respond to are added at the end. Connect refined_prompt to CLIP Text Encode."
    )
    RETURN_TYPES = ("STRING", "STRING", "STRING")
    RETURN_NAMES = ("refined_prompt", "added", "negative_prompt")
    OUTPUT_TOOLTIPS = (
        "The refined prompt, or your edit of it.",
        "The added modifiers.",
        "A suggestion for the negative prompt: what your prompt refuses, and flaws that it does not ask for.",
    )
    FUNCTION = "refine"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, dict[str, Any]]:
        """Return the inputs by name, as (type, settings)."""
        try:
            options = {option.name: option for option in _prip("options").option_fields()}
        except ImportError:  # the node is listed all the same; its first run says how to install PRIP
            options = {}
        required = {
            "prompt": _text(
                "",
                "What you want to see. It is kept as typed, with its line breaks and with weights such as (word:1.2); "
                "additions follow the last line. {a|b} picks one of the two at random.",
                multiline=True,
                dynamicPrompts=True,
            ),
            **{name: _widget(options[name]) for name in _REQUIRED if name in options},
            "alternative": (
                "INT",
                {"default": 0, "min": 0, "max": 31, "tooltip": "0 is the first text for a prompt, 1 the next, ..."},
            ),
        }
        optional = {
            **{name: _widget(options[name]) for name in _OPTIONAL if name in options},
            "model": _text("prip-mini", "An embedded checkpoint, a folder, or owner/name on the Hub."),
            "device": (["cpu", "gpu"], {"default": "cpu", "tooltip": "Where PRIP runs."}),
            "refined_prompt": _text("", "Shown after a run. Edit it to use your own text.", multiline=True),
            "keep_edit": (
                "BOOLEAN",
                {"default": False, "tooltip": "Output the text above as it is, without refining."},
            ),
        }
        return {"required": required, "optional": optional}

    @classmethod
    def IS_CHANGED(cls, model: str | None = "prip-mini", **inputs: Any) -> int:
        """Return when a checkpoint in a folder was last written, in nanoseconds: what can change besides the inputs.

        ComfyUI passes None for inputs that are linked to another node; a linked `model` counts as unchanged.
        """
        if _edited(inputs.get("refined_prompt", ""), inputs.get("keep_edit", False)):
            return 0
        return _prip("refiner").last_change(model)

    def refine(self, **inputs: Any) -> dict[str, Any]:
        """Return the outputs, and what the node shows.

        Args:
            **inputs: Values of INPUT_TYPES. Those left out take their defaults.

        Raises:
            PripError: The prompt cannot be refined; ComfyUI shows the message.
            ImportError: PRIP is not installed.
        """
        _prip("options")
        groups = self.INPUT_TYPES().values()
        values = {name: settings["default"] for group in groups for name, (_, settings) in group.items()} | inputs
        prompt, notes = values["prompt"], []
        if _edited(values["refined_prompt"], values["keep_edit"]):
            text = values["refined_prompt"]
        elif isinstance(prompt, str) and not _WORD.search(prompt):
            text = prompt
            notes.append("the prompt has no words; nothing was refined")
        else:
            text, notes = _refined(values)
        added = ", ".join(_added(prompt, text))
        negative = _prip("control.negative").negative_prompt(text)
        return {"ui": {"refined_prompt": [text], "added": [added], "notes": notes}, "result": (text, added, negative)}


def _refined(values: dict[str, Any]) -> tuple[str, list[str]]:
    errors, alternative = _prip("errors"), values["alternative"]
    options = {name: values[name] for name in (*_REQUIRED, *_OPTIONAL)}
    options["webui_syntax"] = True
    options |= {name: _terms(value) for name, value in options.items() if isinstance(value, str)}
    with errors.collected_warnings() as notes:
        texts = _prip("refiner").refine(
            values["prompt"],
            model=values["model"].strip() or "prip-mini",
            device=None if values["device"] == "gpu" else values["device"],
            num_alternatives=alternative + 1,
            **options,
        )
    if isinstance(texts, str):
        return texts, notes
    if len(texts) <= alternative:
        raise errors.InputError(
            f"alternative: expected a number below {len(texts)}, the number of texts found, got {alternative}"
        )
    return texts[alternative], notes


def _added(prompt: str, text: str) -> list[str]:
    """Return the modifiers added to a prompt; none if an edit changed the prompt's own words."""
    try:
        return _prip("text.prompts").modifiers_added(prompt, text)
    except _prip("errors").InputError:
        return []


def _edited(refined_prompt: str | None, keep_edit: bool | None) -> bool:
    return bool(keep_edit and refined_prompt and refined_prompt.strip())


def _terms(text: str) -> list[str]:
    return [term.strip() for term in re.split(r"[,\n]", text) if term.strip()]


def _text(default: str, tooltip: str, **settings: Any) -> tuple[str, dict[str, Any]]:
    return "STRING", {"default": default, "tooltip": tooltip, **settings}


def _widget(option: Any) -> tuple[str, dict[str, Any]]:
    """Return the input of an option (`prip.options.OptionField`)."""
    if option.is_list:
        return _text("", f"{option.doc} Separate several by commas.")
    settings = {"default": option.default, "tooltip": option.doc}
    if option.kind is bool:
        return "BOOLEAN", settings
    for name, limit in (("min", option.bounds.minimum), ("max", option.bounds.maximum)):
        if limit is not None:
            settings[name] = option.kind(limit)
    if option.kind is float:
        settings["step"] = 0.05
    return option.kind.__name__.upper(), settings | _SETTINGS.get(option.name, {})


def _prip(module: str) -> Any:
    """Return a module of PRIP. Raises ImportError, with the command that installs PRIP, if there is none."""
    import importlib

    try:
        return importlib.import_module(f"prip.{module}")
    except ModuleNotFoundError as error:
        if error.name != "prip":
            raise
        command = f"{sys.executable} -m pip install ."
        raise ImportError(
            f"PRIP is not installed in ComfyUI's Python; in the folder of PRIP, run: {command}"
        ) from error
