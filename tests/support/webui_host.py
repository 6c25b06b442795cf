"""What A1111's webui does with an extension's script, in small: loads it, builds its controls, runs it on a job.

Facts from webui's modules/scripts.py (load_scripts, ScriptRunner), modules/shared_state.py and modules/processing.py
(setup_prompts, process_images_inner, create_infotext), versions 1.6 to 1.10; Forge's are the same here.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class Script:
    """modules.scripts.Script, as far as an extension sees it."""

    is_img2img = False
    infotext_fields: Any = None
    paste_field_names: Any = None

    def elem_id(self, name: str) -> str:
        return f"script_{'img2img' if self.is_img2img else 'txt2img'}_{name}"


ALWAYS_VISIBLE = object()


class State:
    """modules.shared.state: what the button Interrupt sets, of which 1.6 has only the first."""

    interrupted = False
    stopping_generation = False


@contextmanager
def load_script(path: Path) -> Iterator[Any]:
    """Gives the script's class, with the host's modules in place while it lasts."""
    scripts = types.ModuleType("modules.scripts")
    scripts.Script, scripts.AlwaysVisible = Script, ALWAYS_VISIBLE  # type: ignore[attr-defined]
    shared = types.ModuleType("modules.shared")
    shared.state = State()  # type: ignore[attr-defined]
    package = types.ModuleType("modules")
    package.scripts, package.shared = scripts, shared  # type: ignore[attr-defined]
    before = dict(sys.modules)
    sys.modules.update({"modules": package, "modules.scripts": scripts, "modules.shared": shared})
    try:
        spec = importlib.util.spec_from_file_location(path.name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found = [one for one in vars(module).values() if inspect.isclass(one) and issubclass(one, Script)]
        assert len(found) == 1
        try:
            yield found[0]
        finally:
            module.PRIP.close()
    finally:
        for name in ("modules", "modules.scripts", "modules.shared"):
            sys.modules.pop(name, None)
            if name in before:
                sys.modules[name] = before[name]


@dataclass
class Processing:
    """A job: what the user chose, and from `setup_prompts` on, a prompt and a seed for each image."""

    prompt: str
    styles: list[str] = field(default_factory=list)
    """texts of the user's styles, each behind the prompt"""
    batch_size: int = 1
    n_iter: int = 1
    seed: int = 7
    enable_hr: bool = False
    hr_prompt: str = ""
    negative_prompt: str = ""
    prompts: list[str] = field(default_factory=list)
    """a prompt for each image, as an extension before this one leaves them"""
    extra_generation_params: dict[str, Any] = field(default_factory=dict)
    comments: list[str] = field(default_factory=list)

    def setup_prompts(self) -> None:
        count = self.batch_size * self.n_iter
        self.all_prompts = self.prompts or [self._styled(self.prompt)] * count
        self.main_prompt = self.all_prompts[0]
        self.all_negative_prompts = [self.negative_prompt] * count
        self.main_negative_prompt = self.negative_prompt
        self.all_seeds = [self.seed + place for place in range(count)]
        if self.enable_hr:
            self.all_hr_prompts = [self._styled(self.hr_prompt or self.prompt)] * count
            self.all_hr_negative_prompts = [self.negative_prompt] * count

    def comment(self, text: str) -> None:
        self.comments.append(text)

    def draw(self, script: Any, values: list[Any], version: str = "1.10") -> list[str]:
        """Returns the infotext of each image, batch by batch. A list in it is printed by 1.6; 1.10 takes from it what
        is at the image's place in its batch."""
        texts = []
        for place in range(self.n_iter * self.batch_size):
            self.iteration, self.batch_index = divmod(place, self.batch_size)
            script.postprocess_image(self, None, *values)
            shown = {"Seed": self.all_seeds[place], **self.extra_generation_params}
            if version == "1.10":
                shown = {k: v[self.batch_index] if isinstance(v, list) else v for k, v in shown.items()}
            words = ", ".join(f"{name}: {value}" for name, value in shown.items() if value is not None)
            texts.append(f"{self.all_prompts[place]}\n{words}")
        return texts

    def _styled(self, prompt: str) -> str:
        return ", ".join([prompt, *self.styles])


class Runner:
    """One tab of webui: the script's controls among its own, and what a press of Generate does."""

    def __init__(self, kind: type, is_img2img: bool = False, script_first: bool = False) -> None:
        """script_first: the user's settings put the scripts before the prompt."""
        import gradio as gr

        self.script = kind()
        self.script.is_img2img = is_img2img
        assert self.script.show(is_img2img) is ALWAYS_VISIBLE
        with gr.Blocks() as self.page:
            if script_first:
                self.controls = self.script.ui(is_img2img)
            for tab in ("txt2img", "img2img"):
                box = gr.Textbox(label="Prompt", elem_id=f"{tab}_prompt")
                self.script.after_component(box, label="Prompt", elem_id=f"{tab}_prompt")
                if tab == ("img2img" if is_img2img else "txt2img"):
                    self.prompt_box = box
            if not script_first:
                self.controls = self.script.ui(is_img2img)

    def values(self, **changed: Any) -> list[Any]:
        """Returns the controls' values, those of the given labels changed."""
        values = {control.label: control.value for control in self.controls}
        assert set(changed) <= set(values), sorted(values)
        return list({**values, **changed}.values())

    def generate(self, job: Processing, **changed: Any) -> Processing:
        """Runs a job up to where its prompts are read; what a script raises is printed by webui, which goes on."""
        job.setup_prompts()
        self.errors: list[str] = []
        try:
            self.script.process(job, *self.values(**changed))
        except Exception as error:
            self.errors.append(str(error))
        return job
