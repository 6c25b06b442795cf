"""The pivot cache, the tables, tokenizers, dropped words, and the order of the data."""

from __future__ import annotations

import random
import re
import resource
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from made_data import PIVOT_LENGTH, PIVOT_WIDTH, write_data, write_pivots
from safetensors.torch import load_file

from prip.errors import CheckpointError, InputError
from prip.training.data.mining import filter_system_prompts
from prip.training.data.pairs import drop_prefix_words, drop_words, read_preferred_images, read_system_prompts
from prip.training.data.pivot_cache import PivotCache, is_shard_of, write_index, write_shard
from prip.training.data.splits import split_by_series
from prip.training.from_scratch import train_decoder_tokenizer, train_encoder_tokenizer
from prip.training.runs.seeds import (
    DEV_SEED,
    derive_seed,
    drawing_seeds,
    image_seed,
    permutation_indices,
    seed_everything,
)


def test_pivots_come_back_by_name_in_any_order(tmp_path: Path) -> None:
    pivots = torch.randn(5, 3, 4)
    write_pivots(tmp_path / "pivots", list("abcde"), pivots, shard=2)
    cache = PivotCache(tmp_path / "pivots")
    assert (len(cache), cache.pivot_length, cache.pivot_width) == (5, 3, 4)
    assert cache.names == list("abcde") and "c" in cache and "z" not in cache
    found = cache[["e", "a", "d", "e"]]
    assert found.dtype == torch.float32
    assert torch.equal(found, pivots[[4, 0, 3, 4]].half().float())


def test_shards_are_plain_safetensors_files(tmp_path: Path) -> None:
    pivots = torch.randn(3, 3, 4)
    write_pivots(tmp_path, ["a", "b", "c"], pivots, shard=2)
    stored = load_file(tmp_path / "0.safetensors")
    assert list(stored) == ["pivots"] and torch.equal(stored["pivots"], pivots[:2].half())
    index = pd.read_parquet(tmp_path / "index.parquet")
    assert index["image_name"].tolist() == ["a", "b", "c"] and index["row"].tolist() == [0, 1, 0]
    assert index["shard"].tolist() == ["0.safetensors", "0.safetensors", "2.safetensors"]


def test_an_index_without_shards_means_a_single_file(tmp_path: Path) -> None:
    pivots = torch.randn(2, 3, 4)
    write_shard(tmp_path / "pivots.safetensors", ["a", "b"], pivots)
    pd.DataFrame({"image_name": ["a", "b"], "row": [0, 1]}).to_parquet(tmp_path / "index.parquet")
    assert torch.equal(PivotCache(tmp_path)[["b"]], pivots[1:].half().float())


