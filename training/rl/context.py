"""What rollouts are made and measured with, whichever algorithm learns from them."""

from __future__ import annotations

import copy
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from prip.errors import InputError
from prip.fingerprints import check_unchanged, fingerprints, freeze
from prip.processing import save_tokenizer
from prip.refiner import Refiner
from prip.rewards import StandardisedSum

from ..rollouts.image_scorer import BaselineCache, ImageScorer
from ..rollouts.offloading import Residence
from ..rollouts.policy import Learner, Policy, Refinement
from ..rollouts.scores import Scores, score_refinements
from ..runs.seeds import derive_seed, permutation_indices
from ..settings import RlSettings, RolloutSettings
from .dev_split import DevSplit
from .parts import RlParts, image_seed, parts_device, reward_statistics

STAGE = "rl"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RolloutBatch:
    """The user prompts of an iteration, one for each rollout, and the seeds of its images."""

    iteration: int
    user_prompts: list[str]
    image_seeds: list[list[int]]
    sample_seeds: list[tuple[int, int]]
    """(seed, number of the alternative), by which each refinement is sampled"""

    def __len__(self) -> int:
        return len(self.user_prompts)

    def choose(self, rows: Sequence[int]) -> RolloutBatch:
        """Returns some of the rollouts."""
        return RolloutBatch(
            self.iteration,
            [self.user_prompts[row] for row in rows],
            [self.image_seeds[row] for row in rows],
            [self.sample_seeds[row] for row in rows],
        )


