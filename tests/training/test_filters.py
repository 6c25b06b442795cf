"""Which rows are used: filters by what the metadata tells, and prompts that the evaluation sets hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_diffusiondb import read, write

from prip.errors import CheckpointError, InputError
from prip.training.data.evaluation_sets import jaccard, ngrams, normalise, occurring, read_evaluation_prompts
from prip.training.data.filters import filter_rows

OPTIONS = {"similarity": 0.8, "ngram": 5, "permutations": 128}


def rows() -> pd.DataFrame:
    nan = float("nan")
    return pd.DataFrame(
        [("a", 0.1, 0.1, 1), ("b", 2.0, 0.9, 2), ("c", 0.8, 0.1, 3), ("d", 0.1, 0.9, 4), ("e", nan, nan, 5)]
        + [("f", 0.8, 0.2, 6), ("g", 0.2, 0.2, 6), ("h", 0.3, 0.3, 6)],
        columns=["image_name", "image_nsfw", "prompt_nsfw", "drawing"],
    )


def test_filters_by_hand() -> None:
    passed, counts = filter_rows(rows(), 0.5, 0.5, False, False)
    assert passed["image_name"].tolist() == ["a", "e", "g"] and passed.index.tolist() == [0, 4, 6]
    assert counts == {"blurred": 1, "image_nsfw": 2, "prompt_nsfw": 1, "duplicates": 1}
    passed, counts = filter_rows(rows(), 1.0, 1.0, False, False)
    assert passed["image_name"].tolist() == ["a", "c", "d", "e", "f"]
    assert counts == {"blurred": 1, "image_nsfw": 0, "prompt_nsfw": 0, "duplicates": 2}
    passed, counts = filter_rows(rows(), 1.0, 1.0, True, True)
    assert len(passed) == 8 and set(counts.values()) == {0}


def test_metadata_tells_scores_and_repeated_drawings(tmp_path: Path) -> None:
    names = write(tmp_path)["image_name"].tolist()
    path = tmp_path / "metadata.parquet"
    table = pd.read_parquet(path)
    table.loc[2, "image_nsfw"], table.loc[3, "prompt_nsfw"] = 2.0, 0.75
    same = ["prompt", "seed", "step", "cfg", "sampler", "width", "height"]
    table.loc[1, same] = table.loc[0, same].to_list()
    table.loc[5, [name for name in same if name != "width"]] = table.loc[4, [n for n in same if n != "width"]].to_list()
    table.to_parquet(path)
    for part in (tmp_path / "images").iterdir():
        (part / f"{part.name}.json").unlink()
    found = read(tmp_path).rows
    assert found["image_nsfw"].tolist() == [0, 0, 2] + [0] * 9 and found["prompt_nsfw"].tolist()[3] == 0.75
    passed, counts = filter_rows(found, 0.9, 0.7, False, False)
    assert counts == {"blurred": 1, "image_nsfw": 0, "prompt_nsfw": 1, "duplicates": 2}
    assert passed["image_name"].tolist() == [names[0], names[4], *names[6:]]
    path.unlink()
    assert read(tmp_path).rows.empty


def test_without_metadata_nothing_is_told(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "metadata.parquet").unlink()
    found = read(tmp_path).rows
    assert np.isnan(found["image_nsfw"]).all() and found["drawing"].is_unique
    assert len(filter_rows(found, 0.0, 0.0, False, False)[0]) == 12


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "a cat\n\n a dog \na cat\n"),
        ("a.tsv", 'Prompt\tCategory\na cat\t"x\na dog\ty\n'),
        ("a.csv", 'id,prompt\n1,a cat\n2,"a dog"\n3,\n'),
        ("a.json", json.dumps(["a cat", "a dog"])),
        ("b.json", json.dumps([{"prompt": "a cat", "id": "x"}, {"prompt": "a dog"}])),
        ("c.json", json.dumps({"anime": ["a cat"], "photo": ["a dog"], "version": "1"})),
    ],
)
def test_evaluation_sets_in_all_their_kinds(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_evaluation_prompts(tmp_path / name, "prompt") == ["a cat", "a dog"]


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("a.txt", "\n", InputError, "expected at least one prompt"),
        ("a.csv", "text\na cat\n", InputError, r"columns \(text\), got 'prompt'"),
        ("a.json", "{", CheckpointError, "cannot be read"),
        ("a.json", '{"a": "b"}', InputError, "expected at least one prompt"),
        ("a.xlsx", "", InputError, "expected .txt, .tsv, .csv or .json"),
        ("a.txt", None, CheckpointError, "is missing"),
    ],
)
def test_evaluation_sets_that_tell_nothing(
    tmp_path: Path, name: str, content: str | None, error: type[Exception], message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(error, match=message):
        read_evaluation_prompts(tmp_path / name, "prompt")


def test_prompts_that_occur_exactly_and_nearly() -> None:
    evaluation = ["A large brown horse, standing in a field of flowers.", "bond", "!!!"]
    prompts = [
        "a large brown  horse standing in a field of flowers",
        "a large brown horse standing in a field of flower",
        "a large brown horse standing in a field of flowers, golden hour, sharp focus, highly detailed, artstation",
        "Bond!",
        "bonds",
        "?",
    ]
    found = occurring(prompts, evaluation, **OPTIONS)
    assert found[["prompt", "kind"]].to_numpy().tolist() == [
        [prompts[0], "exact"],
        [prompts[3], "exact"],
        [prompts[1], "near"],
    ]
    assert found["evaluation_prompt"].tolist() == [evaluation[0], evaluation[1], evaluation[0]]
    near = found["similarity"].iloc[2]
    grams = [ngrams(normalise(text), 5) for text in (prompts[1], evaluation[0])]
    assert near == jaccard(*grams) == pytest.approx(45 / 46)
    only = occurring(prompts, evaluation, 0.0, 5, 128)
    assert only["kind"].tolist() == ["exact", "exact"]
    assert occurring(prompts, [], **OPTIONS).empty and occurring([], evaluation, **OPTIONS).empty


def test_near_duplicates_among_real_prompts_are_those_of_an_exact_search(real_data: Callable[[str], Path]) -> None:
    evaluation = read_evaluation_prompts(real_data("diffusiondb_prompts.txt"), "prompt")[:400]
    prompts = read_evaluation_prompts(real_data("diffusiondb_prompts.txt"), "prompt")[400:1400]
    own = {text: ngrams(normalise(text), 5) for text in {*evaluation, *prompts}}
    wanted = {prompt for prompt in prompts if max(jaccard(own[prompt], own[other]) for other in evaluation) >= 0.8}
    found = occurring(prompts, evaluation, **OPTIONS)
    assert set(found["prompt"]) <= wanted, "what is found is measured"
    assert len(set(found["prompt"])) >= 0.95 * len(wanted) and len(wanted) >= 10, (len(found), len(wanted))


def test_parti_prompts_are_read(real_data: Callable[[str], Path]) -> None:
    assert len(read_evaluation_prompts(real_data("PartiPrompts.tsv"), "prompt")) >= 1600
