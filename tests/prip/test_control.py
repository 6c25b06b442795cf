"""Control over what is added, as a user asks for it."""

from __future__ import annotations

import warnings
from itertools import combinations
from statistics import mean

import numpy as np
import pytest

import prip
from prip.control.attributes import kept_and_banned, named_values
from prip.control.faults import faults, unwanted_faults
from prip.control.styles import styles
from prip.errors import InputError, PripWarning
from prip.refine_batch import first_share
from prip.refiner import Refiner
from prip.text.clip_tokens import count_clip_tokens
from prip.text.prompts import modifiers_added, own_words
from prip.text.words import spaced_words

PROMPTS = [
    "a cat",
    "a cat, watercolor",
    "a photo of a dog in winter",
    "a castle in moonlight",
    "a robot, black and white",
]
LONG = [
    "a portrait of an old fisherman with a red hat standing on the beach in the rain with his dog and a small wooden "
    "boat behind him, seagulls in the grey sky, waves and foam on the stones" + ", and a lighthouse far away" * number
    for number in range(5)
]


@pytest.fixture(scope="module")
def refiner() -> Refiner:
    return Refiner.from_pretrained("prip-mini", device="cpu")


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_same_text_whatever_the_batch(refiner: Refiner, temperature: float) -> None:
    options = {"temperature": temperature, "styles": ["ink"], "no_artists": True, "strength": 0.6}
    together = refiner.refine(PROMPTS, **options)
    assert together == [refiner.refine(prompt, **options) for prompt in PROMPTS]
    assert together == refiner.refine(PROMPTS, batch_size=2, **options)


def test_default_call_keeps_attributes(refiner: Refiner) -> None:
    assert refiner(PROMPTS, range(5)) == refiner.refine(PROMPTS)
    assert refiner(PROMPTS, range(5)) != refiner.refine(PROMPTS, keep_attributes=False)


