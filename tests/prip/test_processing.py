"""Checks of user prompts, the prefix, and the tokenizers on disk."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from prip.errors import CheckpointError, InputError
from prip.loading.folders import refiner_folder
from prip.processing import PripProcessor, encode_for_encoder, load_tokenizer, save_tokenizer
from prip.text.prompts import MAX_CHARACTERS, check_user_prompt, own_words
from prip.text.vocabulary import token_bytes

UNICODE_PROMPTS = [
    "Ünïcödé 猫 🐈",
    "кот на пляже",
    "👩‍🚀 in space",
    "قطة",
    "e\u0301toile",
    "“a cat”",
    "\U0001f1e9\U0001f1ea",
]


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (None, "prompt: expected a string, got None"),
        (b"a cat", "got an object of type bytes"),
        (7, "got an object of type int"),
        ("", "got an empty string"),
        ("  \u2003 ", "got only blanks"),
        (" ., ,.", "got ' ., ,.'"),
        ("。、", "got '。、'"),
        ("\u200b\ufeff", r"got '\\u200b\\ufeff'"),
        ("<lora:some_style:0.8>, BREAK", "got '<lora:some_style:0.8>, BREAK'"),
        ("a" * (MAX_CHARACTERS + 1), "expected at most 10,000 characters, got 10,001"),
        ("a\0cat", r"no control characters, got U\+0000 at character 2"),
        ("a\x0bcat", r"U\+000B"),
        ("a\x85cat", r"U\+0085"),
        ("a \ud83d cat", r"no unpaired surrogates, got U\+D83D"),
    ],
)
def test_bad_user_prompts(prompt: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_user_prompt(prompt)


@pytest.mark.parametrize("prompt", ["a cat。", "a cat、 ", "a cat，．", "a cat｡"])
def test_periods_and_commas_of_chinese_and_japanese_end_a_prompt_too(prompt: str) -> None:
    assert own_words(prompt) == "a cat"


@pytest.mark.parametrize(
    "prompt", [*UNICODE_PROMPTS, "a", "a" * MAX_CHARACTERS, "!!!", "  a cat . ", "a cat,\r\n\tred\n"]
)
def test_good_user_prompts(prompt: str) -> None:
    assert check_user_prompt(prompt) is prompt


@pytest.mark.parametrize(
    ("prompt", "own"),
    [("a cat", "a cat"), ("a cat. ", "a cat"), ("  a cat,., ", "  a cat"), ("a. cat!", "a. cat!"), ("a\u3000", "a")],
)
def test_prefix_and_join(prompt: str, own: str) -> None:
    assert own_words(prompt) == own
    assert PripProcessor.prefix(prompt) == own + ","
    assert PripProcessor.join(prompt, " golden hour") == own + ", golden hour"


def test_prefix_ids_spell_the_prefix(tiny_processor: PripProcessor) -> None:
    for prompt in UNICODE_PROMPTS:
        spelled = token_bytes(tiny_processor.decoder_tokenizer)
        pieces = [spelled[token] for token in tiny_processor.prefix_ids(prompt)]
        assert b"".join(piece for piece in pieces if piece).decode() == prompt + ","


def test_decode_keeps_spaces_and_leaves_special_tokens_out(tiny_processor: PripProcessor) -> None:
    tokenizer = tiny_processor.decoder_tokenizer
    tokens = tokenizer.encode(" golden hour, 8k", add_special_tokens=False)
    assert tiny_processor.decode([*tokens, tokenizer.eos_token_id]) == " golden hour, 8k"


def test_encode_user_prompts_pads_on_the_right(tiny_processor: PripProcessor) -> None:
    input_ids, mask = tiny_processor.encode_user_prompts(["a cat", "a dog on the beach"])
    assert input_ids.shape == mask.shape
    assert mask[1].all()
    own = int(mask[0].sum())
    assert mask[0].tolist() == [1] * own + [0] * (mask.shape[1] - own)
    assert input_ids[0, own - 1] == tiny_processor.encoder_tokenizer.eos_token_id
    assert (input_ids[0, own:] == tiny_processor.encoder_tokenizer.pad_token_id).all()


def test_tokenizers_come_back_equal(tiny_processor: PripProcessor, tmp_path) -> None:
    tiny_processor.encode_user_prompts(["a cat", "a dog on the beach"])
    tiny_processor.save_pretrained(tmp_path)
    again = PripProcessor.from_pretrained(tmp_path)
    source = random.Random(1)
    for prompt in [*UNICODE_PROMPTS, "".join(source.choice("abc détail,.") for _ in range(40))]:
        assert again.prefix_ids(prompt) == tiny_processor.prefix_ids(prompt)
        assert again.encode_user_prompts([prompt])[0].equal(tiny_processor.encode_user_prompts([prompt])[0])
    for name in ("pad_token_id", "eos_token_id", "bos_token_id"):
        assert getattr(again.decoder_tokenizer, name) == getattr(tiny_processor.decoder_tokenizer, name)


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json"])
def test_missing_or_damaged_tokenizer_files_are_named(tiny_checkpoint, tmp_path, file: str) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(tiny_checkpoint / "encoder", folder)
    (folder / file).write_text("{ not json")
    with pytest.raises(CheckpointError, match=str(folder / file)):
        load_tokenizer(folder)
    (folder / file).unlink()
    with pytest.raises(CheckpointError, match=f"{folder / file} is missing"):
        load_tokenizer(folder)


def test_a_tokenizer_without_a_limit_cuts_no_prompt(tmp_path: Path) -> None:
    folder = refiner_folder("prip-mini") / "encoder"
    tokenizer = load_tokenizer(folder)
    prompt = "a cat and " * 400 + "a dog"
    assert encode_for_encoder(tokenizer, [prompt])[0].shape[1] > 800
    save_tokenizer(tokenizer, tmp_path)
    assert "model_max_length" not in json.loads((tmp_path / "tokenizer_config.json").read_text())


@pytest.mark.parametrize("limit", ["long", 0, True, [3]])
def test_a_limit_that_is_no_number_is_refused(tmp_path: Path, limit: object) -> None:
    save_tokenizer(load_tokenizer(refiner_folder("prip-mini") / "encoder"), tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"model_max_length": limit}))
    with pytest.raises(CheckpointError, match="model_max_length: expected a number of at least 2"):
        load_tokenizer(tmp_path)
