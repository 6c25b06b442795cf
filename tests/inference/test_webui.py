"""The extension as A1111's webui loads and runs it, with PRIP in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from webui_host import Processing, Runner, load_script

import prip
from prip.inference.cli import main
from prip.inference.install_command import install

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
    assert job.infotext(3) == f"{refined('a cat')}\nSeed: 10, PRIP prompt: a cat"


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


def test_an_edit_is_drawn_as_it_is(runner: Runner) -> None:
    edit = {"Refined prompt": "a cat, in the rain", "Draw this text, as I edited it": True, "Checkpoint": "none such"}
    job = runner.generate(Processing("a cat", batch_size=2, enable_hr=True), **ON, **edit)
    assert job.all_prompts == job.all_hr_prompts == ["a cat, in the rain"] * 2
    assert job.extra_generation_params["PRIP prompt"] == "a cat"


def test_what_went_wrong_is_told_and_nothing_is_changed(runner: Runner) -> None:
    for prompt, changed, message in (
        ("a cat", {"Checkpoint": "none such"}, "unknown checkpoint 'none such'"),
        ("  ", {}, "prompt"),
    ):
        job = runner.generate(Processing(prompt), **ON, **changed)
        assert job.all_prompts == [prompt] and job.extra_generation_params == {}
        assert message in runner.errors[0] and job.comments == [f"PRIP: the prompt was not refined: {runner.errors[0]}"]
    job = runner.generate(Processing("a cat"), **ON, **{"Token budget": 3})
    assert job.all_prompts == ["a cat"] and "unchanged" in job.comments[0]
    assert runner.generate(Processing("a cat"), **ON).all_prompts == [refined("a cat")], "it goes on after an error"


def test_the_button_shows_the_refined_prompt(kind: type) -> None:
    import gradio as gr

    for is_img2img in (False, True):
        runner = Runner(kind, is_img2img)
        (event,) = [one for one in runner.page.fns.values() if one.targets[0][1] == "click"]
        assert event.inputs[0] is runner.prompt_box and event.outputs[0].label == "Refined prompt"
        values = runner.values()[3:]
        assert event.fn("a cat", *values) == refined("a cat")
        with pytest.raises(gr.Error, match="PRIP: prompt"):
            event.fn("", *values)


def test_a_pasted_image_is_not_refined_again(runner: Runner) -> None:
    ((enabled, of_infotext),) = runner.script.infotext_fields
    assert enabled.label == "Refine the prompt" and runner.script.paste_field_names == ["PRIP prompt"]
    assert of_infotext({"PRIP prompt": "a cat"}) is False
    assert of_infotext({"Seed": "1"}) is not False


def test_a_process_that_died_is_started_anew(runner: Runner) -> None:
    prip_process = runner.script.process.__globals__["PRIP"]
    prip_process._running().kill()
    prip_process._process.wait()
    assert runner.generate(Processing("a cat"), **ON).all_prompts == [refined("a cat")]


@pytest.mark.parametrize(
    ("python", "message"),
    [
        ("", "no Python with PRIP is known: set PRIP_PYTHON"),
        ("/no/such/python", "/no/such/python cannot be started"),
        ("/bin/false", "PRIP's process ended with code 1; the console says why"),
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
