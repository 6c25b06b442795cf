"""Suggestions for the negative prompt: refused things first, faults, and nothing that is asked for."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from importlib.resources import files

import pytest

import prip
from prip.control.attributes import names
from prip.control.faults import faults
from prip.control.styles import styles, with_styles
from prip.text.clip_tokens import count_clip_tokens

PROMPTS = ["a cat", "a beach without people", "a monster at night, bokeh", "a (blurry:1.2) cat", "a sketch, pixel art"]


def terms_of(text: str) -> list[str]:
    return text.split(", ")


def test_the_table_suggests_known_faults_of_every_kind() -> None:
    table = json.loads((files("prip.control") / "negative.json").read_text(encoding="utf-8"))
    assert set(table) == set(faults())
    for kind, entry in table.items():
        assert set(entry["terms"]) <= set(faults()[kind]) and entry["terms"]
        assert entry["unless"] == sorted(set(entry["unless"]))


def test_a_negative_prompt_has_what_is_refused_and_a_fault_of_each_kind() -> None:
    negative = prip.negative_prompt("a beach without people")
    assert negative.startswith("people, low quality, ")
    assert all(set(terms) & set(terms_of(negative)) for terms in faults().values())
    assert len(set(terms_of(negative))) == len(terms_of(negative))


@pytest.mark.parametrize(
    ("prompt", "unwanted"),
    [
        ("a cat, soft bokeh", {"blurry", "out of focus"}),
        ("a blurry cat", {"blurry", "out of focus"}),
        ("a foggy street", {"blurry", "washed out"}),
        ("a street at night", {"underexposed", "bad lighting"}),
        ("a black and white photo", {"dull colors", "washed out"}),
        ("a close-up of an eye", {"cropped", "out of frame"}),
        ("a mutant with tentacles", {"deformed", "extra limbs", "bad anatomy"}),
        ("a childish doodle of a house", {"bad art", "badly drawn"}),
        ("a castle, pixel art", {"lowres", "low quality", "jpeg artifacts"}),
    ],
)
def test_no_fault_is_suggested_that_is_asked_for(prompt: str, unwanted: set[str]) -> None:
    assert not unwanted & set(terms_of(prip.negative_prompt(prompt)))
    assert unwanted & set(terms_of(prip.negative_prompt(f"a cat, no {unwanted.copy().pop()}")))


@pytest.mark.parametrize("style", styles())
def test_no_suggestion_contradicts_a_style_or_a_refined_text(style: str) -> None:
    text = prip.refine(with_styles("a cat, no hats", [style]), device="cpu")
    negative = terms_of(prip.negative_prompt(text))
    assert negative[0] == "hats" and not [term for term in negative if names(text, term)]


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("limit", [1, 6, 20, 75])
def test_it_keeps_to_the_limit(prompt: str, limit: int) -> None:
    negative = prip.negative_prompt(prompt, token_limit=limit)
    assert count_clip_tokens(negative) <= limit
    assert negative == "" or set(terms_of(negative)) <= set(terms_of(prip.negative_prompt(prompt, token_limit=999)))


def test_the_users_own_negative_prompt_stays_first_and_nothing_is_repeated() -> None:
    own = "(ugly:1.2), Low Quality, people. "
    negative = prip.negative_prompt("a beach without people", own)
    assert negative.startswith("(ugly:1.2), Low Quality, people, badly framed")
    assert negative.lower().count("low quality") == negative.count("people") == 1
    assert prip.negative_prompt("a cat", own, token_limit=3) == own


def test_a_prompt_without_words_gets_none() -> None:
    assert prip.negative_prompt(" , ") == "" and prip.negative_prompt("", "people.") == "people."


@pytest.mark.parametrize(
    "run", ["no ", "no a ", "a is not wanted ", '"', "“", "no a or ", "--no a", "(a:0)", "x-free", "a b "]
)
def test_hostile_prompts_take_little_time(run: str) -> None:
    prompt = (run * 10_000)[:9_999] + "x"
    began = time.process_time()
    prip.negative_prompt(prompt)
    assert time.process_time() - began < 2


def test_it_loads_no_torch() -> None:
    code = "import sys, prip; prip.negative_prompt('a cat'); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