@pytest.mark.parametrize("style", styles())
def test_a_style_stands_behind_the_users_words_and_is_kept(refiner: Refiner, style: str) -> None:
    text = refiner.refine("a cat", styles=[style])
    assert text.startswith(f"a cat, {styles()[style]}, ")
    assert text == refiner.refine(f"a cat, {styles()[style]}"), "as if typed"
    _, banned = kept_and_banned(named_values(styles()[style]))
    added = spaced_words(text.removeprefix(f"a cat, {styles()[style]},"))
    assert not [term for term in banned if f" {term}" in added]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_strength_is_monotone(refiner: Refiner, temperature: float) -> None:
    strengths = [0, 0.01, 0.2, 0.35, 0.5, 0.51, 0.8, 1]
    texts = [refiner.refine(PROMPTS, strength=one, temperature=temperature, seed=4) for one in strengths]
    assert texts[0] == PROMPTS
    for weaker, stronger in zip(texts, texts[1:], strict=False):
        for one, other in zip(weaker, stronger, strict=True):
            assert other == one or other.startswith(one + ",")
    assert texts[-1] == refiner.refine(PROMPTS, temperature=temperature, seed=4)
    counts = [[len(modifiers_added(*pair)) for pair in zip(PROMPTS, own, strict=True)] for own in texts]
    assert counts[1] == [1] * 5
    assert counts[4] == [-(-count // 2) for count in counts[-1]]


def test_strength_0_returns_the_prompt_and_loads_nothing(refiner: Refiner) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert refiner.refine(" a cat. ", strength=0, token_budget=1, styles=["ink"]) == " a cat. "
        assert refiner.refine(["a cat", "a dog"], strength=0.0, num_alternatives=3) == [["a cat"], ["a dog"]]
        assert prip.refine("a cat", "no-such-model", strength=0) == "a cat"
    with pytest.raises(InputError, match="expected at least one word"):
        prip.refine(["a cat", " "], "no-such-model", strength=0)


def test_first_share_cuts_between_modifiers() -> None:
    actions = [5, 6, 0, 7, 0, 8, 9, 1]
    assert first_share(actions, 1.0, 0) == actions
    assert first_share(actions, 0.67, 0) == actions
    assert first_share(actions, 2 / 3, 0) == first_share(actions, 0.5, 0) == [5, 6, 0, 7]
    assert first_share(actions, 1 / 3, 0) == first_share(actions, 1e-9, 0) == [5, 6]


@pytest.mark.parametrize("strength", [1.0, 0.1])
def test_alternatives_differ_from_one_another(refiner: Refiner, strength: float) -> None:
    lists = refiner.refine(PROMPTS, num_alternatives=4, strength=strength)
    assert [own[0] for own in lists] == refiner.refine(PROMPTS, strength=strength)
    for prompt, texts in zip(PROMPTS, lists, strict=True):
        assert len(set(texts)) == 4
        sets = [set(modifiers_added(prompt, text)) for text in texts]
        shared = mean(len(one & other) / len(one | other) for one, other in combinations(sets, 2))
        assert shared < 0.6
        assert texts == refiner.refine(prompt, num_alternatives=4, strength=strength)
        assert texts[:2] == refiner.refine(prompt, num_alternatives=2, strength=strength)


@pytest.mark.parametrize("temperature", [0.0, 0.3, 1.0])
def test_more_alternatives_begin_as_fewer_do(refiner: Refiner, temperature: float) -> None:
    many = refiner.refine(PROMPTS, num_alternatives=12, temperature=temperature, strength=0.1)
    assert [texts[0] for texts in many] == refiner.refine(PROMPTS, temperature=temperature, strength=0.1)
    for count in (2, 5):
        few = refiner.refine(PROMPTS, num_alternatives=count, temperature=temperature, strength=0.1)
        assert few == [texts[:count] for texts in many]


def test_a_weaker_text_is_the_beginning_of_a_stronger_one(refiner: Refiner) -> None:
    for temperature in (0.0, 1.0):
        weak, strong = (refiner.refine(PROMPTS, strength=one, temperature=temperature) for one in (0.4, 1.0))
        assert all(other.startswith(one + ", ") for one, other in zip(weak, strong, strict=True))


FAULTY = [f"a {subject}, {style}" for subject in ("cat", "castle", "robot") for style in ("ink", "sketch", "anime")]


def test_no_fault_is_asked_for_that_is_not_named(refiner: Refiner) -> None:
    def faulty(texts: list[str]) -> int:
        added = [f" {' , '.join(modifiers_added(prompt, text))}" for prompt, text in zip(FAULTY, texts, strict=True)]
        terms = [term for kind in faults().values() for term in kind]
        return sum(any(f" {term}" in own for term in terms) for own in added)

    sampled = {"temperature": 1.0, "top_p": 1.0}
    assert faulty(refiner.refine(FAULTY)) == faulty(refiner.refine(FAULTY, **sampled)) == 0
    assert sum(faulty(refiner.refine(FAULTY, allow_faults=True, seed=seed, **sampled)) for seed in range(4)) > 0


def test_named_faults_are_allowed() -> None:
    assert "blurry" in unwanted_faults("a cat") and "watermark" in unwanted_faults("a blurry cat")
    assert "unfocused" not in unwanted_faults("a blurry cat"), "of the same kind"
    assert "blurry" in unwanted_faults("a cat, not blurry")


def test_a_weight_at_the_end_of_parts_stays_there(refiner: Refiner) -> None:
    weighted = "a cat AND a dog :1.2"
    with pytest.warns(PripWarning, match="1 prompt was returned unchanged: nothing may follow the weight.*'a cat AND"):
        texts = refiner.refine([weighted, "a clock, 12:30"])
    assert texts[0] == weighted
    assert texts[1].startswith("a clock, 12:30, ")


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-30])
def test_next_to_temperature_0_is_greedy(refiner: Refiner, temperature: float) -> None:
    assert refiner.refine(PROMPTS, temperature=temperature, top_p=1.0) == refiner.refine(PROMPTS)
    for text in refiner.refine(PROMPTS, temperature=temperature, top_p=0.2, max_new_tokens=300, token_budget=300):
        assert "aaa" not in text and len(text) < 300


@pytest.mark.parametrize("end", [".", ",", "...", " ", "\n"])
def test_what_stands_behind_the_last_word_changes_nothing(refiner: Refiner, end: str) -> None:
    for options in ({}, {"temperature": 1.0}):
        assert refiner.refine("a cat" + end, **options) == refiner.refine("a cat", **options)


