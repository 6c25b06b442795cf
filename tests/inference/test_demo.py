"""`prip demo` without a browser: what its buttons do, what it draws and writes, and what the command refuses."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
import torch
from PIL import Image

from prip.inference.cli import main
from prip.inference.comparison.workbench import Workbench
from prip.inference.page import markup
from prip.inference.page.handlers import UNFORESEEN, Handlers
from prip.inference.page.pictures import Board, Easel, Pair, Picture
from prip.inference.page.session import (
    MOST_REMEMBERED,
    Entry,
    Form,
    Notice,
    Session,
    choose,
    edit,
    history_from_json,
    history_to_json,
    refine,
    remembered,
    restore,
    settle,
)
from prip.miniature.renderer import Renderer
from prip.refiner import Refiner


@pytest.fixture(scope="module")
def refiner(tiny_checkpoint: Path) -> Refiner:
    return Refiner.from_pretrained(tiny_checkpoint, device="cpu")


class Redness:
    """A reward: the mean of red, the number of the user prompt's characters apart."""

    name = "redness"

    def __call__(self, user_prompts, images):
        return images[:, 0].float().mean((1, 2)) + torch.tensor([1000.0 * len(prompt) for prompt in user_prompts])


class Counting(Renderer):
    """A renderer that counts what it draws."""

    drawn = 0

    def __call__(self, prompts, seeds):
        self.drawn += len(prompts)
        return super().__call__(prompts, seeds)


