"""`prip evaluate` on texts alone: what refiners add."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from prip.errors import InputError
from prip.inference.cli import main
from prip.inference.evaluation.analysis.additions import (
    additions_of,
    contradicts,
    entropy,
    precision,
    precision_differences,
)
from prip.inference.evaluation.kinds.prior import make_real_prompts
from prip.inference.evaluation.kinds.registry import Context, EvaluationPrompt
from prip.prior.concepts import distinct_prompts


def test_precision_is_the_share_of_what_is_added_that_the_writer_added() -> None:
    added = [frozenset(("8k", "bokeh")), frozenset(("8k",)), frozenset[str]()]
    references = [frozenset(("bokeh", "fog")), frozenset(("fog",)), frozenset(("fog",))]
    np.testing.assert_equal(precision(added, references), [0.5, 0.0, np.nan])


def test_entropy_in_bits() -> None:
    assert entropy(Counter(a=2, b=1, c=1)) == pytest.approx(1.5)
    assert entropy(Counter()) == 0


@pytest.mark.parametrize(
    ("prompt", "modifiers", "expected"),
    [
        ("a cat", ["golden hour", "sharp focus", "highly detailed"], False),
        ("a cat at night", ["golden hour"], True),
        ("a cat", ["moonlight", "golden hour"], True),
        ("a watercolor of a cat", ["realistic photo"], True),
        ("a map of Italy", ["photograph"], True),
        ("a cat", ["8k", "4k"], False),
    ],
)
def test_contradictions_by_rule(prompt: str, modifiers: list[str], expected: bool) -> None:
    assert contradicts(prompt, modifiers) is expected


def test_figures_of_a_refiner() -> None:
    prompts = [
        EvaluationPrompt("a cat", references=frozenset(("bokeh",))),
        EvaluationPrompt("a dog", references=frozenset(("8k", "fog"))),
        EvaluationPrompt("an owl at night", references=frozenset(("8k",))),
    ]
    refined = ["a cat, bokeh, 8k", "a dog, fog, 8k", "an owl at night, sunny"]
    figures = additions_of(prompts, refined, draws=200, seed=0)
    assert figures["precision"]["value"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert figures["swapped_precision"]["value"] == pytest.approx(0.5 / 3)  # of bokeh and 8k, for the owl
    assert figures["commonest"] == "8k" and figures["commonest_share"] == pytest.approx(2 / 3)
    assert figures["distinct_suffixes"] == 3 and figures["added"] == pytest.approx(5 / 3)
    assert figures["contradictions"] == pytest.approx(1 / 3)
    assert figures["rewritten"] == 0
    other = additions_of(prompts, ["a caterpillar, 8k", "a dog on a sofa", ""], draws=200, seed=0)
    assert other["rewritten"] == 3 and other["added"] == 0
    unchanged = additions_of(prompts, [prompt.text for prompt in prompts], draws=200, seed=0)
    assert unchanged["precision"] is None and unchanged["added"] == 0
    better = ["a cat, bokeh", "a dog, fog", "an owl at night, 8k"]
    difference = precision_differences(prompts, {"a": refined, "b": better}, ("a", "b"), draws=200, seed=0)
    assert difference is not None and difference["value"] == pytest.approx((0.5 + 0 + 1) / 3)
    unknown = [EvaluationPrompt(prompt.text) for prompt in prompts]
    assert precision_differences(unknown, {"a": refined, "b": better}, ("a", "b"), draws=200, seed=0) is None


@pytest.fixture
def real_prompts_file(tmp_path: Path) -> Path:
    things = ("cat", "dog", "owl", "castle", "robot", "tree", "house", "boat")
    places = ("park", "garden", "desert", "valley", "harbor", "street", "forest", "kitchen")
    lines = [f"a {thing} in a {place}, fog, 8k" for thing in things for place in places]
    path = tmp_path / "real.txt"
    path.write_text("\n".join([*lines, *(line.upper() for line in lines), "a plain prompt"]), encoding="utf-8")
    return path


def test_real_prompts_are_one_per_held_out_series(real_prompts_file: Path) -> None:
    context = Context(parts=None, device="cpu", seed=0)  # type: ignore[arg-type]
    prompts = make_real_prompts("prompts", context, place=str(real_prompts_file), test_share=0.5)
    every = make_real_prompts("prompts", context, place=str(real_prompts_file), test_share=1.0)
    assert len(every) == 64 and 16 < len(prompts) < 48
    assert all(prompt.references == {"fog", "8k"} for prompt in every)
    assert {prompt.text for prompt in prompts} < {prompt.text for prompt in every}
    folder = make_real_prompts("prompts", context, place=str(real_prompts_file.parent), test_share=0.5)
    assert folder == prompts


def test_a_repeated_prompt_keeps_its_place(tmp_path: Path) -> None:
    lines = ["a cat in a garden, 8k", "an owl, 8k, in a tree of an old garden", "a cat in a garden, 8k"]
    assert list(distinct_prompts(lines)) == lines[:2]
    path = tmp_path / "none.txt"
    path.write_text("a cat\n", encoding="utf-8")
    with pytest.raises(InputError, match="held-out series with additions"):
        make_real_prompts("prompts", Context(None, "cpu", 0), place=str(path), test_share=1.0)  # type: ignore[arg-type]


def test_the_command_measures_texts_without_images(
    real_prompts_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", "--config", "additions", "--out", str(tmp_path / "out"), "--quiet", "--device", "cpu"]
    command += ["--prompts", f"real-prompts:{real_prompts_file}", "--refiners", "suffix", "unconditional", "prior-only"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "What is added" in out and "prior-only" in out
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert set(summary["additions"]) == {"none", "suffix", "unconditional", "prior-only"}
    assert summary["additions"]["suffix"]["distinct_suffixes"] == 1
    assert summary["additions"]["none"]["added"] == 0
    assert summary["additions"]["prior-only"]["contradictions"] == 0
    assert (tmp_path / "out" / "tables.md").is_file()
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "refined").rglob("*.parquet")}
    assert made and main(command) == 0
    assert {path: path.stat().st_mtime_ns for path in made} == made, "nothing is refined again"
    assert main([*command, "--generators", "x"]) == 2
    assert "generators: expected none for an evaluation of texts alone" in capsys.readouterr().err
