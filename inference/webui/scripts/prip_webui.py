"""The extension: refines prompts before webui reads them. PRIP runs in its own Python (docs/webui.md)."""

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
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
from modules import scripts, shared

FOLDER = Path(__file__).resolve().parent.parent
PYTHON_FILE = FOLDER / "python.txt"
"""Holds the path of the Python that has PRIP. `prip install webui` writes it."""
OPTIONS = json.loads((FOLDER / "options.json").read_text(encoding="utf-8"))
"""Default and bounds of each option of `refine`. `prip install webui` writes them."""

INFOTEXT = "PRIP prompt"
"""Name of the user prompt in an image's infotext."""
NEGATIVE_INFOTEXT = "PRIP negative prompt"
"""Name of the user's own negative prompt there, where it was extended."""

TIMEOUT_S = 300
"""Seconds that PRIP may take for a job, including loading a checkpoint. The variable PRIP_TIMEOUT_S overrides it."""
TOKENS = 75
"""Default token budget: one chunk of webui's prompt."""
CONTROLS = (
    "strength",
    "temperature",
    "seed",
    "styles",
    "banned_terms",
    "no_artists",
    "keep_attributes",
    "token_budget",
    "model",
    "with_negative",
)
"""What the controls set, in order."""
TERMS = ("styles", "banned_terms")
"""Controls with terms separated by commas."""

TAG = re.compile(r"<\w+:[^<>]*>|\bBREAK\b")
ENDS = frozenset(".,\u3001\u3002\uff0c\uff0e\uff61\uff64")
"""What PRIP needs in a prompt."""


class PripError(Exception):
    """PRIP could not refine."""


class PripProcess:
    """PRIP in its own process, started when first needed: webui pins older libraries than PRIP requires."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        atexit.register(self.close)

    def refine(self, request: dict[str, Any], stopped: Callable[[], bool]) -> dict[str, Any]:
        """Return the worker's reply (prip.inference.worker).

        Args:
            request: What the worker reads.
            stopped: Returns whether the user has interrupted the job.

        Raises:
            PripError: The reply is an error or late, or the job was interrupted. If there was no reply in time, the
                process is killed, so that a late reply is not taken for the next one's.
        """
        model = request["model"]
        place = os.path.abspath(model) if os.path.exists(model) else model  # the process has another working folder
        wait = Waiting(time_limit_s(), stopped)
        wait.until(lambda seconds: self._lock.acquire(timeout=seconds))
        try:
            reply = reply_of(self._line(json.dumps({**request, "model": place}), wait))
        except BaseException:
            self.close()
            raise
        finally:
            self._lock.release()
        if "error" in reply:
            raise PripError(reply["error"])
        return reply

    def close(self) -> None:
        """Kill the process, if there is one, and its children."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(OSError):  # it has already ended
            if os.name == "posix":
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        process.wait()

    def _line(self, request: str, wait: Waiting) -> str:
        """Send a request and return the line that answers it."""
        process = self._running()
        lines: queue.Queue[str] = queue.Queue()
        answered = threading.Event()

        def exchange() -> None:
            assert process.stdin is not None and process.stdout is not None
            line = ""
            with contextlib.suppress(OSError, ValueError):
                process.stdin.write(request + "\n")
                process.stdin.flush()
                line = process.stdout.readline()
            lines.put(line)
            answered.set()
            if not line:
                for pipe in (process.stdin, process.stdout):
                    with contextlib.suppress(OSError):  # the unwritten rest of the request
                        pipe.close()

        threading.Thread(target=exchange, daemon=True).start()
        wait.until(answered.wait)
        line = lines.get()
        if not line:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=5)
            raise PripError(f"PRIP's process ended with code {process.poll()}; see the console")
        return line

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            command = [python_of_prip(), "-m", "prip.inference.worker"]
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            try:
                # a new session, so that children can be killed with the process
                self._process = subprocess.Popen(
                    command, **pipes, start_new_session=True, env=own_environment(), cwd=FOLDER
                )
            except OSError as error:
                raise PripError(f"cannot start {command[0]}: {error}") from error
        return self._process


class Waiting:
    """Waiting with a time limit, until the user interrupts it."""

    def __init__(self, limit_s: float, stopped: Callable[[], bool]) -> None:
        self._limit_s = limit_s
        self._end = time.monotonic() + limit_s
        self._stopped = stopped

    def until(self, done: Callable[[float], bool]) -> None:
        """Wait until `done`, which waits for at most the given seconds itself, returns True.

        Raises:
            PripError: The time is over, or the job was interrupted.
        """
        while not done(0.1):
            if self._stopped():
                raise PripError("interrupted")
            if time.monotonic() > self._end:
                raise PripError(f"no answer within {self._limit_s:g} s; PRIP_TIMEOUT_S raises the limit")


def reply_of(line: str) -> dict[str, Any]:
    """Return the reply in a line. Raises PripError if it is not one."""
    with contextlib.suppress(ValueError):
        reply = json.loads(line)
        if isinstance(reply, dict):
            return reply
    raise PripError(f"expected a reply from PRIP's process, got {line.strip()[:200]!r}")


