"""The fixed suffix that the training rewards like best, found without test prompts and without judges."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from prip.errors import InputError
from prip.inference.checkpoint_parts import Parts
from prip.inference.evaluation.kinds.best_suffix import BestSuffixRefiner, SuffixSearch
from prip.inference.evaluation.kinds.registry import REFINERS, Context
from prip.inference.evaluation.kinds.seeds import FIRST_SEARCH_SEED
from prip.miniature.prompts import user_prompts
from prip.miniature.scene import parse
from prip.miniature.vocabulary import ATTRIBUTES

SEARCH = ["a cat by the sea", "a dog in town", "an owl indoors"]


class Painter:
    """Puts into an image what its prompt asks for, 0 = open, else 1 + value, and its seed; remembers what it drew."""

    name, token_limit = "painter", 75

    def __init__(self) -> None:
        self.drawn: list[tuple[str, int]] = []

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> torch.Tensor:
        self.drawn += zip(prompts, seeds, strict=True)
        images = torch.zeros(len(prompts), 3, 2, 4, dtype=torch.uint8)
        for image, prompt, seed in zip(images, prompts, seeds, strict=True):
            values = parse(prompt).values[2:]
            image.view(-1)[: len(values)] = torch.tensor([0 if v is None else v + 1 for v in values], dtype=torch.uint8)
            image.view(-1)[20] = seed % 5
        return images


class Likes:
    """A reward for one value of an attribute, on its own scale, and for the seed: the noise of its scores."""

    def __init__(self, name: str, attribute: str, value: int, scale: float, noise: float = 0.1) -> None:
        self.name, self.scale, self.value, self.noise = name, scale, value, noise
        self.place = list(ATTRIBUTES).index(attribute)

    def __call__(self, user_prompts: Sequence[str], images: torch.Tensor) -> torch.Tensor:
        flat = images.flatten(1).float()
        return self.scale * ((flat[:, self.place] == self.value + 1).float() + self.noise * flat[:, 20])


def test_the_suffix_is_what_the_rewards_like_whatever_their_scale() -> None:
    painter = Painter()
    rewards = [Likes("small", "light", 1, 0.01), Likes("large", "style", 2, 100.0)]
    refiner = BestSuffixRefiner("fixed", painter, rewards, SEARCH, search=SuffixSearch(images=2, batch_size=4), seed=3)
    assert not painter.drawn, "nothing is searched before it is asked"
    made = refiner(["a fox up in the hills", "a rocket"], [0, 1])
    assert made == ["a fox up in the hills, moonlight, oil painting", "a rocket, moonlight, oil painting"]
    count = len(painter.drawn)
    refiner(["a bus"], [0])
    assert len(painter.drawn) == count, "it is searched once"
    assert all(seed >= FIRST_SEARCH_SEED for _, seed in painter.drawn)
    assert len({seed for _, seed in painter.drawn}) == 2 * len(SEARCH)
    assert all(any(prompt.startswith(own) for own in SEARCH) for prompt, _ in painter.drawn)


def test_rewards_are_weighed_by_their_deviation() -> None:
    sure, noisy = Likes("sure", "light", 1, 0.01), Likes("noisy", "light", 0, 100.0, noise=1.0)
    assert BestSuffixRefiner("fixed", Painter(), [sure, noisy], SEARCH, search=SuffixSearch(images=2)).modifiers == [
        "moonlight"
    ]
    assert BestSuffixRefiner("fixed", Painter(), [noisy], SEARCH, search=SuffixSearch(images=2)).modifiers == [
        "golden hour"
    ]


def test_a_reward_against_another_stays_open() -> None:
    rewards = [Likes("for", "light", 1, 1.0), Likes("against", "light", 1, -1.0)]
    assert BestSuffixRefiner("fixed", Painter(), rewards, SEARCH, search=SuffixSearch(images=2)).modifiers == []


@pytest.fixture
def context(whole_checkpoint: Path, tmp_path: Path, tokenizers_pair) -> Context:
    """A checkpoint with random weights that lacks readers: a search that opened a judge would fail."""
    from tiny_diffusion import tiny_pipeline
    from tiny_pipelines import clip_like_tokenizer

    root = tmp_path / "checkpoint"
    shutil.copytree(whole_checkpoint, root)
    shutil.rmtree(root / "readers")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tiny_pipeline(clip_like_tokenizer(max_length=77), patch_size=8).save_pretrained(root / "generator")
    (root / "generator" / "generator.json").write_text('{"steps": 1, "guidance": 1.0}')
    return Context(Parts.of_checkpoint(str(root)), "cpu", 0)


def test_the_kind_searches_on_dev_prompts_with_the_checkpoints_parts(context: Context) -> None:
    entry = {"kind": "best-suffix", "prompts": 2, "images": 1, "passes": 1}
    refiner = REFINERS.make("fixed", entry, context)
    dev = {text for text, _ in user_prompts("dev", 1, 0)}
    assert set(refiner.search_prompts) < dev and len(refiner.search_prompts) == 2
    assert [reward.name for reward in refiner.rewards] == ["mini-hps", "mini-reward"] and refiner.sampled is False
    (made,) = refiner(["a cat"], [0])
    assert made.startswith("a cat") and made == REFINERS.make("fixed", entry, context)(["a cat"], [9])[0]
    named = [factor for factor in ATTRIBUTES if parse(made)[factor] is not None]
    assert len(named) == len(refiner.modifiers)


@pytest.mark.parametrize("option", ["prompts", "images", "passes", "batch_size"])
def test_bad_options_are_named(option: str) -> None:
    context = Context(parts=None, device="cpu", seed=0)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=f"refiner 'fixed': {option}.* at least 1,.* 0"):
        REFINERS.make("fixed", {"kind": "best-suffix", option: 0}, context)