@dataclass(frozen=True)
class Workshop:
    """Policy, scorer and prompts of a run."""

    folder: Path
    parts: RlParts
    policy: Policy
    scorer: ImageScorer
    total: StandardisedSum
    learns: Literal["encoder", "decoder"]
    """Which part of the model learns; the other one, if there is one, is frozen"""
    reference: Learner
    """That part as it was warmed up, to which the policy is held"""
    residence: Residence
    train_prompts: Sequence[str]
    dev: DevSplit
    seed: int
    rollouts: RolloutSettings
    batch_size: int
    """User prompts of an iteration in each process"""

    @property
    def learner(self) -> Learner:
        """The part of the model that learns."""
        return getattr(self.parts.model, self.learns)

    def save_learner(self, folder: Path) -> None:
        """Writes the part that learns, with its tokenizer."""
        self.learner.save_pretrained(folder)
        save_tokenizer(getattr(self.policy.refiner.processor, f"{self.learns}_tokenizer"), folder)

    @property
    def frozen(self) -> dict[str, object]:
        """What must stay as it is, by name."""
        held = {name: part for name, part in self.parts.model.named_children() if name != self.learns}
        named: dict[str, object] = {**held, "reference": self.reference}
        named["generator"] = self.scorer.generator
        return named | {f"reward {reward.name}": reward for reward in self.scorer.rewards}

    def batch(self, iteration: int, process: int, processes: int) -> RolloutBatch:
        """Returns what `process` works on: its share of the whole batch, dealt out by user prompts."""
        whole, samples = self.whole_batch(iteration, processes), self.rollouts.samples_per_prompt
        return whole.choose([row for row in range(len(whole)) if row // samples % processes == process])

    def whole_batch(self, iteration: int, processes: int) -> RolloutBatch:
        """Returns what all processes work on, as one process would have it, rollout by rollout: a function of the seed,
        the iteration and how many user prompts there are in all."""
        whole, samples = self.batch_size * processes, self.rollouts.samples_per_prompt
        places = permutation_indices(iteration * whole, whole, len(self.train_prompts), self.seed, STAGE, "order")
        prompts = [self.train_prompts[place] for place in places]
        chance = random.Random(derive_seed(self.seed, STAGE, "image seeds", iteration, 0))
        pool, count = self.rollouts.seed_pool, self.rollouts.images_per_prompt
        seeds = [[image_seed(prompt, place, pool) for place in chance.sample(range(pool), count)] for prompt in prompts]
        sample_seed = derive_seed(self.seed, STAGE, "sample", iteration, 0)
        chosen = [
            (prompts[place], seeds[place], (sample_seed, place * samples + sample))
            for place in range(whole)
            for sample in range(samples)
        ]
        columns = [list(column) for column in zip(*chosen, strict=True)]
        return RolloutBatch(iteration, columns[0], columns[1], columns[2])

    def score(self, iteration: int, refinements: Sequence[Refinement], image_seeds: Sequence[Sequence[int]]) -> Scores:
        """Draws and scores the refinements of an iteration."""
        return score_refinements(self.scorer, self.total, refinements, image_seeds, f"iteration {iteration}")

    def settle(self, device: torch.device) -> None:
        """Brings the frozen parts to where they are while nothing is used, and the reference into the number format of
        the part that learns."""
        self.residence.device = device
        self.residence.settle()
        torch.nn.Module.to(self.reference, device, self.learner.dtype)

    def preview(self, iteration: int, last: bool) -> None:
        """Writes the picture of the dev split after `iteration`, if one is due. All processes must call it."""
        every = self.rollouts.preview_every
        if every and (last or iteration % every == 0):
            path = self.folder / "previews" / f"iteration-{iteration:06}.png"
            self.dev.preview(path, self.rollouts.preview_prompts)

    def fingerprints(self) -> dict[str, str]:
        """Returns a hash of each part that must stay as it is."""
        return fingerprints(self.frozen)

    def check_frozen(self, before: dict[str, str]) -> None:
        """Raises PripError if a part is not what `fingerprints` said before, which nothing here may do."""
        check_unchanged(STAGE, self.frozen, before)


def build_workshop(parts: RlParts, settings: RlSettings, folder: Path) -> Workshop:
    """Returns the workshop, all but the part that learns frozen, with the rewards' statistics read or measured.

    Raises InputError if no user prompt of a split leaves room for a modifier, or if there is no encoder to learn.
    """
    if getattr(parts.model, settings.learns) is None:
        raise InputError("learns: wanted decoder, as this decoder reads no pivot of an encoder, got encoder")
    rollouts = settings.rollouts
    movable: dict[str, object] = {"generator": parts.generator, "rewards": list(parts.rewards)}
    movable |= {name: part for name, part in parts.model.named_children() if name != settings.learns}
    residence = Residence(movable, settings.offload, parts_device(settings))
    scorer = ImageScorer(
        parts.generator, parts.rewards, BaselineCache(folder / "baseline"), rollouts.chunk.images, residence
    )
    statistics = reward_statistics(parts, settings, folder, scorer)
    total = StandardisedSum(parts.rewards, statistics.means, statistics.deviations)
    refiner = Refiner(parts.model, parts.processor)
    token_budget = rollouts.token_budget
    if rollouts.counted_by == "generator":
        refiner = refiner.counted_by(parts.generator)
        token_budget = min(token_budget, refiner.token_limit)
    policy = Policy(refiner, rollouts.max_new_tokens, token_budget, rollouts.chunk.refine, residence)
    dev = _with_room(policy, "dev", parts.dev_prompts)
    places = permutation_indices(0, min(rollouts.dev_prompts, len(dev)), len(dev), STAGE, "dev")
    workshop = Workshop(
        folder,
        parts,
        policy,
        scorer,
        total,
        settings.learns,
        copy.deepcopy(getattr(parts.model, settings.learns)),
        residence,
        _with_room(policy, "train", parts.train_prompts),
        DevSplit(
            [dev[place] for place in places],
            rollouts.dev_images_per_prompt,
            policy,
            scorer,
            total,
            rollouts.chunk.score,
        ),
        settings.seed,
        rollouts,
        settings.loop.batch_size,
    )
    for part in workshop.frozen.values():
        freeze(part)
    return workshop


def _with_room(policy: Policy, split: str, user_prompts: Sequence[str]) -> list[str]:
    distinct = list(dict.fromkeys(user_prompts))
    kept = [prompt for prompt, room in zip(distinct, policy.has_room(distinct), strict=True) if room]
    if not kept:
        raise InputError(f"user_prompts: wanted some of the {split} split that leave room for a modifier, got none")
    if len(kept) < len(distinct):
        _log.warning(
            "%d of %d %s prompts leave no room for a modifier", len(distinct) - len(kept), len(distinct), split
        )
    return kept
