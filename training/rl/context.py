"""The context of a run of reinforcement learning: policy, rewards, prompts and reference, for any algorithm."""

from __future__ import annotations

import copy
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from prip.errors import InputError
from prip.fingerprints import check_unchanged, fingerprints, freeze
from prip.modeling import PreferenceEncoder, PripModel
from prip.processing import save_tokenizer
from prip.refiner import Refiner
from prip.rewards import StandardisedSum

from ..engine import ranks
from ..rollouts.image_scorer import ImageScorer, PlainScoreCache
from ..rollouts.offloading import Offloading, parts_device
from ..rollouts.policy import Learner, Policy, Refinement
from ..rollouts.scores import GainScorer, Scores, rollout_table, write_rollouts
from ..runs.processes import process_rank
from ..runs.seeds import CONFIRMING_SEED, derive_seed, image_seed, permutation_indices
from ..settings import RlSettings
from .dev_split import DevSplit
from .parts import RlParts, reward_statistics

STAGE = "rl"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RolloutBatch:
    """The user prompts of an iteration, one per rollout, with the seeds of its tokens and images."""

    iteration: int
    user_prompts: list[str]
    image_seeds: list[list[int]]
    sample_seeds: list[tuple[int, int]]
    """(seed, number of the alternative) with which each refinement is sampled"""

    def __len__(self) -> int:
        return len(self.user_prompts)

    def choose(self, rows: Sequence[int]) -> RolloutBatch:
        """Return some of the rollouts."""
        return RolloutBatch(
            self.iteration,
            [self.user_prompts[row] for row in rows],
            [self.image_seeds[row] for row in rows],
            [self.sample_seeds[row] for row in rows],
        )