def test_pivots_are_mapped_and_not_read(tmp_path: Path) -> None:
    write_pivots(tmp_path, [str(number) for number in range(4000)], torch.zeros(4000, 64, 64), shard=1000)
    cache = PivotCache(tmp_path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert cache[["0", "1500", "3999"]].shape == (3, 64, 64)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 8_000, f"32 MB of pivots lie there; {grown} kB were read"


def test_a_shard_tells_whose_it_is(tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    assert not is_shard_of(path, ["a", "b"])
    write_shard(path, ["a", "b"], torch.randn(2, 3, 4))
    assert is_shard_of(path, ["a", "b"])
    assert not is_shard_of(path, ["b", "a"]) and not is_shard_of(path, ["a"]) and not is_shard_of(path, ["a", "c"])
    content = path.read_bytes()
    for damaged in (content[:-1], content[:20], b"", content + b"\0"):
        path.write_bytes(damaged)
        assert not is_shard_of(path, ["a", "b"])


@pytest.mark.parametrize("length", [0, 4, 30, -1])
def test_a_damaged_shard_is_told(tmp_path: Path, length: int) -> None:
    write_pivots(tmp_path, ["a", "b"], torch.randn(2, 3, 4), shard=1)
    shard = tmp_path / "1.safetensors"
    shard.write_bytes(shard.read_bytes()[:length])
    cache = PivotCache(tmp_path)
    assert cache[["a"]].shape == (1, 3, 4)
    with pytest.raises(CheckpointError, match=r"1\.safetensors cannot be read"):
        cache[["b"]]
    shard.unlink()
    with pytest.raises(CheckpointError, match=r"1\.safetensors is missing"):
        PivotCache(tmp_path)


def test_what_cannot_be_stored_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    with pytest.raises(InputError, match="at least one image"):
        write_index(tmp_path, {})
    with pytest.raises(InputError, match="'a' again"):
        write_index(tmp_path, {"0.safetensors": ["a"], "1.safetensors": ["a"]})
    with pytest.raises(InputError, match="each image once"):
        write_shard(path, ["a", "a"], torch.zeros(2, 2, 3))
    with pytest.raises(InputError, match=re.escape("expected (2, pivot_length, pivot_width)")):
        write_shard(path, ["b", "c"], torch.zeros(1, 2, 3))
    with pytest.raises(InputError, match="fp16"):
        write_shard(path, ["b"], torch.full((1, 2, 3), 1e6))
    assert not list(tmp_path.iterdir())


def test_the_cache_refuses_what_it_does_not_hold(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no pivot of 'foreign'"):
        PivotCache(data / "pivots")[["foreign"]]
    with pytest.raises(CheckpointError, match=r"index\.parquet is missing"):
        PivotCache(tmp_path)


def test_tables_give_texts_with_the_chosen_images(data: Path) -> None:
    preferred, random_ = read_preferred_images(data, "preferred"), read_preferred_images(data, "random")
    assert preferred.train.texts == random_.train.texts
    assert preferred.train.image_names != random_.train.image_names
    assert set(preferred.train.texts).isdisjoint(preferred.dev.texts)
    assert (preferred.pivots.pivot_length, preferred.pivots.pivot_width) == (PIVOT_LENGTH, PIVOT_WIDTH)
    assert all(text.count(",") == 2 for text in read_system_prompts(data).train.texts)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("split", None, "missing columns: split"),
        ("split", "train", "no row has the split 'dev'"),
        ("image_name", "foreign", "have no pivot, 'foreign'"),
    ],
)
def test_tables_that_do_not_fit_are_refused(tmp_path: Path, column: str, value: str | None, message: str) -> None:
    path = write_data(tmp_path) / "system_prompts.parquet"
    table = pd.read_parquet(path)
    (table.drop(columns=column) if value is None else table.assign(**{column: value})).to_parquet(path)
    with pytest.raises(CheckpointError, match=message):
        read_system_prompts(tmp_path)


def test_a_folder_without_tables_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="prip-train prepare wrote"):
        read_preferred_images(tmp_path, "preferred")


def test_dropped_words_become_pseudo_words() -> None:
    text = 'a cat, "in" the park'
    assert drop_words(text, 0.0, random.Random(0)) == text
    changed = drop_words(text, 1.0, random.Random(0))
    assert re.fullmatch(r'[a-z]{3,9} [a-z]{3,9}, "[a-z]{3,9}" [a-z]{3,9} [a-z]{3,9}', changed)
    assert changed == drop_words(text, 1.0, random.Random(0)) != drop_words(text, 1.0, random.Random(1))
    many = " ".join(["word"] * 2000)
    share = sum(word != "word" for word in drop_words(many, 0.3, random.Random(2)).split()) / 2000
    assert share == pytest.approx(0.3, abs=0.04)


def test_only_words_before_the_first_comma_are_dropped() -> None:
    text = "a cat, golden hour, sharp focus"
    changed, skipped = drop_prefix_words(text, 1.0, random.Random(0))
    assert changed[skipped:] == ", golden hour, sharp focus" and "cat" not in changed
    assert drop_prefix_words(text, 0.0, random.Random(0)) == (text, 0)


