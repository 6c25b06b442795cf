"""CLIP's token count: against transformers' CLIPTokenizer, and against counts known by heart."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import prip
from prip.text.clip_tokens import clip_tokenizer, count_clip_tokens

TEXTS = [
    "",
    " ",
    "a cat",
    "A Cat, golden hour, sharp focus, highly detailed!!",
    "photorealistic 8k unreal engine 5, trending on artstation",
    "it's the dogs' day; they'll've come, I'm sure we'd",
    "ünïcödé straße ΣΊΣΥΦΟΣ İstanbul",
    "猫と犬 🐈🐕 ಕನ್ನಡ العربية",
    "e\u0301 vs \u00e9 and \u0958",
    "tabs\tand\nlines\u00a0and\u2003spaces",
    "<|endoftext|> a <|startoftext|>b <|ENDOFTEXT|>",
    "close-up, 35mm f/1.8 -- (masterpiece:1.2), __wow__",
    "x" * 300,
    "1234567890",
]


@pytest.fixture(scope="module")
def reference():
    """transformers' own tokenizer over the same vocabulary."""
    from transformers import CLIPTokenizer

    ours = clip_tokenizer()
    vocabulary = ours.get_vocab(with_added_tokens=False)
    import json

    merges = [tuple(merge) for merge in json.loads(ours.to_str())["model"]["merges"]]
    assert len(merges) == 48_894
    assert len(vocabulary) == 49_408
    return CLIPTokenizer(vocab=vocabulary, merges=merges)


@pytest.mark.parametrize("text", TEXTS)
def test_counts_as_transformers_does(reference, text: str) -> None:
    assert count_clip_tokens(text) == len(reference(text, add_special_tokens=False)["input_ids"])


def test_counts_random_texts_as_transformers_does(reference) -> None:
    source = random.Random(0)
    alphabet = "abcdefghijklmnopqrstuvwxyz ABC',.-!0123456789éß猫 "
    for _ in range(300):
        text = "".join(source.choice(alphabet) for _ in range(source.randrange(1, 60)))
        assert count_clip_tokens(text) == len(reference(text, add_special_tokens=False)["input_ids"]), repr(text)


@pytest.mark.parametrize(
    ("text", "count"), [("a cat", 2), ("a photo of a cat", 5), ("golden hour", 2), ("a cat, sharp focus", 5)]
)
def test_known_counts(text: str, count: int) -> None:
    assert count_clip_tokens(text) == count


def test_is_additive_over_spaces() -> None:
    parts = [text.strip(" ") for text in TEXTS]
    assert count_clip_tokens(" ".join(parts)) == sum(map(count_clip_tokens, parts))


def test_asset_is_small_and_licensed() -> None:
    assets = Path(prip.__file__).parent / "text" / "assets"
    assert (assets / "clip_merges.txt.xz").stat().st_size < 700_000
    assert "MIT License" in (assets / "clip_merges.LICENSE.txt").read_text()
