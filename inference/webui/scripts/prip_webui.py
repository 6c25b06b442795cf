"""The extension: refines prompts before webui reads them. PRIP runs in a Python of its own (docs/webui.md)."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import re
import subprocess
import threading
from pathlib import Path
from typing import Any

import gradio as gr
from modules import scripts

FOLDER = Path(__file__).resolve().parent.parent
PYTHON_FILE = FOLDER / "python.txt"
"""Holds the path of the Python that has PRIP; `prip install webui` writes it."""

INFOTEXT = "PRIP prompt"
"""What an image's infotext calls the user prompt."""


class PripError(Exception):
    """PRIP cannot refine; the message says why."""


class PripProcess:
    """PRIP in a process of its own, started when it is first needed: webui pins older libraries than PRIP wants."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        atexit.register(self.close)

    def refine(self, prompts: list[str], seeds: list[int], model: str, options: dict[str, Any]) -> dict[str, Any]:
        """Return the worker's reply (prip.inference.worker). Raises PripError when it is an error, or there is none."""
        request = json.dumps({"prompts": prompts, "seeds": seeds, "model": model, "options": options})
        with self._lock:
            process = self._running()
            assert process.stdin is not None and process.stdout is not None
            try:
                process.stdin.write(request + "\n")
                process.stdin.flush()
                line = process.stdout.readline()
            except OSError:
                line = ""
            if not line:
                code = process.wait()
                raise PripError(f"PRIP's process ended with code {code}; the console says why")
        reply = json.loads(line)
        if "error" in reply:
            raise PripError(reply["error"])
        return reply

    def close(self) -> None:
        """End the process, if there is one: it ends when its input does."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):  # it has ended already
                self._process.stdin.close()
            self._process.wait()
            self._process = None

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            command = [python_of_prip(), "-m", "prip.inference.worker"]
            try:
                self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            except OSError as error:
                raise PripError(f"{command[0]} cannot be started: {error}") from error
        return self._process


def python_of_prip() -> str:
    """Return the Python that has PRIP: PRIP_PYTHON, or what was written when the extension was installed.

    Raises PripError when neither is there.
    """
    stored = PYTHON_FILE.read_text(encoding="utf-8").strip() if PYTHON_FILE.is_file() else ""
    python = os.environ.get("PRIP_PYTHON") or stored
    if not python:
        raise PripError(f"no Python with PRIP is known: set PRIP_PYTHON, or write its path into {PYTHON_FILE}")
    return python


PRIP = PripProcess()


class Script(scripts.Script):
    """What webui asks of a script that is always there."""

    prompt_box: Any = None
    """webui's own prompt field, which the preview reads"""

    def title(self) -> str:
        """Return the name, by which the API calls it too."""
        return "PRIP"

    def show(self, is_img2img: bool) -> Any:
        """Return that it is there in both tabs."""
        return scripts.AlwaysVisible

    def after_component(self, component: Any, **kwargs: Any) -> None:
        """Find webui's prompt field."""
        if kwargs.get("elem_id") == ("img2img_prompt" if self.is_img2img else "txt2img_prompt"):
            self.prompt_box = component

    def ui(self, is_img2img: bool) -> list[Any]:
        """Return the controls, in the order in which `process` is given their values."""
        with gr.Accordion("PRIP", open=False, elem_id=self.elem_id("accordion")):
            enabled = gr.Checkbox(label="Refine the prompt", value=False)
            with gr.Row():
                strength = gr.Slider(label="Strength", minimum=0.0, maximum=1.0, step=0.05, value=1.0)
                temperature = gr.Slider(label="Temperature (0: greedy)", minimum=0.0, maximum=2.0, step=0.05, value=0.0)
                seed = gr.Number(label="Seed of sampled text (-1: the image's)", value=-1, precision=0)
            with gr.Row():
                styles = gr.Textbox(label="Styles (commas between them)", value="")
                banned_terms = gr.Textbox(label="Never add (commas between them)", value="")
            with gr.Row():
                no_artists = gr.Checkbox(label="No artists", value=False)
                keep_attributes = gr.Checkbox(label="Add nothing against what the prompt names", value=True)
                token_budget = gr.Slider(label="Token budget", minimum=1, maximum=300, step=1, value=75)
                model = gr.Textbox(label="Checkpoint", value="prip-mini")
            preview = gr.Button("Show the refined prompt")
            refined_prompt = gr.Textbox(label="Refined prompt", lines=3, value="", elem_id=self.elem_id("refined"))
            keep_edit = gr.Checkbox(label="Draw this text, as I edited it", value=False)
        options = [strength, temperature, seed, styles, banned_terms, no_artists, keep_attributes, token_budget, model]
        if self.prompt_box is not None:
            preview.click(show_refined, inputs=[self.prompt_box, *options], outputs=[refined_prompt])
        self.infotext_fields = [(enabled, lambda found: False if INFOTEXT in found else gr.update())]
        self.paste_field_names = [INFOTEXT]
        return [enabled, refined_prompt, keep_edit, *options]

    def process(self, p: Any, enabled: bool, refined_prompt: str, keep_edit: bool, *options: Any) -> None:
        """Put refined prompts where webui reads them, the hires ones too where they follow; note the user's own.

        Raises PripError, which webui prints and goes on; what is drawn then says beneath that it was not refined.
        """
        if not enabled:
            return
        prompts = list(p.all_prompts)
        try:
            if keep_edit and refined_prompt.strip():
                refined = [refined_prompt] * len(prompts)
            else:
                reply = ask(prompts, list(p.all_seeds), *options)
                refined = reply["refined"]
                for note in reply["warnings"]:
                    p.comment(f"PRIP: {note}")
        except PripError as error:
            p.comment(f"PRIP: the prompt was not refined: {error}")
            raise
        p.all_prompts = refined
        p.main_prompt = refined[0]
        if getattr(p, "enable_hr", False):
            pairs = zip(p.all_hr_prompts, prompts, refined, strict=True)
            p.all_hr_prompts = [text if own == prompt else own for own, prompt, text in pairs]
        p.extra_generation_params[INFOTEXT] = prompts[0] if len(set(prompts)) == 1 else prompts


def show_refined(prompt: str, *options: Any) -> str:
    """Return the refined prompt of what is in webui's prompt field; an error is shown by gradio."""
    try:
        return ask([prompt], [0], *options)["refined"][0]
    except PripError as error:
        raise gr.Error(f"PRIP: {error}") from error


def ask(
    prompts: list[str],
    image_seeds: list[int],
    strength: float,
    temperature: float,
    seed: float,
    styles: str,
    banned_terms: str,
    no_artists: bool,
    keep_attributes: bool,
    token_budget: float,
    model: str,
) -> dict[str, Any]:
    """Return PRIP's reply for these prompts. Greedy texts depend on no seed: images of one prompt share theirs."""
    seeds = image_seeds if temperature > 0 and seed == -1 else [int(seed)] * len(prompts)
    options = {
        "strength": strength,
        "temperature": temperature,
        "styles": terms(styles),
        "banned_terms": terms(banned_terms),
        "no_artists": no_artists,
        "keep_attributes": keep_attributes,
        "token_budget": int(token_budget),
    }
    return PRIP.refine(prompts, [int(one) for one in seeds], model.strip(), options)


def terms(text: str) -> list[str]:
    """Return what stands between commas."""
    return [term.strip() for term in re.split(r"[,\n]", text) if term.strip()]