def own_environment() -> dict[str, str]:
    """Return the environment without what belongs to the webui's Python, which may be of another version."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "CONDA_", "VIRTUAL_ENV")) and name != "__PYVENV_LAUNCHER__"
    }


def time_limit_s() -> float:
    """Return PRIP_TIMEOUT_S, or TIMEOUT_S. Raises PripError if it is not a number above 0."""
    text = os.environ.get("PRIP_TIMEOUT_S") or str(TIMEOUT_S)
    try:
        limit_s = float(text)
    except ValueError:
        limit_s = 0.0
    if not limit_s > 0:
        raise PripError(f"PRIP_TIMEOUT_S: expected a number of seconds above 0, got {text!r}")
    return limit_s


def python_of_prip() -> str:
    """Return the Python that has PRIP: PRIP_PYTHON, or the one in python.txt. Raises PripError without either."""
    stored = PYTHON_FILE.read_text(encoding="utf-8").strip() if PYTHON_FILE.is_file() else ""
    python = os.environ.get("PRIP_PYTHON") or stored
    if not python:
        raise PripError(f"no Python with PRIP: set PRIP_PYTHON, or write its path into {PYTHON_FILE}")
    return python


PRIP = PripProcess()


class Script(scripts.Script):
    """The script, always visible in txt2img and img2img."""

    prompt_box: Any = None
    """webui's prompt field, which the preview reads."""
    preview: Any = None
    """The button that shows the refined prompt, with its inputs and outputs."""

    def title(self) -> str:
        """Return the script's name, also for the API."""
        return "PRIP"

    def show(self, is_img2img: bool) -> Any:
        """Show the script in both tabs."""
        return scripts.AlwaysVisible

    def after_component(self, component: Any, **kwargs: Any) -> None:
        """Find webui's prompt field."""
        if kwargs.get("elem_id") == ("img2img_prompt" if self.is_img2img else "txt2img_prompt"):
            self.prompt_box = component
            self._connect()

    def ui(self, is_img2img: bool) -> list[Any]:
        """Return the controls, in the order of the arguments of `process`."""
        with gr.Accordion("PRIP", open=False, elem_id=self.elem_id("accordion")):
            enabled = gr.Checkbox(label="Refine the prompt", value=False)
            with gr.Row():
                strength = slider("strength", "Strength", step=0.05)
                temperature = slider("temperature", "Temperature (0: greedy)", step=0.05, maximum=2.0)
                seed = gr.Number(label="Seed of sampled text (-1: the image's)", value=-1, precision=0)
            with gr.Row():
                styles = gr.Textbox(label="Styles (commas between them)", value="")
                banned_terms = gr.Textbox(label="Never add (commas between them)", value="")
            with gr.Row():
                no_artists = gr.Checkbox(label="No artists", value=OPTIONS["no_artists"]["default"])
                keep = gr.Checkbox(
                    label="Add nothing that contradicts the prompt", value=OPTIONS["keep_attributes"]["default"]
                )
                token_budget = slider("token_budget", "Token budget", step=1, maximum=300, value=TOKENS)
                model = gr.Textbox(label="Checkpoint", value="prip-mini")
            with_negative = gr.Checkbox(label="Extend the negative prompt", value=False)
            button = gr.Button("Show the refined prompt")
            refined_prompt = gr.Textbox(label="Refined prompt", lines=3, value="", elem_id=self.elem_id("refined"))
            keep_edit = gr.Checkbox(label="Draw this text, as I edited it", value=False)
        options = [strength, temperature, seed, styles, banned_terms, no_artists, keep, token_budget, model]
        options.append(with_negative)
        self.preview = (button, options, [refined_prompt])
        self._connect()
        self.infotext_fields = [(enabled, lambda infotext: False if INFOTEXT in infotext else gr.update())]
        self.paste_field_names = [INFOTEXT]
        return [enabled, refined_prompt, keep_edit, *options]

    def _connect(self) -> None:
        """Connect the button to the prompt field once both exist; webui's settings decide which comes first."""
        if self.prompt_box is not None and self.preview is not None:
            button, options, outputs = self.preview
            button.click(show_refined, inputs=[self.prompt_box, *options], outputs=outputs)

    def process(self, p: Any, enabled: bool, refined_prompt: str, keep_edit: bool, *options: Any) -> None:
        """Replace the job's prompts, and the hires prompts equal to them, by refined ones, and record the user's.

        A prompt without words stays as it is. webui prints an exception and goes on, so a comment below the images
        says that the prompt was not refined.
        """
        if not enabled:
            return
        prompts, own = list(p.all_prompts), list(p.all_negative_prompts)
        negative = own
        try:
            if keep_edit and refined_prompt.strip():
                refined = [refined_prompt] * len(prompts)
            else:
                reply = ask(prompts, list(p.all_seeds), interrupted, *options, negative_prompts=own)
                negative = reply["negative_prompts"]
                refined = reply["refined"]
                for note in reply["warnings"]:
                    p.comment(f"PRIP: {note}")
        except Exception as error:
            reason = str(error) if isinstance(error, PripError) else repr(error)
            p.comment(f"PRIP: the prompt was not refined: {reason}")
            raise
        if negative != own:
            replace_negative_prompts(p, negative)
            p.extra_generation_params[NEGATIVE_INFOTEXT] = own[0] or None
        if refined == prompts:
            return
        p.all_prompts = refined
        p.main_prompt = refined[0]
        if getattr(p, "enable_hr", False):
            pairs = zip(p.all_hr_prompts, prompts, refined, strict=True)
            p.all_hr_prompts = [text if hires == prompt else hires for hires, prompt, text in pairs]
        p.prip_notes = [None if text == prompt else prompt for prompt, text in zip(prompts, refined, strict=True)]
        p.extra_generation_params[INFOTEXT] = p.prip_notes[0]

    def postprocess_image(self, p: Any, pp: Any, *controls: Any) -> None:
        """Record an image's user prompt right before webui writes its infotext.

        A list for all images would not work: webui before 1.10 prints all of it, and 1.10 indexes it per batch.
        """
        notes = getattr(p, "prip_notes", None)
        if notes is None:
            return
        index = p.iteration * p.batch_size + p.batch_index
        if index < len(notes):
            p.extra_generation_params[INFOTEXT] = notes[index]


