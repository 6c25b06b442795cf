"""Drawing and scoring on one generator: the same noise for all refiners, nothing drawn twice, failures kept as rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from painters import GOOD, Judge, Painter

from prip.errors import InputError, PripError
from prip.inference.evaluation.kinds.refiners import SuffixRefiner
from prip.inference.evaluation.kinds.registry import EvaluationPrompt
from prip.inference.evaluation.kinds.seeds import FIRST_SEARCH_SEED, image_seeds, search_seeds
from prip.inference.evaluation.work.chunks import write_table
from prip.inference.evaluation.work.images import ImageStore, address
from prip.inference.evaluation.work.measuring import VECTOR, Measurer
from prip.inference.evaluation.work.refining import refine_chunk

PROMPTS = list(enumerate([EvaluationPrompt("a cat", "pet"), EvaluationPrompt("a dog in town", "", "dog/city", "dog")]))


def refined(count: int = 2) -> dict[str, pd.DataFrame]:
    refiners = [SuffixRefiner("none", ()), SuffixRefiner("good", GOOD[:2])]
    return {refiner.name: refine_chunk(refiner, PROMPTS, count, 0) for refiner in refiners}


def measured(tmp_path: Path, painter: Painter, scorers=None, **options) -> pd.DataFrame:
    measurer = Measurer("painter", painter, scorers or {"truth": Judge("truth")}, ImageStore(tmp_path), **options)
    return measurer.measure(PROMPTS, refined(), 2, 0)


def test_rows_say_what_was_drawn_and_scored(tmp_path: Path) -> None:
    table = measured(tmp_path, Painter(), {"truth": Judge("truth"), "other": Judge("other")})
    assert len(table) == 2 * 2 * 2
    good = table[table["refiner"] == "good"]
    assert good["refined_prompt"].str.endswith(", ".join(GOOD[:2])).all()
    first, second = (list(table.loc[table["refiner"] == name, "seed"]) for name in ("none", "good"))
    assert first == second == [*image_seeds("a cat", 2, 0), *image_seeds("a dog in town", 2, 0)]
    gain = good["score:truth"].to_numpy() - table.loc[table["refiner"] == "none", "score:truth"].to_numpy()
    np.testing.assert_allclose(gain, [4, 4, 2, 2], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(table["score:truth"], table["score:other"])
    assert list(table.loc[table["prompt_id"] == 0, "category"].unique()) == ["pet"]
    assert list(table["cluster"].unique()) == ["a cat", "dog"] and list(table["unit"].unique()) == ["a cat", "dog/city"]
    assert (table["tokens"] == table["refined_prompt"].str.split().str.len()).all()
    assert table["within_distance"].isna().all() and (table["error"] == "").all()
    assert all((tmp_path / name[:2] / f"{name}.png").is_file() for name in table["image"])


def test_what_is_in_the_store_is_not_drawn_again_and_gives_the_same_scores(tmp_path: Path) -> None:
    first = measured(tmp_path, painter := Painter())
    assert len(painter.calls) == len(set(painter.calls)) == 8
    again = measured(tmp_path, later := Painter())
    assert later.calls == []
    pd.testing.assert_frame_equal(first, again)
    broken = tmp_path / first["image"][0][:2] / f"{first['image'][0]}.png"
    broken.write_bytes(broken.read_bytes()[:40])
    pd.testing.assert_frame_equal(first, measured(tmp_path, later))
    assert len(later.calls) == 1, "a file that cannot be read is drawn anew"


def test_batches_bound_what_is_drawn_at_once(tmp_path: Path) -> None:
    whole = measured(tmp_path / "whole", Painter())
    parts = measured(tmp_path / "parts", painter := Painter(), batch_size=3)
    assert painter.largest == 3
    pd.testing.assert_frame_equal(whole, parts)


class Fails(Painter):
    """Cannot draw one prompt."""

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> torch.Tensor:
        if any(prompt == "a cat" for prompt in prompts):
            raise RuntimeError("no cats\ntoday")
        return super().__call__(prompts, seeds)


def test_an_image_that_fails_is_a_row_with_its_error(tmp_path: Path) -> None:
    table = measured(tmp_path, Fails())
    failed = table[table["error"] != ""]
    assert list(failed["refined_prompt"]) == ["a cat", "a cat"] and list(failed["image"]) == ["", ""]
    assert set(failed["error"]) == {"RuntimeError: no cats today"} and failed["score:truth"].isna().all()
    rest = table[table["error"] == ""]
    whole = measured(tmp_path / "whole", Painter()).loc[rest.index]
    np.testing.assert_array_equal(rest["score:truth"], whole["score:truth"])


def test_a_scorer_that_fails_for_one_image_spares_the_others(tmp_path: Path) -> None:
    class Picky(Judge):
        def __call__(self, user_prompts: Sequence[str], images: torch.Tensor) -> torch.Tensor:
            scores = super().__call__(user_prompts, images)
            return torch.where(torch.tensor([prompt == "a cat" for prompt in user_prompts]), math.nan, scores)

    table = measured(tmp_path, Painter(), {"truth": Judge("truth"), "picky": Picky("picky")})
    cats = table["user_prompt"] == "a cat"
    assert (table.loc[cats, "error"] == "picky: the score is not finite").all() and (table["image"] != "").all()
    assert table["score:truth"].notna().all() and table.loc[~cats, "score:picky"].notna().all()


def test_nothing_drawn_at_all_ends_the_run(tmp_path: Path) -> None:
    class Broken(Painter):
        def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> torch.Tensor:
            raise RuntimeError("out of paint")

    with pytest.raises(PripError, match="generator 'painter': the first 8 of 8 failed: RuntimeError: out of paint"):
        measured(tmp_path, Broken())


def test_diversity_comes_from_the_embeddings(tmp_path: Path) -> None:
    def embed(images: torch.Tensor) -> np.ndarray:
        angle = images.flatten(1)[:, 20].double().numpy() * math.pi / 4  # by the seed
        return np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)

    table = measured(tmp_path, Painter(), embedder=embed)
    for name, number in (("none", 0), ("good", 1)):
        own = table[(table["refiner"] == name) & (table["prompt_id"] == number)]
        first, second = own["seed"] % 3 * math.pi / 4
        assert own["within_distance"].tolist() == pytest.approx([1 - math.cos(first - second)] * 2, abs=1e-6)
    assert table[VECTOR].notna().tolist() == (table["image_index"] == 0).tolist()


@pytest.mark.parametrize("bad", [0.0, math.nan, math.inf])
def test_a_vector_without_a_direction_is_a_row_with_its_error(tmp_path: Path, bad: float) -> None:
    def embed(images: torch.Tensor) -> np.ndarray:
        vectors = np.ones((len(images), 2), dtype=np.float32)
        vectors[images.flatten(1)[:, 20].numpy() == image_seeds("a cat", 1, 0)[0] % 3] *= bad
        return vectors

    table = measured(tmp_path, Painter(), embedder=embed)
    failed = table[table["error"] != ""]
    assert set(failed["error"]) == {"embedder: the vector is 0 or not finite"} and 0 < len(failed) < len(table)
    assert failed["score:truth"].notna().all() and table.loc[failed.index, VECTOR].isna().all()
    assert table.loc[table["prompt_id"] == 0, "within_distance"].isna().all(), "one image of two is left"


def test_an_embedder_that_fails_is_told(tmp_path: Path) -> None:
    def embed(images: torch.Tensor) -> np.ndarray:
        raise RuntimeError("no eyes")

    with pytest.raises(PripError, match="embedder: the first 8 of 8 failed: RuntimeError: no eyes"):
        measured(tmp_path, Painter(), embedder=embed)


def test_what_has_gone_well_may_fail_for_a_whole_chunk(tmp_path: Path) -> None:
    class Tires(Painter):
        tired = False

        def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> torch.Tensor:
            if self.tired:
                raise RuntimeError("tired")
            return super().__call__(prompts, seeds)

    measurer = Measurer("painter", painter := Tires(), {"truth": Judge("truth")}, ImageStore(tmp_path))
    measurer.measure(PROMPTS, refined(), 2, 0)
    painter.tired = True
    table = measurer.measure(PROMPTS, refined(), 2, seed=1)
    measurer.check()
    assert len(table) == 8 and set(table["error"]) == {"RuntimeError: tired"} and set(table["image"]) == {""}


def test_a_refiner_that_spares_the_others_is_asked_once_a_prompt() -> None:
    class Chatty:
        name, sampled = "chatty", False

        def __init__(self, *failing: str) -> None:
            self.failing, self.asked = failing, []

        def __call__(self, user_prompts: Sequence[str], seeds: Sequence[int]) -> list[str]:
            raise AssertionError("`attempt` is asked")

        def attempt(self, user_prompts: Sequence[str], seeds: Sequence[int]) -> list[str | Exception]:
            self.asked += user_prompts
            return [ValueError(f"no {one}") if one in self.failing else f"{one}, fine" for one in user_prompts]

    texts = [f"a {number}" for number in range(12)]
    prompts = list(enumerate(map(EvaluationPrompt, texts)))
    table = refine_chunk(chatty := Chatty("a 0", "a 11"), prompts, 1, 0)
    assert chatty.asked == texts and table["error"].tolist() == [
        "ValueError: no a 0",
        *[""] * 10,
        "ValueError: no a 11",
    ]
    mute = Chatty(*texts)
    with pytest.raises(PripError, match="refiner 'chatty': the first 8 of 12 failed: ValueError: no a 7"):
        refine_chunk(mute, prompts, 1, 0)
    assert mute.asked == texts[:8]
    assert (refine_chunk(mute, prompts, 1, 0, proven=True)["error"] != "").all()


def test_a_folder_for_a_table_that_cannot_be_made_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_table(tmp_path / "file" / "parts" / "00000.parquet", pd.DataFrame({"a": [1]}))


def test_seeds_depend_on_the_prompt_alone_and_searches_share_none() -> None:
    assert image_seeds("a cat", 3, 0) == image_seeds("a cat", 5, 0)[:3]
    assert len({image_seeds(prompt, 1, seed)[0] for prompt in ("a cat", "a dog") for seed in (0, 1)}) == 4
    many = [seed for prompt in range(200) for seed in image_seeds(str(prompt), 4, 0)]
    assert min(many) >= 2**31 and max(many) < FIRST_SEARCH_SEED
    found = [seed for prompt in range(200) for seed in search_seeds(str(prompt), 4, 0)]
    assert min(found) >= FIRST_SEARCH_SEED and max(found) < 2**32


def test_addresses_tell_generator_prompt_and_seed_apart() -> None:
    assert len({address(*one) for one in (("g", "a", 1), ("h", "a", 1), ("g", "b", 1), ("g", "a", 2))}) == 4
    assert address("g", "a", 1) == address("g", "a", 1)


def test_a_prompt_that_cannot_be_refined_is_a_row_with_its_error(tmp_path: Path) -> None:
    class Shy(SuffixRefiner):
        def __call__(self, user_prompts: Sequence[str], seeds: Sequence[int]) -> list[str]:
            if "a cat" in user_prompts:
                raise ValueError("no cats")
            return super().__call__(user_prompts, seeds)

    tables = {
        name: refine_chunk(kind(name, GOOD[:1]), PROMPTS, 2, 0)
        for name, kind in (("shy", Shy), ("good", SuffixRefiner))
    }
    assert tables["shy"]["error"].tolist() == ["ValueError: no cats"] * 2 + ["", ""]
    measurer = Measurer("painter", painter := Painter(), {"truth": Judge("truth")}, ImageStore(tmp_path))
    table = measurer.measure(PROMPTS, tables, 2, 0)
    shy = table[table["refiner"] == "shy"]
    assert shy["error"].tolist() == ["shy: ValueError: no cats"] * 2 + ["", ""] and shy["image"].tolist()[:2] == [
        "",
        "",
    ]
    assert shy["score:truth"].isna().tolist() == [True, True, False, False]
    assert (table.loc[table["refiner"] == "good", "error"] == "").all() and not [p for p, _ in painter.calls if not p]


def test_a_refiner_that_samples_is_asked_for_every_image_and_an_empty_text_is_refused() -> None:
    class Sampled:
        name = "sampled"

        def __call__(self, user_prompts: Sequence[str], seeds: Sequence[int]) -> list[str]:
            return [f"{prompt}, {seed}" for prompt, seed in zip(user_prompts, seeds, strict=True)]

    table = refine_chunk(Sampled(), PROMPTS, 3, 0)
    assert list(table["refined_prompt"][:3]) == [f"a cat, {seed}" for seed in image_seeds("a cat", 3, 0)]
    greedy = refine_chunk(SuffixRefiner("good", GOOD[:1]), PROMPTS, 3, 0)
    assert greedy.groupby("prompt_id")["refined_prompt"].nunique().tolist() == [1, 1]

    class Mute(Sampled):
        def __call__(self, user_prompts: Sequence[str], seeds: Sequence[int]) -> list[str]:
            return [" "] * len(user_prompts)

    mute = refine_chunk(Mute(), PROMPTS, 3, 0)
    assert set(mute["error"]) == {"expected a text that is not empty, got ' '"} and set(mute["refined_prompt"]) == {""}


def test_a_store_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        ImageStore(tmp_path / "file").write("abcdef", torch.zeros(3, 4, 4, dtype=torch.uint8))


def test_the_store_reads_whatever_it_has_written(tmp_path: Path) -> None:
    image = torch.arange(3 * 4 * 5000, dtype=torch.int64).remainder(251).to(torch.uint8).view(3, 4, 5000)
    store = ImageStore(tmp_path)
    store.write("wide", image)
    assert torch.equal(store.read("wide"), image), "larger than pictures that people may bring"