class Failing:
    """A call that raises."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __call__(self, prompts, seeds):
        raise self.error


@pytest.fixture
def bench(refiner: Refiner) -> Workbench:
    return Workbench(refiner, Counting(), (Redness(),))


def test_the_refined_prompt_begins_with_what_was_typed_and_is_remembered(refiner: Refiner) -> None:
    session = refine(refiner, Session(), Form(" a cat\n", num_alternatives=3.0, seed=5.0))
    assert session.user_prompt == "a cat" and session.notice is None
    assert session.alternatives == tuple(refiner.refine("a cat", num_alternatives=3, seed=5))
    assert session.refined_prompt == session.alternatives[0] and session.refined_prompt.startswith("a cat, ")
    assert session.history == (Entry("a cat", session.refined_prompt),)
    again = refine(refiner, session, Form("a boat\nat sea"))
    assert [entry.user_prompt for entry in again.history] == ["a boat\nat sea", "a cat"]
    assert settle(again) == again, "lines stay lines where it is drawn"
    assert [piece for piece, added in markup.spans(again.user_prompt, again.refined_prompt) if added]


def test_refinement_can_be_switched_off(refiner: Refiner) -> None:
    session = refine(refiner, Session(), Form("a cat", refinement=False, styles=["watercolor"], strength=0.5))
    assert (session.refined_prompt, session.notice) == ("a cat", None)
    assert markup.marked_prompt(session) == '<p class="marked">a cat</p>'


def test_options_reach_the_refiner() -> None:
    form = Form("a cat", True, 0.5, ["watercolor"], 2, "golden hour, ,bokeh", True, 0.8, 7, 3)
    options = form.options()
    assert (options.strength, options.styles, options.num_alternatives) == (0.5, ("watercolor",), 2)
    assert (options.banned_terms, options.no_artists) == (["golden hour", "bokeh"], True)
    assert (options.temperature, options.seed, form.seeds()) == (0.8, 7, [7, 8, 9])


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (Form(""), "There is no prompt yet"),
        (Form(None), "There is no prompt yet"),
        (Form(" .,"), "Prompt: expected at least one word, got '.,'."),
        (Form("x" * 10_001), "Prompt: expected at most 10,000 characters, got 10,001."),
        (Form("a\0cat"), "Prompt: expected no control characters"),
        (Form("a cat", seed=None), "Seed: expected a number, got an empty field."),
        (Form("a cat", seed=1.5), "Seed: expected a whole number, got 1.5."),
        (Form("a cat", num_alternatives=99), "Alternatives: expected a whole number from 1 to 6, got 99."),
        (Form("a cat", temperature=-1), "Temperature: expected a number of at least 0"),
    ],
)
def test_an_error_is_told_and_nothing_is_lost(refiner: Refiner, form: Form, words: str) -> None:
    before = Session("a dog", ("a dog, 8k",), "a dog, 8k, edited", (Entry("a dog", "a dog, 8k"),))
    after = refine(refiner, before, form)
    assert after.notice is not None and after.notice.is_error and after.notice.text.startswith(words)
    assert replace(after, notice=None) == before


def test_a_prompt_without_room_is_kept_and_told(refiner: Refiner) -> None:
    prompt = "cat " * 75
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the page tells it, and not the terminal
        session = refine(refiner, Session(), Form(prompt))
    assert session.refined_prompt == prompt.strip()
    assert session.notice == Notice("Your prompt fills the 75 tokens that the generator reads; nothing more fits.")


def test_choosing_editing_and_restoring() -> None:
    session = Session("a cat", ("a cat, 8k", "a cat, bokeh"), "a cat, 8k", (Entry("a cat", "a cat, 8k"),))
    session = settle(edit(choose(session, 1), "a cat, soft bokeh"))
    assert session.history == (Entry("a cat", "a cat, soft bokeh"), Entry("a cat", "a cat, 8k"))
    restored = restore(session, 1)
    assert (restored.user_prompt, restored.refined_prompt) == ("a cat", "a cat, 8k")
    assert settle(restored).history == session.history, "the list does not jump"
    emptied = settle(edit(session, " "))
    assert emptied.notice is not None and emptied.notice.is_error and emptied.history == session.history
    typed = settle(edit(Session(), "a dog, 8k"))
    assert typed.user_prompt == "a dog, 8k", "who types there alone has it drawn as it is"


def test_the_history_is_bounded_holds_nothing_twice_and_survives_the_browser() -> None:
    history: tuple[Entry, ...] = ()
    for number in range(MOST_REMEMBERED + 5):
        history = remembered(history, Entry("a cat", f"a cat, {number}"))
    history = remembered(history, Entry("a cat", "a cat, 30"))
    assert len(history) == MOST_REMEMBERED and history[0].refined_prompt == "a cat, 30"
    assert len(set(history)) == MOST_REMEMBERED
    assert history_from_json(history_to_json(history)) == history
    for foreign in (None, "x", {"a": 1}, [1, ["a"], ["a", 2], [["a"], "b"]]):
        assert history_from_json(foreign) == ()


@pytest.mark.parametrize(
    ("refined", "pieces"),
    [
        ("a cat, 8k, a cat", [("a cat", False), (", ", False), ("8k", True), (", ", False), ("a cat", True)]),
        ("a cat", [("a cat", False)]),
        ("one cat, 8k", [("one cat, 8k", False)]),
    ],
)
def test_what_was_added_is_marked(refined: str, pieces: list[tuple[str, bool]]) -> None:
    assert markup.spans("a cat", refined) == pieces


def test_what_is_typed_is_neither_html_nor_a_template() -> None:
    prompt = "<b>{{value}}</b> ${x} `y` \\"
    session = Session(prompt, (prompt + ", 8k", prompt), prompt + ", 8k", (Entry(prompt, prompt + ", 8k"),))
    for html in (
        markup.marked_prompt(session),
        markup.choices(session),
        markup.history_list(session.history),
        markup.notice_line(Notice(prompt)),
        markup.pictures(Board(prompt, prompt, 1, (Pair(0, (Picture(Path("/x.png"), 32, 32, {}),)),))),
    ):
        assert not {"{", "}", "$", "`", "\\"} & set(html) and "<b>{" not in html
        assert "&lt;b&gt;" in html


def test_pairs_come_one_by_one_from_the_same_seeds_with_scores_for_the_user_prompt(
    bench: Workbench, tmp_path: Path
) -> None:
    easel = Easel(bench, tmp_path)
    boards = list(easel.draw("a cat", "a cat, moonlight", [4, 5]))
    assert [len(board.pairs) for board in boards] == [0, 1, 2]
    for pair, seed in zip(boards[-1].pairs, (4, 5), strict=True):
        for picture, text in zip(pair.pictures, ("a cat", "a cat, moonlight"), strict=True):
            image = Renderer()([text], [seed])
            assert picture.scores == {"redness": pytest.approx(Redness()(["a cat"], image).item())}
            with Image.open(picture.path) as stored:
                assert torch.equal(torch.from_numpy(np.array(stored)).permute(2, 0, 1), image[0])
    means = boards[-1].means()["redness"]
    assert means[0] == pytest.approx(sum(pair.pictures[0].scores["redness"] for pair in boards[-1].pairs) / 2)
    assert bench.generator.drawn == 4
    *_, again = easel.draw("a cat", "a cat, 8k", [4, 5])
    assert bench.generator.drawn == 6, "plain pictures are kept"
    assert [len(pair.pictures) for pair in list(easel.draw("a cat", "a cat", [4]))[-1].pairs] == [1]
    html = markup.pictures(again)
    assert html.count("<img") == 4 and html.count('class="crisp"') == 4


def test_scores_and_gains_are_told_by_signs_not_by_colour_alone() -> None:
    def board(plain: float, refined: float) -> str:
        pictures = tuple(Picture(Path("/x.png"), 32, 32, {"reward": score}) for score in (plain, refined))
        return markup.pictures(Board("a cat", "a cat, 8k", 1, (Pair(0, pictures),)))

    assert "▲ +1.50" in board(0.5, 2) and board(0.5, 2).count("▲") == 2
    assert "▼ -1.50" in board(2, 0.5) and board(2, 0.5).count("▼") == 2 and "▲" not in board(2, 0.5)
    assert "= +0.00" in board(2, 2) and "▲" not in board(2, 2)


class Alone(Renderer):
    """A renderer that can draw one thing at a time, as a pipeline can."""

    def __init__(self) -> None:
        super().__init__()
        self.busy = False

    def __call__(self, prompts, seeds):
        assert not self.busy
        self.busy = True
        time.sleep(0.02)
        self.busy = False
        return super().__call__(prompts, seeds)


def test_a_draw_that_was_given_up_does_not_meet_the_next_one(refiner: Refiner, tmp_path: Path) -> None:
    easel = Easel(Workbench(refiner, Alone(), ()), tmp_path)
    with ThreadPoolExecutor(2) as pool:
        draws = [pool.submit(lambda text=text: list(easel.draw("a cat", text, [0, 1, 2]))) for text in ("8k", "bokeh")]
        assert [len(draw.result()[-1].pairs) for draw in draws] == [3, 3]


def test_old_pictures_go(bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prip.inference.page.pictures.KEPT", 3)
    *_, board = Easel(bench, tmp_path).draw("a cat", "a cat, 8k", [0, 1])
    kept = [pair.pictures[place].path for pair in board.pairs for place in (0, 1)][1:]
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_large_images_are_smooth_and_open_at_full_size() -> None:
    pair = Pair(0, (Picture(Path("/x.png"), 512, 512, {}),))
    html = markup.pictures(Board("a cat", "a cat", 1, (pair,)))
    assert 'class="smooth"' in html and 'class="zoom"' in html


def test_drawing_tells_its_errors(bench: Workbench, tmp_path: Path, monkeypatch, caplog) -> None:
    handlers = Handlers(bench.refiner, Easel(bench, tmp_path))
    fields = ["a cat", True, 1, [], 1, "", False, 0, 0, 2]
    session = handlers.refine(Session(), *fields)[0]
    assert [notice for _, notice in handlers.draw(session, *fields)] == [""] * 3
    ((_, notice),) = handlers.draw(session, *fields[:-1], 99)
    assert "Pictures of each prompt: expected a whole number from 0 to 8, got 99." in notice
    ((pictures, notice),) = handlers.draw(refine(bench.refiner, session, Form("")), *fields)
    assert pictures == notice == gr.skip(), "the error of the step before stays"
    for failure, words in (
        (torch.OutOfMemoryError("CUDA"), "Out of memory"),
        (RuntimeError("shapes"), UNFORESEEN[0].upper() + UNFORESEEN[1:]),
    ):
        monkeypatch.setattr(Counting, "__call__", Failing(failure))
        *_, (_, notice) = handlers.draw(edit(session, "a cat, another"), *fields)
        assert f'role="alert">{markup.safe(words)}' in notice
    assert "shapes" in caplog.text


def test_a_checkpoint_without_generator_still_refines(tiny_checkpoint: Path, tmp_path: Path) -> None:
    from prip.inference.page.layout import Page

    bench = Workbench.load(tiny_checkpoint, "cpu")
    assert bench.generator is None and not bench.rewards
    page = Page(bench, None, "tiny")
    assert "no generator" in page.pictures.value and not page.draw.visible
    assert Handlers(bench.refiner, None).refine(Session(), "a cat")[0].refined_prompt.startswith("a cat, ")


def test_another_generator_takes_the_place_of_the_checkpoints(whole_checkpoint: Path) -> None:
    bench = Workbench.load(whole_checkpoint, "cpu", generator="renderer")
    assert isinstance(bench.generator, Renderer) and len(bench.rewards) == 2


def test_bad_input_is_refused_before_torch_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        bad = {
            "unknown checkpoint 'nowhere'": ["--checkpoint", "nowhere"],
            "generator: expected renderer, a folder or owner/name on the Hub": [
                "--generator",
                "nowhere",
            ],
            "port: expected a number from 0 to 65535": ["--port", "70000"],
            f"port {port} of 127.0.0.1 is taken": ["--port", str(port)],
        }
        code = (
            "import sys; from prip.inference.cli import main; "
            f"print([main(['demo', '--no-open', *one]) for one in {[*bad.values()]}]); "
            "print(sorted({'torch', 'transformers', 'diffusers'} & set(sys.modules)))"
        )
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert result.stdout.splitlines() == ["[2, 2, 2, 2]", "[]"]
    for message, line in zip(bad, result.stderr.splitlines(), strict=True):
        assert line.startswith(f"prip demo: error: {message}")


@pytest.mark.parametrize("module", ["gradio", "PIL.Image"])
def test_a_missing_extra_is_named(module: str, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert main(["demo", "--port", "0"]) == 2
    assert 'pip install ".[demo]"' in capsys.readouterr().err


def test_help_has_examples(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["demo", "--help"])
    assert "prip demo --port 8000 --no-open" in capsys.readouterr().out