def replace_negative_prompts(p: Any, negative: list[str]) -> None:
    """Replace the job's negative prompts, and the hires ones equal to them."""
    own, p.all_negative_prompts, p.main_negative_prompt = list(p.all_negative_prompts), negative, negative[0]
    if getattr(p, "enable_hr", False):
        pairs = zip(p.all_hr_negative_prompts, own, negative, strict=True)
        p.all_hr_negative_prompts = [text if hires == old else hires for hires, old, text in pairs]


def slider(name: str, label: str, **settings: Any) -> gr.Slider:
    """Return a slider for an option, with its bounds and default unless `settings` has others."""
    option = OPTIONS[name]
    known = {"minimum": option["minimum"], "maximum": option["maximum"], "value": option["default"]}
    return gr.Slider(label=label, **{**known, **settings})


def interrupted() -> bool:
    """Return whether the user has interrupted webui."""
    return any(getattr(shared.state, name, False) for name in ("interrupted", "stopping_generation"))


def show_refined(prompt: str, *options: Any) -> str:
    """Return the refined prompt for webui's prompt field. Gradio shows errors."""
    try:
        return ask([prompt], [0], lambda: False, *options)["refined"][0]
    except Exception as error:
        raise gr.Error(f"PRIP: {error if isinstance(error, PripError) else repr(error)}") from error


def has_words(prompt: str) -> bool:
    """Return whether PRIP takes a prompt, as `prip.text.prompts.has_words` does."""
    text = TAG.sub(" ", prompt)
    return any(not (mark in ENDS or mark.isspace() or unicodedata.category(mark) == "Cf") for mark in text)


def ask(
    prompts: list[str],
    image_seeds: list[int],
    stopped: Callable[[], bool],
    *values: Any,
    negative_prompts: list[str] | None = None,
) -> dict[str, Any]:
    """Return PRIP's reply for these prompts. Those without words come back as they are and need no PRIP.

    Greedy texts depend on no seed, so that images of the same prompt share them.

    Args:
        values: Values of CONTROLS. An emptied number, None, stands for its default.
        negative_prompts: The user's own ones, which the reply extends if the control says so.
    """
    negative = list(negative_prompts or [""] * len(prompts))
    indices = [index for index, prompt in enumerate(prompts) if has_words(prompt)]
    if not indices:
        return {"refined": list(prompts), "negative_prompts": negative, "warnings": []}
    options = dict(zip(CONTROLS, values, strict=True))
    seed, model = options.pop("seed"), options.pop("model").strip() or "prip-mini"
    with_negative = bool(options.pop("with_negative"))
    seed = -1 if seed is None else int(seed)
    budget = options["token_budget"]
    options["token_budget"] = TOKENS if budget is None else int(budget)
    for name, value in options.items():
        options[name] = OPTIONS[name]["default"] if value is None else terms(value) if name in TERMS else value
    options["webui_syntax"] = True
    sampled = options["temperature"] > 0
    seeds = [int(image_seeds[index]) if sampled and seed == -1 else seed for index in indices]
    request = {"prompts": [prompts[index] for index in indices], "seeds": seeds, "model": model, "options": options}
    if with_negative:
        request["negative_prompts"] = [negative[index] for index in indices]
    reply = PRIP.refine(request, stopped)
    refined, extended = list(prompts), negative
    for place, index in enumerate(indices):
        refined[index] = reply["refined"][place]
        if with_negative:
            extended[index] = reply["negative_prompts"][place]
    return {**reply, "refined": refined, "negative_prompts": extended}


def terms(text: str) -> list[str]:
    """Return the terms between commas."""
    return [term.strip() for term in re.split(r"[,\n]", text) if term.strip()]
