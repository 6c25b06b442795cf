"""The extension: refines prompts before webui reads them. PRIP runs in a Python of its own (docs/webui.md)."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
from modules import scripts, shared

FOLDER = Path(__file__).resolve().parent.parent
PYTHON_FILE = FOLDER / "python.txt"
"""Holds the path of the Python that has PRIP; `prip install webui` writes it."""

INFOTEXT = "PRIP prompt"
"""What an image's infotext calls the user prompt."""

TIMEOUT_S = 300
"""How long PRIP may take for a job, loading a checkpoint included; the variable PRIP_TIMEOUT_S changes it."""

WORD = re.compile(r"[^\s.,]")
"""What a prompt without words lacks."""


class PripError(Exception):
    """PRIP cannot refine; the message says why."""


class PripProcess:
    """PRIP in a process of its own, started when it is first needed: webui pins older libraries than PRIP wants."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        atexit.register(self.close)

    def refine(
        self,
        prompts: list[str],
        seeds: list[int],
        model: str,
        options: dict[str, Any],
        stopped: Callable[[], bool],
    ) -> dict[str, Any]:
        """Return the worker's reply (prip.inference.worker); `stopped` says when nobody waits for it any more.

        Raises PripError when it is an error, there is none in time, or nobody waits. The process is then ended: what it
        would still answer is not to be taken for the next one's reply.
        """
        request = json.dumps({"prompts": prompts, "seeds": seeds, "model": model, "options": options})
        wait = Waiting(time_limit_s(), stopped)
        wait.until(lambda seconds: self._lock.acquire(timeout=seconds))
        try:
            reply = reply_of(self._line(request, wait))
        except BaseException:
            self.close()
            raise
        finally:
            self._lock.release()
        if "error" in reply:
            raise PripError(reply["error"])
        return reply

    def close(self) -> None:
        """End the process, if there is one, and what it has started."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(OSError):  # it has ended already
            if os.name == "posix":
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        process.wait()

    def _line(self, request: str, wait: Waiting) -> str:
        """Return the line that answers a request."""
        process = self._running()
        lines: queue.Queue[str] = queue.Queue()
        came = threading.Event()

        def exchange() -> None:
            assert process.stdin is not None and process.stdout is not None
            line = ""
            with contextlib.suppress(OSError, ValueError):
                process.stdin.write(request + "\n")
                process.stdin.flush()
                line = process.stdout.readline()
            lines.put(line)
            came.set()
            if not line:
                for pipe in (process.stdin, process.stdout):
                    with contextlib.suppress(OSError):  # what could not be written cannot be now
                        pipe.close()

        threading.Thread(target=exchange, daemon=True).start()
        wait.until(came.wait)
        line = lines.get()
        if not line:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=5)
            raise PripError(f"PRIP's process ended with code {process.poll()}; the console says why")
        return line

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            command = [python_of_prip(), "-m", "prip.inference.worker"]
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            try:
                self._process = subprocess.Popen(command, **pipes, start_new_session=True)  # it is ended as a whole
            except OSError as error:
                raise PripError(f"{command[0]} cannot be started: {error}") from error
        return self._process


class Waiting:
    """Waits up to a time limit, and only while someone wants what is waited for."""

    def __init__(self, limit_s: float, stopped: Callable[[], bool]) -> None:
        self._limit_s = limit_s
        self._end = time.monotonic() + limit_s
        self._stopped = stopped

    def until(self, done: Callable[[float], bool]) -> None:
        """Wait until `done`, which itself waits for so many seconds at most, says so.

        Raises PripError when the time is over or nobody wants it.
        """
        while not done(0.1):
            if self._stopped():
                raise PripError("it was interrupted")
            if time.monotonic() > self._end:
                raise PripError(f"PRIP gave no answer within {self._limit_s:g} s; PRIP_TIMEOUT_S allows it more")


def reply_of(line: str) -> dict[str, Any]:
    """Return the reply that a line holds. Raises PripError when it holds none."""
    with contextlib.suppress(ValueError):
        reply = json.loads(line)
        if isinstance(reply, dict):
            return reply
    raise PripError(f"PRIP's process said what is no reply: {line.strip()[:200]!r}")


