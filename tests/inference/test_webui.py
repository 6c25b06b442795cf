"""The extension as A1111's webui loads and runs it, with PRIP in a process of its own."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from webui_host import Processing, Runner, load_script

import prip
from prip.inference.cli import main
from prip.inference.commands.install import install
from prip.text.prompts import has_words

pytest.importorskip("gradio", reason="the demo extra is not installed")
ROOT = Path(__file__).resolve().parents[2]
ON = {"Refine the prompt": True}


@pytest.fixture(scope="module")
def extension(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The extension in webui's folder, as the command puts it there."""
    folder = tmp_path_factory.mktemp("webui")
    (folder / "extensions").mkdir()
    assert main(["install", "webui", str(folder)]) == 0
    return folder / "extensions" / "prip"


@pytest.fixture(scope="module")
def kind(extension: Path) -> Iterator[type]:
    with load_script(extension / "scripts" / "prip_webui.py") as loaded:
        yield loaded


@pytest.fixture(scope="module")
def runner(kind: type) -> Runner:
    return Runner(kind)


def refined(prompt: str, **options: Any) -> str:
    return prip.refine(prompt, device="cpu", **options)


def test_loading_it_loads_no_part_of_prip(extension: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'tests' / 'support')!r}); import gradio\n"
        "from pathlib import Path; from webui_host import Runner, load_script\n"
        "before = set(sys.modules)\n"
        f"with load_script(Path({str(extension)!r}) / 'scripts' / 'prip_webui.py') as kind: Runner(kind)\n"
        "loaded = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(loaded & {'torch', 'transformers', 'tokenizers', 'prip'}))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_it_is_off_until_it_is_turned_on(runner: Runner) -> None:
    job = runner.generate(Processing("a cat"))
    assert job.all_prompts == ["a cat"] and job.extra_generation_params == {} and runner.errors == []


def test_every_image_of_a_batch_gets_the_refined_prompt(runner: Runner) -> None:
    job = runner.generate(Processing("a cat", batch_size=2, n_iter=2), **ON)
    assert runner.errors == [] and job.comments == []
    assert job.all_prompts == [refined("a cat")] * 4 and job.main_prompt == refined("a cat")
    texts = job.draw(runner.script, runner.values(**ON))
    assert texts[3] == f"{refined('a cat')}\nSeed: 10, PRIP prompt: a cat"


@pytest.mark.parametrize("version", ["1.6", "1.10"])
def test_each_image_notes_its_own_user_prompt(runner: Runner, version: str) -> None:
    prompts = ["a cat", "a dog", "", "a boat"]
    job = runner.generate(Processing("", batch_size=2, n_iter=2, prompts=prompts), **ON)
    assert runner.errors == [] and job.all_prompts == [refined("a cat"), refined("a dog"), "", refined("a boat")]
    texts = job.draw(runner.script, runner.values(**ON), version)
    assert texts == [
        f"{refined('a cat')}\nSeed: 7, PRIP prompt: a cat",
        f"{refined('a dog')}\nSeed: 8, PRIP prompt: a dog",
        "\nSeed: 9",
        f"{refined('a boat')}\nSeed: 10, PRIP prompt: a boat",
    ]
    plain = runner.generate(Processing("a cat"))
    assert plain.draw(runner.script, runner.values(), version) == ["a cat\nSeed: 7"]


