"""Concepts, series, word vectors and the rules of the preference prior."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from prip.errors import CheckpointError
from prip.prior.concepts import categories, concept_names, concept_of, named_concepts, split_prompt
from prip.prior.preference_prior import PreferencePrior, normalized
from prip.prior.rules import barred_by, clash, contradict, least_lift, never_suggested
from prip.prior.series import position_of, series_of
from prip.prior.suggest import SuggestOptions, suggest
from prip.prior.word_vectors import WordVectors, ngram_buckets


def test_a_prompt_splits_into_head_and_additions() -> None:
    prompt = split_prompt(
        "a portrait of a (red fox:1.2), sitting in the snow at night, Highly-detailed, 8 k, "
        "art by somebody, sci - fi, portrait, not a photo"
    )
    assert prompt.head == "a portrait of a red fox, sitting in the snow at night"
    assert prompt.named == {"portrait", "snow", "night"}
    assert prompt.added == ("highly detailed", "8k", "science fiction")
    assert split_prompt("a cat. ").added == () and split_prompt(" ,, ").head == ""


def test_a_wording_belongs_to_one_concept() -> None:
    names = concept_names()
    assert len(names) == len(set(names)) > 150
    assert all(concept_of(name) == name for name in names)
    assert concept_of("Sci-Fi") == "science fiction" and concept_of("a cat") is None
    assert named_concepts("no bokeh, a city at night") == {"night"}


def test_prompts_that_share_a_beginning_or_a_tail_are_one_series() -> None:
    tail = ", intricate, elegant, highly detailed, artstation"
    prompts = [
        "a castle on a hill in spring",
        "A castle on a hill in autumn, oil painting",
        "an owl" + tail,
        "two robots" + tail,
        "a cat",
        "a dog",
    ]
    series = series_of(prompts)
    assert series[0] == series[1] and series[2] == series[3]
    assert len(set(series)) == 4


def test_a_series_falls_where_its_name_and_seed_say() -> None:
    positions = [position_of(f"prompt {index}") for index in range(2000)]
    assert min(positions) >= 0 and max(positions) < 1
    assert abs(np.mean(positions) - 0.5) < 0.03
    assert position_of("a cat") == position_of("a cat") != position_of("a cat", seed=1)


def vectors() -> WordVectors:
    generator = np.random.default_rng(0)
    ngrams = generator.integers(-127, 128, (64, 2), dtype=np.int8)
    return WordVectors(["cat", "red"], np.array([[127, 0], [0, -127]], np.int8), np.array([3, 1], np.float32), ngrams)


def test_a_text_is_the_weighted_mean_of_its_words() -> None:
    np.testing.assert_allclose(vectors()(["red cat", "", "CAT!!!"]), [[0.75, -0.25], [0, 0], [1, 0]])


def test_an_unknown_word_is_the_mean_of_its_ngrams() -> None:
    table = vectors()
    buckets = list(ngram_buckets("owl", 64))
    assert len(buckets) == 3 + 2 + 1  # <ow owl wl>, <owl owl>, <owl>
    np.testing.assert_allclose(table(["owl"])[0], table.ngrams[buckets].mean(axis=0) / 127, rtol=1e-5)


def prior(likelier: str = "bokeh") -> PreferencePrior:
    """For "cat", this concept is likelier than for any prompt."""
    concepts = len(concept_names())
    output = np.zeros((concepts, 1), np.float32)
    output[concept_names().index(likelier)] = 2
    tables = {
        "hidden.weight": np.array([[1, 0]], np.float32),
        "hidden.bias": np.zeros(1, np.float32),
        "output.weight": output,
        "base": np.full(concepts, 0.1, np.float32),
        "support": np.full(concepts, 9, np.float32),
        "position": np.linspace(0, 1, concepts, dtype=np.float32),
    }
    return PreferencePrior(vectors(), tables)


def test_probabilities_are_those_of_the_network() -> None:
    column = concept_names().index("bokeh")
    odds = np.log(0.1 / 0.9) + 2 * np.sqrt(2)  # a unit vector of two components is scaled to sqrt(2)
    known = prior()(["cat"])
    assert known.dtype == np.float32 and known.shape == (1, len(concept_names()))
    np.testing.assert_allclose(known[0, column], 1 / (1 + np.exp(-odds)), rtol=1e-5)
    np.testing.assert_allclose(np.delete(known[0], column), 0.1, rtol=1e-5)
    np.testing.assert_allclose(prior()([""])[0], 0.1, rtol=1e-5)
    np.testing.assert_allclose(
        normalized(np.array([[3, 4], [0, 0]], np.float32)), [[0.6 * 2**0.5, 0.8 * 2**0.5], [0, 0]]
    )


def test_a_prior_is_read_as_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prior().save(tmp_path)
    np.testing.assert_allclose(PreferencePrior.load(tmp_path)(["red cat"]), prior()(["red cat"]), rtol=1e-3)
    monkeypatch.setattr("prip.prior.preference_prior.concept_names", lambda: ("other",))
    with pytest.raises(CheckpointError, match="fit it again"):
        PreferencePrior.load(tmp_path)


def test_suggestions_are_specific_coherent_and_in_the_users_order() -> None:
    (suggested,) = suggest(prior(), ["cat"], SuggestOptions(count=4))
    assert "bokeh" in suggested and len(suggested) == 4
    order = [concept_names().index(concept) for concept in suggested]
    assert order == sorted(order)
    assert not any(clash(left, [right]) for left, right in combinations(suggested, 2))
    (again,) = suggest(prior(), ["cat, shallow depth of field"], SuggestOptions(count=4))
    assert "bokeh" not in again  # one thing of this kind is named already


def test_rare_unspecific_and_unwanted_concepts_are_not_suggested() -> None:
    small = prior("pixel art")
    assert "pixel art" in suggest(small, ["cat"])[0]
    assert "pixel art" not in suggest(small, ["red"])[0]  # no likelier than for any prompt
    small.support[:] = 3
    assert suggest(small, ["cat"]) == [[]]
    assert not never_suggested() & {concept for row in suggest(prior(), ["cat", "red"]) for concept in row}


def test_a_word_of_the_prompt_bars_what_does_not_fit_it() -> None:
    assert "black and white" in barred_by("a RED car") and "photograph" in barred_by("a map of Italy")
    assert not barred_by("a cat")
    assert "bokeh" in suggest(prior(), ["cat"])[0] and "bokeh" not in suggest(prior(), ["cat map"])[0]


def test_what_the_prompt_refuses_is_not_suggested() -> None:
    for prompt in ("cat, no bokeh", "cat without any blurred background", "cat, neither 8k nor bokeh"):
        assert "bokeh" in barred_by(prompt) and "bokeh" not in suggest(prior(), [prompt])[0]


def test_another_value_of_a_named_attribute_is_not_suggested() -> None:
    small = prior("moonlight")
    assert "moonlight" in suggest(small, ["cat"])[0]
    assert "moonlight" not in suggest(small, ["cat, softbox"])[0]  # studio light, by the table of attributes


def test_the_rules_name_concepts_and_are_symmetric() -> None:
    names = set(concept_names())
    assert never_suggested() | set(least_lift()) <= names
    assert barred_by("map flag day food room stone") <= names
    for first, second in combinations(sorted(names), 2):
        assert clash(first, [second]) == clash(second, [first])
        assert contradict(first, [second]) == contradict(second, [first])
        assert clash(first, [second]) or not contradict(first, [second])
    assert contradict("night", ["natural lighting"]) and not contradict("8k", ["4k"]) and clash("8k", ["4k"])
    assert all(clash(concept, [concept]) for category in categories().values() for concept in category)