def time_limit_s() -> float:
    """Return PRIP_TIMEOUT_S, or TIMEOUT_S. Raises PripError when it is no number above 0."""
    text = os.environ.get("PRIP_TIMEOUT_S") or str(TIMEOUT_S)
    try:
        limit_s = float(text)
    except ValueError:
        limit_s = 0.0
    if not limit_s > 0:
        raise PripError(f"PRIP_TIMEOUT_S must be a number of seconds above 0, it is {text!r}")
    return limit_s


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
    preview: Any = None
    """the button that shows the refined prompt, with its inputs and outputs"""

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
            self._connect()

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
            button = gr.Button("Show the refined prompt")
            refined_prompt = gr.Textbox(label="Refined prompt", lines=3, value="", elem_id=self.elem_id("refined"))
            keep_edit = gr.Checkbox(label="Draw this text, as I edited it", value=False)
        options = [strength, temperature, seed, styles, banned_terms, no_artists, keep_attributes, token_budget, model]
        self.preview = (button, options, [refined_prompt])
        self._connect()
        self.infotext_fields = [(enabled, lambda found: False if INFOTEXT in found else gr.update())]
        self.paste_field_names = [INFOTEXT]
        return [enabled, refined_prompt, keep_edit, *options]

    def _connect(self) -> None:
        """Let the button read the prompt field: webui's settings say which of the two is made first."""
        if self.prompt_box is not None and self.preview is not None:
            button, options, outputs = self.preview
            button.click(show_refined, inputs=[self.prompt_box, *options], outputs=outputs)

    def process(self, p: Any, enabled: bool, refined_prompt: str, keep_edit: bool, *options: Any) -> None:
        """Put refined prompts where webui reads them, the hires ones too where they follow; keep the user's own.

        A prompt without words stays as it is. What is raised, webui prints and goes on; what is drawn then says beneath
        that it was not refined.
        """
        if not enabled:
            return
        prompts = list(p.all_prompts)
        try:
            if keep_edit and refined_prompt.strip():
                refined = [refined_prompt] * len(prompts)
            else:
                reply = ask(prompts, list(p.all_seeds), interrupted, *options)
                refined = reply["refined"]
                for note in reply["warnings"]:
                    p.comment(f"PRIP: {note}")
        except Exception as error:
            what = str(error) if isinstance(error, PripError) else repr(error)
            p.comment(f"PRIP: the prompt was not refined: {what}")
            raise
        if refined == prompts:
            return
        p.all_prompts = refined
        p.main_prompt = refined[0]
        if getattr(p, "enable_hr", False):
            pairs = zip(p.all_hr_prompts, prompts, refined, strict=True)
            p.all_hr_prompts = [text if own == prompt else own for own, prompt, text in pairs]
        p.prip_notes = [None if text == prompt else prompt for prompt, text in zip(prompts, refined, strict=True)]
        p.extra_generation_params[INFOTEXT] = p.prip_notes[0]

    def postprocess_image(self, p: Any, pp: Any, *controls: Any) -> None:
        """Note an image's own user prompt, right before webui writes its infotext: no list of them serves all images.

        webui before 1.10 prints such a list, and 1.10 counts in it from each batch's first image on.
        """
        notes = getattr(p, "prip_notes", None)
        if notes is None:
            return
        place = p.iteration * p.batch_size + p.batch_index
        if place < len(notes):
            p.extra_generation_params[INFOTEXT] = notes[place]


def interrupted() -> bool:
    """Return whether webui was told to draw no more."""
    return any(getattr(shared.state, name, False) for name in ("interrupted", "stopping_generation"))


def show_refined(prompt: str, *options: Any) -> str:
    """Return the refined prompt of what is in webui's prompt field; an error is shown by gradio."""
    try:
        return ask([prompt], [0], lambda: False, *options)["refined"][0]
    except Exception as error:
        raise gr.Error(f"PRIP: {error if isinstance(error, PripError) else repr(error)}") from error


def ask(
    prompts: list[str],
    image_seeds: list[int],
    stopped: Callable[[], bool],
    strength: float | None,
    temperature: float | None,
    seed: float | None,
    styles: str,
    banned_terms: str,
    no_artists: bool,
    keep_attributes: bool,
    token_budget: float | None,
    model: str,
) -> dict[str, Any]:
    """Return PRIP's reply for these prompts; those without words come back as they are, and need no PRIP.

    Greedy texts depend on no seed: images of one prompt share theirs. A number that was cleared, None, is its default.
    """
    places = [place for place, prompt in enumerate(prompts) if WORD.search(prompt)]
    if not places:
        return {"refined": list(prompts), "warnings": []}
    temperature = 0.0 if temperature is None else temperature
    seed = -1 if seed is None else int(seed)
    options = {
        "strength": 1.0 if strength is None else strength,
        "temperature": temperature,
        "styles": terms(styles),
        "banned_terms": terms(banned_terms),
        "no_artists": no_artists,
        "keep_attributes": keep_attributes,
        "token_budget": 75 if token_budget is None else int(token_budget),
    }
    seeds = [int(image_seeds[place]) if temperature > 0 and seed == -1 else seed for place in places]
    wordy = [prompts[place] for place in places]
    reply = PRIP.refine(wordy, seeds, model.strip() or "prip-mini", options, stopped)
    refined = dict(zip(places, reply["refined"], strict=True))
    return {**reply, "refined": [refined.get(place, prompt) for place, prompt in enumerate(prompts)]}


def terms(text: str) -> list[str]:
    """Return what stands between commas."""
    return [term.strip() for term in re.split(r"[,\n]", text) if term.strip()]
