"""The kind `best-suffix`: the one list of modifiers that the training rewards prefer, the same for every prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from prip.generators.safety import blackened
from prip.miniature.prompts import user_prompts
from prip.miniature.vocabulary import ATTRIBUTES
from prip.options import check_whole
from prip.protocols import Generator, Reward
from prip.rewards.standardised import StandardisedSum

from ...checkpoint_parts import load_rewards
from .generators import make_diffusers
from .refiners import with_modifiers
from .registry import Context
from .search import OPEN, Gallery, Scores, State, ascend, mean_scores, modifiers_of
from .seeds import search_seeds

SPLIT = "dev"


def all_modifiers(state: State, axis: int) -> list[str | None]:
    """Leave the attribute open, or ask for any of its values by any of its modifiers."""
    return [None, *(modifier for value in list(ATTRIBUTES.values())[axis] for modifier in value.modifiers)]


@dataclass(frozen=True)
class SuffixSearch:
    """How thoroughly `best-suffix` searches."""

    images: int = 1
    """Images per search prompt and candidate, drawn from search seeds."""
    passes: int = 2
    """Passes of the ascent over all attributes."""
    batch_size: int = 256
    """Images drawn and scored at a time."""

    def __post_init__(self) -> None:
        for name in ("images", "passes", "batch_size"):
            check_whole(name, getattr(self, name), 1)


class BestSuffixRefiner:
    """Adds one fixed list of modifiers to every prompt, found by an ascent on prompts that are not measured."""

    sampled = False

    def __init__(
        self,
        name: str,
        generator: Generator,
        rewards: Sequence[Reward],
        search_prompts: Sequence[str],
        *,
        search: SuffixSearch | None = None,
        seed: int = 0,
    ) -> None:
        """rewards: the search maximises their sum, each standardised on unrefined images. The first call searches."""
        self.name = name
        self.generator, self.rewards = generator, list(rewards)
        self.search_prompts = list(search_prompts)
        self.search, self.seed = search or SuffixSearch(), seed
        self._modifiers: list[str] | None = None

    def __call__(self, user_prompts: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """Return each user prompt followed by the modifiers; `seeds` are not used."""
        return [with_modifiers(prompt, self.modifiers) for prompt in user_prompts]

    @property
    def modifiers(self) -> list[str]:
        """The result of the search, which runs once."""
        if self._modifiers is None:
            self._modifiers = self._search()
        return self._modifiers

    def _search(self) -> list[str]:
        images = self.search.images
        asked = [prompt for prompt in self.search_prompts for _ in range(images)]
        seeds = [seed for prompt in self.search_prompts for seed in search_seeds(prompt, images, self.seed)]
        gallery = Gallery(self.generator, self._standardised(asked, seeds), self.search.batch_size)

        def score(candidates: Sequence[tuple[int, State]]) -> Scores:
            drawn = [with_modifiers(prompt, modifiers_of(state)) for _, state in candidates for prompt in asked]
            times = len(candidates)
            return mean_scores(gallery.scores(list(asked) * times, drawn, list(seeds) * times).reshape(times, -1))

        states: list[State] = [OPEN]
        values = score([(0, OPEN)])
        for _ in range(self.search.passes):
            before = list(states)
            states, values = ascend(score, states, values, all_modifiers)
            if states == before:
                break
        return modifiers_of(states[0])

    def _standardised(self, asked: Sequence[str], seeds: Sequence[int]) -> StandardisedSum:
        """Return the sum of the rewards, each standardised by its mean and deviation on the unrefined images."""
        scores: dict[str, list[torch.Tensor]] = {reward.name: [] for reward in self.rewards}
        for start in range(0, len(asked), self.search.batch_size):
            batch = slice(start, start + self.search.batch_size)
            images = self.generator(asked[batch], seeds[batch])
            shown = (~blackened(self.generator, images)).nonzero().squeeze(1).tolist()
            user_prompts = [asked[batch][row] for row in shown]
            for reward in self.rewards if shown else []:
                scores[reward.name].append(reward(user_prompts, images[shown]).double())
        joined = {name: torch.cat(batches) for name, batches in scores.items()}
        means = {name: float(values.mean()) for name, values in joined.items()}
        return StandardisedSum(self.rewards, means, {name: float(values.std()) for name, values in joined.items()})


def make_best_suffix(name: str, context: Context, *, prompts: int = 40, search: SuffixSearch) -> BestSuffixRefiner:
    """The kind `best-suffix`: a baseline that uses what PRIP uses, the checkpoint's generator and training rewards.

    It searches on `prompts` user prompts spread over the miniature's dev split, without any judge or test prompt.
    """
    check_whole("prompts", prompts, 1)
    texts = [text for text, _ in user_prompts(SPLIT, 1, context.seed)]
    indices = np.linspace(0, len(texts) - 1, min(prompts, len(texts))).round().astype(int)
    rewards = load_rewards(context.parts.rewards, context.device)
    generator = make_diffusers(name, context)
    search_prompts = [texts[index] for index in indices]
    return BestSuffixRefiner(name, generator, rewards, search_prompts, search=search, seed=context.seed)