def test_prompts_without_words_go_through_and_need_no_prip(extension: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIP_PYTHON", "/no/such/python")
    with load_script(extension / "scripts" / "prip_webui.py") as kind:
        runner = Runner(kind)
        for prompt in ("", " \n", ".,"):
            job = runner.generate(Processing(prompt, batch_size=2), **ON)
            assert job.all_prompts == [prompt] * 2 and job.comments == runner.errors == []
            assert job.extra_generation_params == {}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_numbers_that_were_cleared_are_their_defaults(runner: Runner, temperature: float) -> None:
    cleared = dict.fromkeys(("Strength", "Seed of sampled text (-1: the image's)", "Token budget"))
    job = runner.generate(
        Processing("a cat", batch_size=2), **ON, **cleared, **{"Temperature (0: greedy)": temperature}
    )
    assert runner.errors == [] and job.comments == []
    assert job.all_prompts == [refined("a cat", temperature=temperature, seed=seed) for seed in (7, 8)]
    job = runner.generate(Processing("a cat"), **ON, **{"Temperature (0: greedy)": None, "Checkpoint": " "})
    assert job.all_prompts == [refined("a cat")]


def test_the_users_styles_are_words_of_the_prompt(runner: Runner) -> None:
    job = runner.generate(Processing("a cat", styles=["watercolor"]), **ON)
    assert job.all_prompts == [refined("a cat, watercolor")]
    assert job.extra_generation_params["PRIP prompt"] == "a cat, watercolor"


def test_hires_prompts_follow_unless_they_are_the_users_own(runner: Runner) -> None:
    job = runner.generate(Processing("a cat", enable_hr=True), **ON)
    assert job.all_hr_prompts == job.all_prompts == [refined("a cat")]
    job = runner.generate(Processing("a cat", enable_hr=True, hr_prompt="a cat, sharp"), **ON)
    assert job.all_hr_prompts == ["a cat, sharp"] and job.all_prompts == [refined("a cat")]


def test_the_options_reach_refine(runner: Runner) -> None:
    changed = {
        "Strength": 0.5,
        "Styles (commas between them)": "watercolor, ",
        "Never add (commas between them)": "golden hour,bokeh",
        "No artists": True,
        "Token budget": 40,
    }
    wanted = {"strength": 0.5, "styles": ["watercolor"], "banned_terms": ["golden hour", "bokeh"]}
    job = runner.generate(Processing("a boat"), **ON, **changed)
    assert job.all_prompts == [refined("a boat", **wanted, no_artists=True, token_budget=40)] != [refined("a boat")]


def test_sampled_texts_follow_the_seed(runner: Runner) -> None:
    sampled = {**ON, "Temperature (0: greedy)": 1.0}
    job = runner.generate(Processing("a cat", batch_size=3), **sampled)
    assert job.all_prompts == [refined("a cat", temperature=1.0, seed=seed) for seed in (7, 8, 9)]
    assert len(set(job.all_prompts)) > 1
    job = runner.generate(Processing("a cat", batch_size=3), **sampled, **{"Seed of sampled text (-1: the image's)": 8})
    assert job.all_prompts == [refined("a cat", temperature=1.0, seed=8)] * 3


def test_prompts_in_webui_syntax_keep_it(runner: Runner) -> None:
    prompt = r"a (cat:1.2) <lora:fur:0.8>, \(sitting\)"
    job = runner.generate(Processing(prompt), **ON)
    assert runner.errors == [] and job.all_prompts[0].startswith(prompt + ", ")


@pytest.mark.parametrize("prompt", ["a cat,\nin the rain", "a cat\r\n\tin the rain\n\n"])
def test_a_prompt_of_several_lines_stays_as_it_was_typed(runner: Runner, prompt: str) -> None:
    job = runner.generate(Processing(prompt), **ON)
    assert runner.errors == [] and job.all_prompts == [refined(prompt)]
    assert job.all_prompts[0].startswith(prompt.rstrip() + ", ")
    assert job.extra_generation_params["PRIP prompt"] == prompt


def test_an_edit_is_drawn_as_it_is(runner: Runner) -> None:
    edit = {"Refined prompt": "a cat, in the rain", "Draw this text, as I edited it": True, "Checkpoint": "none such"}
    job = runner.generate(Processing("a cat", batch_size=2, enable_hr=True), **ON, **edit)
    assert job.all_prompts == job.all_hr_prompts == ["a cat, in the rain"] * 2
    assert job.extra_generation_params["PRIP prompt"] == "a cat"


def test_what_went_wrong_is_told_and_nothing_is_changed(runner: Runner) -> None:
    for prompt, changed, message in (
        ("a cat", {"Checkpoint": "none such"}, "unknown checkpoint 'none such'"),
        ("a\0cat", {}, "prompt[0]: expected no control characters"),
        ("a cat", {"Strength": "much"}, "strength: expected a number from 0 to 1, got 'much'"),
    ):
        job = runner.generate(Processing(prompt), **ON, **changed)
        assert job.all_prompts == [prompt] and job.extra_generation_params == {}
        assert message in runner.errors[0] and job.comments == [f"PRIP: the prompt was not refined: {runner.errors[0]}"]
    job = runner.generate(Processing("a cat"), **ON, **{"Token budget": 3})
    assert job.all_prompts == ["a cat"] and "unchanged" in job.comments[0]
    assert runner.generate(Processing("a cat"), **ON).all_prompts == [refined("a cat")], "it goes on after an error"


def test_the_button_shows_the_refined_prompt(kind: type) -> None:
    import gradio as gr

    for is_img2img, script_first in ((False, False), (True, False), (True, True)):
        runner = Runner(kind, is_img2img, script_first)
        (event,) = [one for one in runner.page.fns.values() if one.targets[0][1] == "click"]
        assert event.inputs[0] is runner.prompt_box and event.outputs[0].label == "Refined prompt"
        values = runner.values()[3:]
        assert event.fn("a cat", *values) == refined("a cat")
        assert event.fn("", *values) == ""
        with pytest.raises(gr.Error, match=r"PRIP: prompt\[0\]: expected no control characters"):
            event.fn("a\0cat", *values)
        with pytest.raises(gr.Error, match="PRIP: ValueError.*seven"):
            event.fn("a cat", *values[:2], "seven", *values[3:])


def test_a_pasted_image_is_not_refined_again(runner: Runner) -> None:
    ((enabled, of_infotext),) = runner.script.infotext_fields
    assert enabled.label == "Refine the prompt" and runner.script.paste_field_names == ["PRIP prompt"]
    assert of_infotext({"PRIP prompt": "a cat"}) is False
    assert of_infotext({"Seed": "1"}) is not False


def test_whatever_fails_is_told_beneath_the_image(runner: Runner) -> None:
    job = runner.generate(Processing("a cat"), **ON, **{"Seed of sampled text (-1: the image's)": "seven"})
    assert job.all_prompts == ["a cat"] and len(runner.errors) == 1
    assert job.comments[0].startswith("PRIP: the prompt was not refined: ValueError(") and "seven" in job.comments[0]


@pytest.fixture
def hanging(extension: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runner]:
    """The extension with a Python that never answers, and has started a process of its own."""
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\nsleep 60 &\necho $! > {tmp_path}/pid\nwait\n", encoding="utf-8")
    script.chmod(0o755)
    monkeypatch.setenv("PRIP_PYTHON", str(script))
    with load_script(extension / "scripts" / "prip_webui.py") as kind:
        yield Runner(kind)


def test_nothing_of_the_hosts_python_reaches_the_process(
    extension: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = {"PYTHONPATH": "/webui", "PYTHONHOME": "/venv", "VIRTUAL_ENV": "/venv", "CONDA_PREFIX": "/conda"}
    host["__PYVENV_LAUNCHER__"] = "/venv/bin/python"
    for name, value in {**host, "HF_HUB_OFFLINE": "1"}.items():
        monkeypatch.setenv(name, value)
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\nenv > {tmp_path}/environment\npwd > {tmp_path}/folder\n", encoding="utf-8")
    script.chmod(0o755)
    monkeypatch.setenv("PRIP_PYTHON", str(script))
    with load_script(extension / "scripts" / "prip_webui.py") as kind:
        Runner(kind).generate(Processing("a cat"), **ON)
    lines = (tmp_path / "environment").read_text().splitlines()
    assert "HF_HUB_OFFLINE=1" in lines and not {line.partition("=")[0] for line in lines} & host.keys()
    assert Path((tmp_path / "folder").read_text().strip()) == extension.resolve()


def test_the_webui_loads_it_after_the_extensions_that_choose_words(extension: Path) -> None:
    """Section, key and separator as modules/extensions.py of the webui reads them."""
    config = configparser.ConfigParser()
    assert config.read(extension / "metadata.ini")
    assert config.get("Extension", "Name") == extension.name == "prip"
    assert "sd-dynamic-prompts" in re.split(r"[,\s]+", config.get("scripts", "After"))


WORDLESS = ["", " .,", "。、", "\u200b\ufeff", "<lora:x:1>", "BREAK"]


@pytest.mark.parametrize("prompt", [*WORDLESS, "a", "猫", "🐈", "<3", "a <lora:x:1>"])
def test_prompts_without_words_are_those_that_prip_refuses(kind: Any, prompt: str) -> None:
    assert kind.process.__globals__["has_words"](prompt) == has_words(prompt) == (prompt not in WORDLESS)


def test_prompts_without_words_leave_the_others_of_a_job_alone(runner: Runner) -> None:
    job = runner.generate(Processing("a cat", prompts=[*WORDLESS, "a cat"]), **ON)
    assert job.all_prompts[:-1] == WORDLESS and job.all_prompts[-1].startswith("a cat, ") and not job.comments


def is_running(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads the state of processes from /proc")
@pytest.mark.parametrize("length", [1, 100_000])
def test_a_process_that_hangs_is_ended(
    hanging: Runner, tmp_path: Path, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much it was sent: more than fits into a pipe is never read."""
    monkeypatch.setenv("PRIP_TIMEOUT_S", "1")
    prompt = "cat " * length
    start = time.monotonic()
    job = hanging.generate(Processing(prompt), **ON)
    assert time.monotonic() - start < 10
    assert job.all_prompts == [prompt]
    assert job.comments == ["PRIP: the prompt was not refined: no answer within 1 s; PRIP_TIMEOUT_S raises the limit"]
    child = int((tmp_path / "pid").read_text())
    for _ in range(100):  # it is killed at once, and gone a little later
        if not is_running(child):
            break
        time.sleep(0.05)
    assert not is_running(child)
    monkeypatch.setenv("PRIP_PYTHON", sys.executable)
    monkeypatch.setenv("PRIP_TIMEOUT_S", "100")
    assert hanging.generate(Processing("a cat"), **ON).all_prompts == [refined("a cat")], "it goes on after that"
    monkeypatch.setenv("PRIP_TIMEOUT_S", "soon")
    job = hanging.generate(Processing("a cat"), **ON)
    assert "PRIP_TIMEOUT_S: expected a number of seconds above 0, got 'soon'" in job.comments[0]


@pytest.mark.parametrize("name", ["interrupted", "stopping_generation"])
def test_interrupt_ends_the_waiting(hanging: Runner, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    state = hanging.script.process.__globals__["shared"].state
    threading.Timer(0.5, lambda: monkeypatch.setattr(state, name, True)).start()
    start = time.monotonic()
    job = hanging.generate(Processing("a cat"), **ON)
    assert 0.4 < time.monotonic() - start < 10
    assert job.comments == ["PRIP: the prompt was not refined: interrupted"]
    import gradio as gr

    monkeypatch.setenv("PRIP_TIMEOUT_S", "1")
    show_refined = hanging.script.process.__globals__["show_refined"]
    with pytest.raises(gr.Error, match="no answer within 1 s"):  # the button is of no job: none that was interrupted
        show_refined("a cat", *hanging.values()[3:])


def test_what_says_something_else_is_told_of(extension: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "python"
    monkeypatch.setenv("PRIP_PYTHON", str(script))
    with load_script(extension / "scripts" / "prip_webui.py") as kind:
        for line in ("hello", "7"):
            script.write_text(f"#!/bin/sh\necho {line}\nsleep 60\n", encoding="utf-8")
            script.chmod(0o755)
            job = Runner(kind).generate(Processing("a cat"), **ON)
            assert f"expected a reply from PRIP's process, got '{line}'" in job.comments[0]


def test_a_process_that_died_is_started_anew(runner: Runner) -> None:
    prip_process = runner.script.process.__globals__["PRIP"]
    prip_process._running().kill()
    prip_process._process.wait()
    assert runner.generate(Processing("a cat"), **ON).all_prompts == [refined("a cat")]


@pytest.mark.parametrize(
    ("python", "message"),
    [
        ("", "no Python with PRIP: set PRIP_PYTHON"),
        ("/no/such/python", "cannot start /no/such/python"),
        ("/bin/false", "PRIP's process ended with code 1; see the console"),
    ],
)
def test_without_a_python_that_has_prip(python: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "extensions").mkdir()
    folder = install("webui", tmp_path)
    assert (folder / "python.txt").read_text().strip() == sys.executable
    (folder / "python.txt").write_text(python)
    with load_script(folder / "scripts" / "prip_webui.py") as kind:
        runner = Runner(kind)
        job = runner.generate(Processing("a cat"), **ON)
    assert message in runner.errors[0] and message in job.comments[0] and job.all_prompts == ["a cat"]


def test_it_extends_negative_prompts_when_asked(runner: Runner) -> None:
    asked = {**ON, "Extend the negative prompt": True}
    plain = runner.generate(Processing("a cat, no hats", negative_prompt="people"), **ON)
    assert plain.all_negative_prompts == ["people"]
    prompts = ["a cat, no hats", "", "a boat"]
    job = runner.generate(
        Processing("", batch_size=3, prompts=prompts, negative_prompt="(people:1.2).", enable_hr=True), **asked
    )
    assert runner.errors == [] and job.all_prompts[0].startswith("a cat, no hats, ")
    assert job.all_negative_prompts == [
        prip.negative_prompt(job.all_prompts[0], "(people:1.2)."),
        "(people:1.2).",
        prip.negative_prompt(job.all_prompts[2], "(people:1.2)."),
    ]
    assert job.all_negative_prompts[0].startswith("(people:1.2), hats, low quality")
    assert job.all_hr_negative_prompts == job.all_negative_prompts
    assert job.main_negative_prompt == job.all_negative_prompts[0]
    assert job.extra_generation_params["PRIP negative prompt"] == "(people:1.2)."