def test_commas_stand_between_banned_terms(refiner: Refiner) -> None:
    together, apart = (refiner.refine("a cat", banned_terms=terms) for terms in (["hour, bokeh,"], ["hour", "bokeh"]))
    assert together == apart
    assert "hour" not in apart and "bokeh" not in apart


@pytest.mark.parametrize("number", [np.int64(3), np.float32(0.5)])
def test_numbers_of_numpy_are_numbers(refiner: Refiner, number: np.number) -> None:
    whole = isinstance(number, np.integer)
    options = {"seed": number} if whole else {"strength": number, "temperature": number, "top_p": number}
    plain = {name: number.item() for name in options}
    assert refiner.refine("a cat", **options) == refiner.refine("a cat", **plain)


@pytest.mark.parametrize(
    ("prompt", "plain"),
    [
        ("((a cat:1.3)), <lora:x:0.8>", "a cat"),
        ("a [dog:cat:0.5]", "a cat"),
        ("(a {cat}, watercolor:0.9)", "a cat, watercolor"),
        ("a cat,\nwatercolor", "a cat, watercolor"),
        ("a\tcat", "a cat"),
        ("a cat :1.2 AND a dog", "a cat AND a dog"),
    ],
)
def test_webui_syntax_passes_through(refiner: Refiner, prompt: str, plain: str) -> None:
    for options in ({}, {"temperature": 0.0, "token_budget": count_clip_tokens(plain) + 5, "webui_syntax": True}):
        text = refiner.refine(prompt, **options)
        assert text.startswith(prompt + ", ")
        assert text.removeprefix(prompt) == refiner.refine(plain, **options).removeprefix(plain), "read without it"


def test_escaped_brackets_are_read_as_brackets(refiner: Refiner) -> None:
    processor = refiner.processor
    wanted = processor.decoder_tokenizer.encode("a cat (orange),", add_special_tokens=False)
    assert processor.prefix_ids(r"a cat \(orange\)") == wanted
    assert refiner.refine(r"a cat \(orange\)").startswith(r"a cat \(orange\), ")


@pytest.mark.parametrize("prompt", ["a cat (orange)", "a cat :)", "()", "((((", "a) cat ("])
def test_ordinary_brackets_come_back(refiner: Refiner, prompt: str) -> None:
    assert refiner.refine(prompt).startswith(prompt + ", ")


@pytest.mark.parametrize("prompt", LONG)
def test_long_prompts_gain_where_four_tokens_are_free(refiner: Refiner, prompt: str) -> None:
    count = count_clip_tokens(prompt)
    assert 40 <= count <= 70
    for budget in (75, count + 4):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            text = refiner.refine(prompt, token_budget=budget)
        assert modifiers_added(prompt, text)
        assert count_clip_tokens(text) <= budget


@pytest.mark.parametrize(("budget", "times"), [(150, 4), (225, 7)])
def test_a_larger_budget_lets_longer_prompts_gain(refiner: Refiner, budget: int, times: int) -> None:
    prompt = ", ".join(
        [LONG[0], *(f"with {number} more boats of many other shapes and colors" for number in range(times))]
    )
    assert count_clip_tokens(prompt) > 75
    with pytest.warns(PripWarning, match="returned unchanged"):
        assert refiner.refine(prompt) == prompt
    text = refiner.refine(prompt, token_budget=budget)
    assert modifiers_added(prompt, text)
    assert count_clip_tokens(text) <= budget


@pytest.mark.parametrize(
    ("user", "refined", "added"),
    [
        ("a cat", "a cat, bokeh, 8k", ["bokeh", "8k"]),
        ("a cat, red. ", "a cat, red, bokeh", ["bokeh"]),
        ("a cat. ", "a cat. ", []),
        ("(a cat:1.2)", "(a cat:1.2), ink", ["ink"]),
    ],
)
def test_modifiers_added(user: str, refined: str, added: list[str]) -> None:
    assert modifiers_added(user, refined) == added


def test_modifiers_added_wants_the_users_words() -> None:
    with pytest.raises(InputError, match="refined_prompt: expected text that begins with 'a cat,', got 'a dog, 8k'"):
        modifiers_added("a cat", "a dog, 8k")
    assert own_words("a cat, ") == "a cat"