@dataclass(frozen=True, kw_only=True)
class RlContext:
    """Everything that rollouts are sampled, scored and measured with."""

    settings: RlSettings
    folder: Path
    """Folder of the stage"""
    parts: RlParts
    policy: Policy
    scorer: GainScorer
    reference: Learner
    """The warmed-up copy of the learner, to which the KL penalty holds the policy"""
    train_prompts: Sequence[str]
    dev: DevSplit

    @property
    def learner(self) -> Learner:
        """The part of the model that learns; the other one, if there is one, is frozen."""
        return getattr(self.parts.model, self.settings.learns)

    @property
    def frozen(self) -> dict[str, object]:
        """All parts that must not change, by name."""
        children = self.parts.model.named_children()
        parts: dict[str, object] = {name: part for name, part in children if name != self.settings.learns}
        parts |= {"reference": self.reference, "generator": self.scorer.images.generator}
        return parts | {f"reward {reward.name}": reward for reward in self.scorer.images.rewards}

    def batch(self, iteration: int, process: int, processes: int) -> RolloutBatch:
        """Return the rollouts of `process`; user prompts are dealt to the processes in turn."""
        whole, samples = self.whole_batch(iteration, processes), self.settings.rollouts.samples_per_prompt
        return whole.choose([row for row in range(len(whole)) if row // samples % processes == process])

    def whole_batch(self, iteration: int, processes: int) -> RolloutBatch:
        """Return the batch of all processes, in the order in which a single process would have it.

        It depends only on the seed, the iteration and the number of user prompts per iteration.
        """
        seed, rollouts = self.settings.seed, self.settings.rollouts
        size, samples = self.settings.loop.batch_size * processes, rollouts.samples_per_prompt
        indices = permutation_indices(iteration * size, size, len(self.train_prompts), seed, STAGE, "order")
        chance = random.Random(derive_seed(seed, STAGE, "image seeds", iteration, 0))
        sample_seed = derive_seed(seed, STAGE, "sample", iteration, 0)
        batch = RolloutBatch(iteration, [], [], [])
        for number, prompt in enumerate(self.train_prompts[index] for index in indices):
            chosen = chance.sample(range(rollouts.seed_pool), rollouts.images_per_prompt)
            seeds = [image_seed(prompt, index, rollouts.seed_pool) for index in chosen]
            for sample in range(samples):
                batch.user_prompts.append(prompt)
                batch.image_seeds.append(seeds)
                batch.sample_seeds.append((sample_seed, number * samples + sample))
        return batch

    def score(self, batch: RolloutBatch, refinements: Sequence[Refinement]) -> Scores:
        """Draw and score the refinements of a batch."""
        return self.scorer.score(refinements, batch.image_seeds, f"iteration {batch.iteration}")

    def write_rollouts(
        self,
        batch: RolloutBatch,
        refinements: Sequence[Refinement],
        scores: Scores,
        *,
        log_probabilities: Tensor,
        reference: Tensor,
    ) -> None:
        """Write this process's rollouts; the tensors are as in `rollout_table`."""
        table = rollout_table(
            refinements, scores, image_seeds=batch.image_seeds, log_probabilities=log_probabilities, reference=reference
        )
        write_rollouts(self.folder / "rollouts", batch.iteration, table, ranks.rank(), ranks.count())

    def settle(self, device: torch.device) -> None:
        """Move each frozen part to its resting device, and the reference to `device` in the learner's dtype."""
        self.policy.offloading.device = device
        self.policy.offloading.settle()
        torch.nn.Module.to(self.reference, device, self.learner.dtype)

    def preview(self, iteration: int, last: bool) -> None:
        """Write the picture of the dev split after `iteration` if one is due. All processes must call this."""
        rollouts = self.settings.rollouts
        if rollouts.preview_every and (last or iteration % rollouts.preview_every == 0):
            self.dev.preview(self.folder / "previews" / f"iteration-{iteration:06}.png", rollouts.preview_prompts)

    def confirm(self, best_step: int, last_step: int, device: torch.device) -> dict[str, dict[str, float]]:
        """Measure the dev split again, on image seeds that did not choose the best part.

        Among many noisy measurements the largest is too large; these say what the best part is worth. All processes
        must call this after the last step.

        Returns:
            Metrics as of `DevSplit.measure` of the learner before the first step (first), in FOLDER/part (best), and
            now (last).
        """
        metrics = {"first": self._measured(self.reference, device), "last": self._measured(self.learner, device)}
        same = {0: "first", last_step: "last"}.get(best_step)
        if same is not None:
            return metrics | {"best": metrics[same]}
        best = type(self.learner).from_pretrained(self.folder / "part", dtype=self.learner.dtype)
        freeze(best)
        torch.nn.Module.to(best, device)
        return metrics | {"best": self._measured(best, device)}

    def _measured(self, part: Learner, device: torch.device) -> dict[str, float]:
        """Return the metrics of `part` in place of the learner, on the image seeds from CONFIRMING_SEED on."""
        whole = self.parts.model
        model = (
            PripModel(part, whole.decoder) if isinstance(part, PreferenceEncoder) else PripModel(whole.encoder, part)
        )
        policy = _policy(replace(self.parts, model=model), self.settings, self.policy.offloading)
        return replace(self.dev, policy=policy, first_seed=CONFIRMING_SEED).measure(part, self.reference, device)

    def save_learner(self, folder: Path) -> None:
        """Write the learner with its tokenizer."""
        self.learner.save_pretrained(folder)
        save_tokenizer(getattr(self.parts.processor, f"{self.settings.learns}_tokenizer"), folder)

    def fingerprints(self) -> dict[str, str]:
        """Return a hash of each frozen part, in the first process; others, which hold the same parts, hash nothing."""
        return {} if process_rank() else fingerprints(self.frozen)

    def check_frozen(self, before: dict[str, str]) -> None:
        """Raise PripError, in the first process, if a frozen part differs from its hash in `before`."""
        if not process_rank():
            check_unchanged(STAGE, self.frozen, before)


def check_parts(parts: RlParts, settings: RlSettings) -> None:
    """Raise InputError if the model lacks the part that the settings train, or no prompt of a split leaves room for a
    modifier. `run` calls it before the stage's folder is replaced."""
    if getattr(parts.model, settings.learns) is None:
        raise InputError("learns: expected decoder for a decoder that reads no pivot, got encoder")
    policy = _policy(parts, settings, Offloading({}))
    for split, prompts in (("train", parts.train_prompts), ("dev", parts.dev_prompts)):
        if not any(policy.has_room(list(dict.fromkeys(prompts)))):
            raise InputError(f"user_prompts: expected some {split} prompts with room for a modifier, got none")


def build_context(parts: RlParts, settings: RlSettings, folder: Path) -> RlContext:
    """Return the context of a run in the stage's `folder`, with all parts but the learner frozen.

    The statistics of the rewards are read, or measured if no file has them. The parts must pass `check_parts`.
    """
    rollouts = settings.rollouts
    movable: dict[str, object] = {"generator": parts.generator, "rewards": list(parts.rewards)}
    movable |= {name: part for name, part in parts.model.named_children() if name != settings.learns}
    offloading = Offloading(movable, settings.offload, parts_device(settings))
    cache = PlainScoreCache(folder / "baseline")
    images = ImageScorer(parts.generator, parts.rewards, cache, rollouts.chunk.images, offloading)
    statistics = reward_statistics(parts, settings, folder, images)
    scorer = GainScorer(images, StandardisedSum(parts.rewards, statistics.means, statistics.deviations))
    policy = _policy(parts, settings, offloading)
    dev = _with_room(policy, "dev", parts.dev_prompts)
    indices = permutation_indices(0, min(rollouts.dev_prompts, len(dev)), len(dev), STAGE, "dev")
    dev_prompts = [dev[index] for index in indices]
    context = RlContext(
        settings=settings,
        folder=folder,
        parts=parts,
        policy=policy,
        scorer=scorer,
        reference=copy.deepcopy(getattr(parts.model, settings.learns)),
        train_prompts=_with_room(policy, "train", parts.train_prompts),
        dev=DevSplit(dev_prompts, rollouts.dev_images_per_prompt, policy, scorer, rollouts.chunk.score),
    )
    for part in context.frozen.values():
        freeze(part)
    return context


def _policy(parts: RlParts, settings: RlSettings, offloading: Offloading) -> Policy:
    rollouts = settings.rollouts
    refiner, token_budget = Refiner(parts.model, parts.processor), rollouts.token_budget
    if rollouts.counted_by == "generator":
        refiner = refiner.counted_by(parts.generator)
        token_budget = min(token_budget, refiner.token_limit)
    return Policy(refiner, rollouts.max_new_tokens, token_budget, rollouts.chunk.refine, offloading)


def _with_room(policy: Policy, split: str, user_prompts: Sequence[str]) -> list[str]:
    distinct = list(dict.fromkeys(user_prompts))
    kept = [prompt for prompt, has_room in zip(distinct, policy.has_room(distinct), strict=True) if has_room]
    if len(kept) < len(distinct):
        _log.warning(
            "leaving out %d of %d %s prompts without room for a modifier",
            len(distinct) - len(kept),
            len(distinct),
            split,
        )
    return kept
