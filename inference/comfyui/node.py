"""The node: a prompt and options in, the refined prompt and what was added out. PRIP is loaded when it first runs."""

from __future__ import annotations

import re
import sys
from typing import Any

_WORD = re.compile(r"[^\s.,]")
"""What a prompt without words lacks: PRIP has nothing to go by, and hands it through, as an empty CLIP text."""


class RefinePrompt:
    """What ComfyUI asks of a node: its inputs, its outputs, and a method that makes these of those."""

    CATEGORY = "conditioning/prip"
    DESCRIPTION = (
        "Refines a prompt by PRIP: keeps your words, on as many lines as you typed them, and adds behind them what an "
        "image model likes to read. Wire refined_prompt into CLIP Text Encode."
    )
    RETURN_TYPES = ("STRING", "STRING")
    RETURN_NAMES = ("refined_prompt", "added")
    OUTPUT_TOOLTIPS = ("The refined prompt, or your edit of it.", "What was added, modifier by modifier.")
    FUNCTION = "refine"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, dict[str, Any]]:
        """Return the inputs by name, as (type, settings)."""
        required: dict[str, Any] = {
            "prompt": _text(
                "",
                "What you want to see. Several lines are one prompt: they come out as you typed them, weights like "
                "(word:1.2) too, and what is added stands behind the last. {a|b} is one of the two, by chance.",
                multiline=True,
                dynamicPrompts=True,
            ),
            "strength": _number("FLOAT", 1.0, 0.0, 1.0, "How much is added: 0 nothing, 1 all.", step=0.05),
            "temperature": _number(
                "FLOAT", 0.0, 0.0, 2.0, "0 is greedy and needs no seed; above it samples.", step=0.05
            ),
            "seed": _number(
                "INT", 0, 0, 2**64 - 1, "Of sampled texts and of alternatives.", control_after_generate="fixed"
            ),
            "alternative": _number("INT", 0, 0, 31, "0 is the first text of a prompt, 1 another one, and so on."),
        }
        optional: dict[str, Any] = {
            "styles": _text("", "Commas between them; kept as if you had typed them behind the prompt."),
            "banned_terms": _text("", "Commas between them; never added."),
            "no_artists": ("BOOLEAN", {"default": False, "tooltip": "Add no artist's name."}),
            "keep_attributes": ("BOOLEAN", {"default": True, "tooltip": "Add nothing against what the prompt names."}),
            "token_budget": _number("INT", 75, 1, 511, "CLIP tokens of the whole prompt."),
            "model": _text("prip-mini", "An embedded checkpoint, a folder, or owner/name on the Hub."),
            "device": (["cpu", "gpu"], {"default": "cpu", "tooltip": "Where PRIP computes."}),
            "refined_prompt": _text("", "Shown after a run. Type into it to use your own text.", multiline=True),
            "keep_edit": ("BOOLEAN", {"default": False, "tooltip": "Use the text above as it is, and refine nothing."}),
        }
        return {"required": required, "optional": optional}

    @classmethod
    def IS_CHANGED(cls, model: str | None = "prip-mini", **inputs: Any) -> int:
        """Return what changes besides the inputs: when a checkpoint in a folder was written, in nanoseconds.

        ComfyUI gives None for each input that another node fills in: of such a folder nothing can be told.
        """
        if _edited(inputs.get("refined_prompt", ""), inputs.get("keep_edit", False)):
            return 0
        return _prip("refiner").last_change(model)

    def refine(
        self,
        prompt: str,
        strength: float,
        temperature: float,
        seed: int,
        alternative: int,
        styles: str = "",
        banned_terms: str = "",
        no_artists: bool = False,
        keep_attributes: bool = True,
        token_budget: int = 75,
        model: str = "prip-mini",
        device: str = "cpu",
        refined_prompt: str = "",
        keep_edit: bool = False,
    ) -> dict[str, Any]:
        """Return the outputs, and what the node shows. Raises PRIP's errors, whose texts ComfyUI shows."""
        notes: list[str] = []
        if _edited(refined_prompt, keep_edit):
            text = refined_prompt
        elif isinstance(prompt, str) and not _WORD.search(prompt):
            text = prompt
            notes.append("the prompt has no word, nothing was refined")
        else:
            options = {
                "strength": strength,
                "temperature": temperature,
                "seed": seed,
                "styles": _terms(styles),
                "banned_terms": _terms(banned_terms),
                "no_artists": no_artists,
                "keep_attributes": keep_attributes,
                "token_budget": token_budget,
                "num_alternatives": alternative + 1,
            }
            text = _refined(
                prompt, alternative, model.strip() or "prip-mini", None if device == "gpu" else device, options, notes
            )
        added = ", ".join(_added(prompt, text))
        shown = {"refined_prompt": [text], "added": [added], "notes": notes}
        return {"ui": shown, "result": (text, added)}


def _refined(
    prompt: str, alternative: int, model: str, device: str | None, options: dict[str, Any], notes: list[str]
) -> str:
    """Return one text of a prompt; what PRIP warns of is put into `notes`."""
    errors = _prip("errors")
    with errors.collected_warnings() as caught:
        texts = _prip("refiner").refine(prompt, model=model, device=device, **options)
    notes += caught
    if isinstance(texts, str):
        return texts
    if len(texts) <= alternative:
        raise errors.InputError(f"alternative must be below {len(texts)}, no more texts were found: {alternative} came")
    return texts[alternative]


def _added(prompt: str, text: str) -> list[str]:
    """Return what a text adds to a prompt; nothing where an edit has changed the prompt's own words."""
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


def _number(kind: str, default: float, least: float, most: float, tooltip: str, **settings: Any) -> tuple[str, Any]:
    return kind, {"default": default, "min": least, "max": most, "tooltip": tooltip, **settings}


def _prip(module: str) -> Any:
    """Return a module of PRIP. Raises ImportError, with the command that installs it, where there is no PRIP."""
    import importlib

    try:
        return importlib.import_module(f"prip.{module}")
    except ModuleNotFoundError as error:
        if error.name != "prip":
            raise
        command = f"{sys.executable} -m pip install ."
        raise ImportError(
            f"PRIP is not installed in the Python that runs ComfyUI; in the folder of PRIP, run: {command}"
        ) from error
