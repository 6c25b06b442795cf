"""The kind `best-suffix`: the one list of modifiers that the training rewards like best, for all prompts alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from prip.miniature.prompts import user_prompts
from prip.miniature.vocabulary import ATTRIBUTES
from prip.options import check_whole
from prip.protocols import Generator, Reward
from prip.rewards.standardised import StandardisedSum

from ...checkpoint_parts import load_rewards
from ..analysis.statistics import Floats
from ..gallery import Gallery
from .generators import make_diffusers
from .refiners import with_modifiers
from .registry import Context
from .search import OPEN, State, ascend, modifiers_of
from .seeds import search_seeds

SPLIT = "dev"


def all_modifiers(state: State, axis: int) -> list[str | None]:
    """Leave the attribute open, or ask for any of its values by any of its modifiers."""
    return [None, *(modifier for value in list(ATTRIBUTES.values())[axis] for modifier in value.modifiers)]


class BestSuffixRefiner:
    """Adds one fixed list of modifiers to every prompt: what an ascent has found on prompts that are not measured."""

    sampled = False

    def __init__(
        self,
        name: str,
        generator: Generator,
        rewards: Sequence[Reward],
        search_prompts: Sequence[str],
        images: int = 1,
        passes: int = 2,
        seed: int = 0,
        batch_size: int = 256,
    ) -> None:
        """rewards: their sum is maximised, each standardised on unrefined images. images: drawn for each search prompt
        and candidate, from search seeds. passes: of the ascent over all attributes. The first call searches.
        """
        self.name = name
        self.generator, self.rewards = generator, list(rewards)
        self.search_prompts = list(search_prompts)
        self.images, self.passes, self.seed, self.batch_size = images, passes, seed, batch_size
        self._found: list[str] | None = None

    def __call__(self, user_prompts: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """Returns each user prompt with the modifiers behind it; `seeds` play no part."""
        return [with_modifiers(prompt, self.modifiers) for prompt in user_prompts]

    @property
    def modifiers(self) -> list[str]:
        """What the search has found; it is done once."""
        if self._found is None:
            self._found = self._search()
        return self._found

    def _search(self) -> list[str]:
        asked = [prompt for prompt in self.search_prompts for _ in range(self.images)]
        seeds = [seed for prompt in self.search_prompts for seed in search_seeds(prompt, self.images, self.seed)]
        gallery = Gallery(self.generator, self._standardised(asked, seeds), self.batch_size)

        def score(candidates: Sequence[tuple[int, State]]) -> Floats:
            drawn = [with_modifiers(prompt, modifiers_of(state)) for _, state in candidates for prompt in asked]
            times = len(candidates)
            return gallery.scores(list(asked) * times, drawn, list(seeds) * times).reshape(times, -1).mean(1)

        states: list[State] = [OPEN]
        values = score([(0, OPEN)])
        for _ in range(self.passes):
            before = list(states)
            states, values = ascend(score, states, values, all_modifiers)
            if states == before:
                break
        return modifiers_of(states[0])

    def _standardised(self, asked: Sequence[str], seeds: Sequence[int]) -> StandardisedSum:
        """Returns the sum of the rewards, each brought to its mean and deviation on the unrefined images."""
        scores: dict[str, list[torch.Tensor]] = {reward.name: [] for reward in self.rewards}
        for start in range(0, len(asked), self.batch_size):
            some = slice(start, start + self.batch_size)
            images = self.generator(asked[some], seeds[some])
            for reward in self.rewards:
                scores[reward.name].append(reward(asked[some], images).double())
        joined = {name: torch.cat(parts) for name, parts in scores.items()}
        means = {name: float(values.mean()) for name, values in joined.items()}
        return StandardisedSum(self.rewards, means, {name: float(values.std()) for name, values in joined.items()})


def make_best_suffix(
    name: str,
    context: Context,
    *,
    prompts: int = 40,
    images: int = 1,
    passes: int = 2,
    batch_size: int = 256,
) -> BestSuffixRefiner:
    """The kind `best-suffix`: a peer with PRIP's own means, the checkpoint's generator and training rewards.

    It is found on user prompts of the miniature's dev split: no judge and no test prompt takes part. prompts: so many
    of them, spread over all. The rest is explained at `BestSuffixRefiner`.
    """
    for option, value in (("prompts", prompts), ("images", images), ("passes", passes), ("batch_size", batch_size)):
        check_whole(f"refiner {name!r}: {option}", value, 1)
    texts = [text for text, _ in user_prompts(SPLIT, 1, context.seed)]
    spread = np.linspace(0, len(texts) - 1, min(prompts, len(texts))).round().astype(int)
    rewards = load_rewards(context.parts.rewards, context.device)
    generator = make_diffusers(name, context)
    return BestSuffixRefiner(
        name, generator, rewards, [texts[place] for place in spread], images, passes, context.seed, batch_size
    )
