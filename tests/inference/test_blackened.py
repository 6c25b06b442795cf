"""No image that a safety checker blackened is scored in evaluations, searches and comparisons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from painters import GOOD, Judge, Painter

from prip.inference.commands.compare import _print_scores
from prip.inference.comparison.sheet import Column, draw_sheet
from prip.inference.comparison.workbench import Workbench
from prip.inference.evaluation.kinds.refiners import SuffixRefiner
from prip.inference.evaluation.kinds.registry import EvaluationPrompt
from prip.inference.evaluation.kinds.search import Gallery, mean_scores
from prip.inference.evaluation.work.images import ImageStore
from prip.inference.evaluation.work.measuring import BLACKENED, Measurer
from prip.inference.evaluation.work.refining import refine_chunk


class Checked(Painter):
    """A painter whose checker blackens refined cats."""

    has_safety_checker = True

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> torch.Tensor:
        images = super().__call__(prompts, seeds)
        for row, prompt in enumerate(prompts):
            images[row] = 0 if prompt.startswith("a cat,") else images[row].clamp(min=1)
        return images


class Strict(Judge):
    """Fails for a black image."""

    def __call__(self, user_prompts: Sequence[str], images: torch.Tensor) -> torch.Tensor:
        assert len(user_prompts) == len(images) > 0 and (images.flatten(1).amax(dim=1) > 0).all()
        return super().__call__(user_prompts, images)


def test_evaluate_keeps_the_row_without_a_score(tmp_path: Path) -> None:
    prompts = list(enumerate([EvaluationPrompt("a cat"), EvaluationPrompt("a dog")]))
    refiners = [SuffixRefiner("none", ()), SuffixRefiner("good", GOOD[:2])]
    refined = {refiner.name: refine_chunk(refiner, prompts, 2, 0) for refiner in refiners}
    for _ in range(2):  # drawn, then from the store
        measurer = Measurer("painter", Checked(), {"truth": Strict("truth")}, ImageStore(tmp_path))
        table = measurer.measure(prompts, refined, 2, 0)
        black = (table["refiner"] == "good") & (table["user_prompt"] == "a cat")
        assert (table.loc[black, "error"] == f"generator 'painter': {BLACKENED}").all() and black.sum() == 2
        assert table.loc[black, "score:truth"].isna().all() and (table.loc[black, "image"] != "").all()
        assert table.loc[~black, "score:truth"].notna().all() and (table.loc[~black, "error"] == "").all()


def test_a_search_neither_scores_nor_chooses_it() -> None:
    gallery = Gallery(Checked(), Strict("truth"))
    scores = gallery.scores(["a cat"] * 2, ["a cat", "a cat, fog"], [1, 1])
    assert np.isnan(scores).tolist() == [False, True]
    means = mean_scores(np.array([[1.0, math.nan], [math.nan, math.nan], [2.0, 4.0]]))
    assert means.tolist() == [1.0, -math.inf, 3.0]


def test_compare_leaves_the_seed_out_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    class OnlySeedTwo(Checked):
        def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> torch.Tensor:
            images = Painter.__call__(self, prompts, seeds).clamp(min=1)
            for row, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
                images[row] = 0 if "," in prompt and seed == 2 else images[row]
            return images

    bench = Workbench(refiner=None, generator=OnlySeedTwo(), rewards=(Strict("truth"),))  # type: ignore[arg-type]
    columns = bench.before_after("a cat", "a cat, fog", [1, 2])
    assert [math.isnan(score) for score in columns[1].scores["truth"]] == [False, True]
    assert draw_sheet(columns, [1, 2]).startswith(b"\x89PNG")
    _print_scores(columns)
    printed = capsys.readouterr().out
    first = [column.scores["truth"][0] for column in columns]
    assert f"{first[0]:>9.3f}  {first[1]:>9.3f}" in printed
    assert "1 of 2 seeds left out: the safety checker blackened an image" in printed
    nothing = [Column("plain", "a cat", columns[0].images, {"truth": [math.nan, math.nan]}), columns[1]]
    _print_scores(nothing)
    assert printed.count("nan") == 0 and "no score" in capsys.readouterr().out
