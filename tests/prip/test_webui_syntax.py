"""Webui syntax: what models read of it, and hostile brackets."""

from __future__ import annotations

import random
import time
import timeit

import pytest

from prip.text.webui_syntax import ends_in_weight, plain_prompt, read_prompt

CASES = {
    "a (red:1.2) cat": "a red cat",
    "((a cat))": "a cat",
    "a [small] {big} cat": "a small big cat",
    "((a (red:1.3) cat:1.1))": "a red cat",
    "a [cat:dog:0.5] runs": "a dog runs",
    "a [dog:0.5] runs": "a dog runs",
    "a [cat::10] runs": "a runs",
    "a [(cat:1.2):(big) dog:0.25] runs": "a big dog runs",
    "a [cow|horse] runs": "a cow runs",
    "a cat, <lora:some_style-v2:0.8>, blue": "a cat, blue",
    "a cat <lora:x:1><hypernet:y:0.5>": "a cat",
    "a cat BREAK a dog": "a cat a dog",
    "a cat,\nwatercolor": "a cat, watercolor",
    "\ta cat \r\n\r\n by night\n": " a cat by night ",
    "a (red:1.2)\n cat": "a red cat",
    "a cat :1.2 AND a dog AND a (blue:1.1) cow : .5": "a cat AND a dog AND a blue cow",
    "a clock, 12:30": "a clock, 12:30",
    "a cat, BREAK, a dog": "a cat, a dog",
    r"a cat \(orange\) \[x\] \{y\} \\ z": "a cat (orange) [x] {y} \\ z",
    r"(a \(b\):1.5)": "a (b)",
    "a cat (orange)": "a cat orange",
    "(16:9)": "16",
    "a sign [hello: world]": "a sign hello: world",
}
UNTOUCHED = [
    "a cat",
    " two  spaces ,, here.",
    "a cat :)",
    "1) one 2) two",
    "(((",
    "a (cat",
    "<3 you",
    "5 < 6 > 4",
    "breakfast",
    "a:b|c",
    "\\",
]


@pytest.mark.parametrize(("prompt", "plain"), CASES.items())
def test_what_is_read(prompt: str, plain: str) -> None:
    assert plain_prompt(prompt) == plain


@pytest.mark.parametrize("prompt", [*UNTOUCHED, "()", "<lora:x:1>", "BREAK", "[a::1]", "(.)"])
def test_without_syntax_or_with_nothing_else_it_stays(prompt: str) -> None:
    assert plain_prompt(prompt) == prompt


@pytest.mark.parametrize("opening", ["(", "[", "{", "([", "[a:", "(a:1|", "\\(", "<lora:", ")", "](", "[a|"])
@pytest.mark.parametrize("closing", ["", ")", "]", "}", ":1.2)", ":0.5]", ")]", ">"])
def test_hostile_brackets_take_linear_time(opening: str, closing: str) -> None:
    text = opening * 5_000 + "cat" + closing * 5_000
    began = time.process_time()
    assert "cat" in plain_prompt(text) or "cat" in text
    assert time.process_time() - began < 2


@pytest.mark.parametrize("run", [" ", "\u3000", "\n", " \n", "1", "AND ", ":1 ", "AND:1", "BREAK "])
@pytest.mark.parametrize("beginning", ["a", "a AND", "(a:", "a:"])
def test_hostile_runs_take_linear_time(beginning: str, run: str) -> None:
    text = (beginning + run * 10_000)[:9_999] + "x"
    took_s = timeit.repeat(
        lambda: (read_prompt.cache_clear(), plain_prompt(text), ends_in_weight(text)),
        timer=time.process_time,
        number=1,
        repeat=3,
    )
    assert min(took_s) < 0.1, "the fastest of three: another process may have been in between"


def test_any_text_is_read_and_reading_again_changes_little() -> None:
    source = random.Random(0)
    for _ in range(3000):
        text = "".join(source.choice("()[]{}<>:|\\,. ab1BREAK") for _ in range(source.randrange(1, 40)))
        plain = plain_prompt(text)
        assert plain == text or len(plain) < len(text)
        assert plain.strip(" ,.") or plain == text


@pytest.mark.parametrize("prompt", ["a cat :1.2", "a cat :-.5 ", "a cat AND a dog:1.2", "a cat AND a dog :2"])
def test_a_prompt_may_end_in_a_weight(prompt: str) -> None:
    assert ends_in_weight(prompt)


@pytest.mark.parametrize("prompt", ["a cat", "a screen, 16:9", "a cat AND a dog", "a clock :12:30 now", "a cat :)"])
def test_other_numbers_are_no_weight(prompt: str) -> None:
    assert not ends_in_weight(prompt)