TEXTS = ["a cat in a park, golden hour", "a dog in a desert, soft light, sharp focus"]


def test_the_encoder_tokenizer_closes_every_text(tmp_path: Path) -> None:
    tokenizer = train_encoder_tokenizer(TEXTS * 5, 300)
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1) and len(tokenizer) <= 300
    tokenizer.save_pretrained(tmp_path)
    again = type(tokenizer).from_pretrained(tmp_path)
    batch = again(["a cat", "a dog in a desert"], padding=True)
    assert [row[sum(mask) - 1] for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)] == [1, 1]
    assert batch["input_ids"][0][-1] == 0


@pytest.mark.parametrize("text", [*TEXTS, "naïve 猫 🐈, x-ray!?", "  two  spaces\n"])
def test_the_decoder_tokenizer_gives_every_text_back(text: str) -> None:
    tokenizer = train_decoder_tokenizer(TEXTS * 5, 300)
    ids = tokenizer(text)["input_ids"]
    assert 1 not in ids and tokenizer.decode(ids) == text
    prefix, comma, rest = text.partition(",")
    assert tokenizer(prefix + comma)["input_ids"] + tokenizer(rest)["input_ids"] == ids


def test_tokenizers_are_a_function_of_their_texts() -> None:
    first, second = (train_decoder_tokenizer(TEXTS * 5, 320).backend_tokenizer.to_str() for _ in range(2))
    assert first == second


def test_every_pass_visits_everything_once() -> None:
    places = permutation_indices(0, 30, 10, 5, "encoder")
    assert [sorted(places[at : at + 10]) for at in (0, 10, 20)] == [list(range(10))] * 3
    assert places[:10] != places[10:20]
    for start in range(25):
        assert permutation_indices(start, 5, 10, 5, "encoder") == places[start : start + 5]
    assert permutation_indices(0, 10, 10, 6, "encoder") != places[:10]


def test_seeds_depend_on_every_part() -> None:
    seeds = {derive_seed(*parts) for parts in [(0, "a", 1), (0, "a", 2), (1, "a", 1), (0, "b", 1), (0, "a", 1, 0)]}
    assert len(seeds) == 5 and all(0 <= seed < 2**63 for seed in seeds)
    draws = []
    for _ in range(2):
        seed_everything(1, "stage", 2)
        draws.append((torch.rand(1).item(), random.random()))
    assert draws[0] == draws[1]


def test_one_of_several_images_may_pass_the_thresholds() -> None:
    rows = [("a", "best.png", 9.0, 0.1), ("a", "fits.png", 5.0, 0.9), ("b", "low.png", 8.0, 0.2)]
    images = pd.DataFrame(rows, columns=["prompt", "image_name", "score", "clip-score"]).assign(split="train")
    kept = filter_system_prompts(images, 1.0, {"clip-score": 0.28})
    assert kept[["system_prompt", "image_name"]].values.tolist() == [["a", "fits.png"]]


def test_prompts_that_look_alike_stay_in_one_split() -> None:
    prompts = pd.Series([f"a cat number {number}" for number in range(200)])
    splits = split_by_series(prompts, 0.3)
    assert split_by_series(prompts.str.upper() + " .", 0.3).tolist() == splits.tolist()
    assert 30 < (splits == "dev").sum() < 90


def test_seeds_stay_what_they_are() -> None:
    """A run of an earlier version is resumed, and its plain images are found, only with the same numbers."""
    assert derive_seed(0, "rl", "order", 3) == 1361998837080770227
    assert permutation_indices(5, 4, 7, 1, "rl", "order") == [0, 5, 3, 1]
    assert drawing_seeds(2, 0, "drawing", "a cat") == [1884222973, 1884222974]
    assert [image_seed("a cat", index, 8) for index in (0, 7)] == [763888, 763895]
    assert DEV_SEED == 900_000
    seed_everything(1, "stage", 2)
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == pytest.approx(
        (0.611268853458, 0.314943607724, 0.6255634427070618)
    )
