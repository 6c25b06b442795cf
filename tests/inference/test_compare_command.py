"""`prip compare`, with the renderer in the place of a diffusion pipeline."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFont

from prip.errors import InputError, MissingExtraError
from prip.inference.checkpoint_parts import Parts, load_refiner, load_rewards
from prip.inference.cli import main
from prip.inference.comparison.sheet import BETTER, MARGIN, Column, draw_sheet, file_format
from prip.inference.comparison.workbench import Workbench
from prip.miniature.renderer import Renderer
from prip.pictures import font_of, left_out, length


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prip.generators.load_generator", lambda *given, **options: Renderer())


def compare(checkpoint: Path, target: Path, *options: str) -> int:
    return main(["compare", "a cat", "-o", str(target), "--checkpoint", str(checkpoint), "--device", "cpu", *options])


def test_the_command_writes_a_picture_and_prints_prompts_and_scores(
    whole_checkpoint: Path, tmp_path: Path, rendered: None, capsys
) -> None:
    target = tmp_path / "new" / "cat.png"
    assert compare(whole_checkpoint, target, "--seed", "4", "--images", "3") == 0
    lines = capsys.readouterr().out.splitlines()
    parts = Parts.of_checkpoint(str(whole_checkpoint))
    refined = load_refiner(parts.encoder, parts.decoder, "tiny", "cpu").counted_by(Renderer()).refine("a cat", seed=4)
    assert lines[:2] == ["plain    a cat", f"refined  {refined}"]
    seeds = [4, 5, 6]
    for line, reward in zip(lines[4:6], load_rewards(parts.rewards, "cpu"), strict=True):
        means = [float(reward(["a cat"] * 3, Renderer()([text] * 3, seeds)).mean()) for text in ("a cat", refined)]
        assert line.split() == [reward.name, f"{means[0]:.3f}", f"{means[1]:.3f}"]
    with Image.open(target) as picture:
        assert picture.format == "PNG"
        pixels = torch.from_numpy(np.array(picture.crop((MARGIN, 60, MARGIN + 320, 380))))
    assert torch.equal(pixels[::10, ::10].permute(2, 0, 1), Renderer()(["a cat"], [4])[0])
    assert [path.name for path in target.parent.iterdir()] == ["cat.png"]
    first = target.read_bytes()
    assert compare(whole_checkpoint, target, "--seed", "4", "--images", "3") == 0
    assert target.read_bytes() == first


class Short(Renderer):
    """A renderer that reads 40 tokens, a character each."""

    token_limit = 40

    def count_tokens(self, text: str) -> int:
        return len(text)


def test_the_refined_prompt_fits_the_generator_as_it_counts(
    whole_checkpoint: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr("prip.generators.load_generator", lambda *given, **options: Short())
    assert compare(whole_checkpoint, tmp_path / "cat.png", "--images", "1") == 0
    refined = capsys.readouterr().out.splitlines()[1].removeprefix("refined  ")
    assert refined > "a cat, " and len(refined.replace(" ", "")) <= 40
    parts = Parts.of_checkpoint(str(whole_checkpoint))
    refiner = load_refiner(parts.encoder, parts.decoder, "tiny", "cpu")
    assert refined == refiner.counted_by(Short()).refine("a cat")
    assert len(refiner.refine("a cat")) > 60, "CLIP counts fewer"


LONG = "a very old man with a long white beard who sits by the warm fire of a small wooden house in a forest"


def test_a_prompt_that_comes_back_unchanged_is_drawn_once(
    whole_checkpoint: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    drawn = []

    class Counted(Short):
        def __call__(self, prompts, seeds):
            drawn.extend(prompts)
            return super().__call__(prompts, seeds)

    monkeypatch.setattr("prip.generators.load_generator", lambda *given, **options: Counted())
    target = tmp_path / "x.png"
    assert main(["compare", LONG, "-o", str(target), "--checkpoint", str(whole_checkpoint), "--device", "cpu"]) == 0
    told = capsys.readouterr()
    assert drawn == [LONG] * 2
    assert told.out.splitlines()[0] == f"plain  {LONG}" and "refined" not in told.out
    assert told.err.splitlines() == [
        f"loading {whole_checkpoint} ...",
        "prip compare: warning: 1 prompt was returned unchanged: no modifier fits within the generator's limit of 40 "
        f"tokens and max_new_tokens=60: '{LONG[:57]}...'",
        "prip compare: note: the plain and the refined prompt are identical and drawn once",
    ]
    with Image.open(target) as picture:
        assert tuple(bytes.fromhex(BETTER[1:])) not in {colour for _, colour in picture.getcolors(1 << 20)}


def test_nobody_wins_a_tie(tmp_path: Path) -> None:
    sides = [replace(column, scores={"reward": [0.5, 0.501]}) for column in columns(32)]
    (tmp_path / "x.png").write_bytes(draw_sheet(sides, [0, 1]))
    with Image.open(tmp_path / "x.png") as picture:
        assert tuple(bytes.fromhex(BETTER[1:])) not in {colour for _, colour in picture.getcolors(1 << 20)}


def test_progress_is_asked_of_a_pipeline_that_has_it(whole_checkpoint: Path) -> None:
    shown = []

    class Slow(Renderer):
        show_progress = staticmethod(shown.append)

    bench = Workbench(None, Slow(), ())
    bench.before_after("a cat", "a cat, bokeh", [0])
    assert shown == []
    bench.before_after("a cat", "a cat, bokeh", [0], progress=True)
    assert shown == ["drawing plain", "drawing refined", None]
    assert [column.title for column in Workbench(None, Renderer(), ()).before_after("a", "a, b", [0], True)]


def missing_fonts(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr("prip.pictures.FILES", names)
    font_of.cache_clear()


def test_a_character_is_written_in_a_font_that_has_it_or_left_out(tmp_path: Path, monkeypatch, request) -> None:
    request.addfinalizer(font_of.cache_clear)
    missing_fonts(monkeypatch)
    assert left_out("a caf\u00e9, \u98df\u98df") == "\u00e9\u98df", "Pillow's own font knows no accents"
    assert length("a caf\u00e9", 17) == length("a caf", 17) > 0
    assert left_out("a cat\ufe0f") == "", "what is not seen is not missed"
    sheets = [draw_sheet(columns(32, prompt), [0, 1]) for prompt in ("a caf", "a caf\u00e9")]
    assert sheets[0] == sheets[1], "no box"
    try:
        ImageFont.truetype("DejaVuSans.ttf", 17)
    except OSError:
        return
    missing_fonts(monkeypatch, "no such font.ttf", "DejaVuSans.ttf")
    assert left_out("a caf\u00e9") == "" and left_out("e\u0301") == "", "composed first"
    assert length("a caf\u00e9", 17) > length("a caf", 17) + 3


def columns(size: int, prompt: str = "a cat", count: int = 2) -> list[Column]:
    images = torch.zeros(count, 3, size, size, dtype=torch.uint8)
    return [
        Column("plain", prompt, images, {"reward": [0.0] * count}),
        Column("refined", prompt + ", golden hour", images, {"reward": [1.0] * count}),
    ]


@pytest.mark.parametrize(("size", "side"), [(32, 320), (64, 320), (512, 512)])
def test_small_images_are_magnified_and_large_ones_kept(size: int, side: int, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(draw_sheet(columns(size), [0, 1]))
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.width == 2 * side + 16 + 2 * MARGIN
        assert picture.height > 2 * side
        colours = {colour for _, colour in picture.getcolors(1 << 20)}
    assert tuple(bytes.fromhex(BETTER[1:])) in colours


def test_long_prompts_and_long_words_are_wrapped(tmp_path: Path) -> None:
    heights = []
    for prompt in ("a cat", "a cat " * 40, "x" * 400):
        (tmp_path / "x.png").write_bytes(draw_sheet(columns(32, prompt.strip()), [0, 1]))
        with Image.open(tmp_path / "x.png") as picture:
            heights.append(picture.height)
            margin = picture.crop((picture.width - MARGIN + 2, 0, picture.width, picture.height))
            assert margin.getcolors() == [(margin.width * margin.height, (255, 255, 255))]
    assert heights[1] > heights[0] and heights[2] > heights[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", " ", "-o", "x.png"], "prompt: expected at least one word"),
        (["compare", "a cat", "-o", "x.png", "--images", "0"], "images: expected a whole number of at least 1, got 0"),
        (["compare", "a cat", "-o", "x.txt"], "expected an image type such as cat.png"),
        (["compare", "a cat", "-o", "x"], "expected an image type such as cat.png"),
        (["compare", "a cat", "-o", "x.png", "--checkpoint", "nowhere"], "unknown checkpoint 'nowhere'"),
    ],
)
def test_bad_options_are_named(arguments: list[str], message: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_bad_input_is_refused_before_torch_is_loaded(tmp_path: Path) -> None:
    target = str(tmp_path / "new" / "x.png")
    bad = {
        "prompt: expected": [" ", "-o", target],
        "images: expected a whole number of at least 1, got -1": ["a cat", "-o", target, "--images", "-1"],
        "output: expected an image type": ["a cat", "-o", f"{target}.txt"],
        "unknown checkpoint 'nowhere'": ["a cat", "-o", target, "--checkpoint", "nowhere"],
    }
    code = (
        "import sys; from prip.inference.cli import main; "
        f"print([main(['compare', *one]) for one in {[*bad.values()]}]); "
        "print(sorted({'torch', 'transformers', 'diffusers'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == ["[2, 2, 2, 2]", "[]"]
    for message, line in zip(bad, result.stderr.splitlines(), strict=True):
        assert line.startswith(f"prip compare: error: {message}")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("module", ["PIL.Image", "diffusers"])
def test_a_missing_extra_is_named(module: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert main(["compare", "a cat", "-o", str(tmp_path / "x.png")]) == 2
    assert 'pip install ".[generate]"' in capsys.readouterr().err
    if module == "PIL.Image":
        with pytest.raises(MissingExtraError):
            draw_sheet(columns(32), [0, 1])


def test_formats_go_by_the_ending() -> None:
    assert (file_format(".PNG"), file_format(".jpg")) == ("PNG", "JPEG")
    with pytest.raises(InputError, match=r"expected an image type such as cat.png, got '.psd'"):
        file_format(".psd")
