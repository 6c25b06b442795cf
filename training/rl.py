"""Stage 3: train the preference encoder end to end, by PPO on the rewards of the refined prompts' images (Eq. 3)."""

from __future__ import annotations

import copy
import logging
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prip.errors import InputError, PripError
from prip.modeling import PreferenceEncoder, PripModel
from prip.processing import save_tokenizer
from prip.refiner import Refiner
from prip.rewards import StandardisedSum

from . import ppo
from .baselines import BaselineCache, ImageScorer
from .data.hashing import hash_of_texts
from .frozen import fingerprint, freeze
from .harness import StageModule, stage_folder, train
from .optimizers import build_optimizer, build_scheduler, train_only
from .preview import Column, write_preview
from .refiner_folder import publish_refiner, training_record, write_refiner
from .rl_parts import DEV_SEED, RlParts, image_seed, load_parts, part_folders, prompts_file, reward_statistics
from .rollouts import ActionBatch, Policy, Refinement, Scores, score_refinements, write_rollouts
from .seeds import derive_seed, permutation_indices
from .settings import LoopSettings, OptimizerSettings, PpoSettings, RlSettings, RolloutSettings

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Experience:
    """Rollouts of an iteration as the updates read them; all but `batch` are float32 (batch, length)."""

    batch: ActionBatch
    old: Tensor
    """Log-probabilities of the actions when they were sampled"""
    reference: Tensor
    """Those given the warmed-up encoder"""
    advantages: Tensor
    values: Tensor
    returns: Tensor


class RlModule(StageModule):
    """Proximal policy optimisation of the encoder, and of the value head where there is one; all else is frozen.

    A training step is an iteration: rollouts, then epochs over their minibatches. Dropout is off throughout.
    """

    stage = "rl"
    starts_trained = True

    def __init__(
        self,
        parts: RlParts,
        folder: Path,
        total: StandardisedSum,
        scorer: ImageScorer,
        *,
        seed: int,
        rollouts: RolloutSettings,
        ppo: PpoSettings,
        loop: LoopSettings,
        optimizer: OptimizerSettings,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.encoder, self.decoder = parts.model.encoder, parts.model.decoder
        self.reference = copy.deepcopy(parts.model.encoder)
        self.folder, self.total, self.scorer, self.seed = folder, total, scorer, seed
        self.rollouts, self.ppo, self.loop, self.optimizer = rollouts, ppo, loop, optimizer
        self.policy = Policy(Refiner(parts.model, parts.processor), rollouts.max_new_tokens, rollouts.token_budget)
        self.train_prompts = self._with_room("train", parts.train_prompts)
        dev = self._with_room("dev", parts.dev_prompts)
        places = permutation_indices(0, min(rollouts.dev_prompts, len(dev)), len(dev), self.stage, "dev")
        self.dev_prompts = [dev[place] for place in places]
        self.value_head = None
        if ppo.baseline == "value":
            self.value_head = nn.Linear(self.decoder.lm.config.get_text_config().hidden_size, 1)
            nn.init.zeros_(self.value_head.weight)
            nn.init.zeros_(self.value_head.bias)
        self.trained = train_only(self, "encoder.*", *(["value_head.*"] if self.value_head else []))
        self.frozen = {"decoder": self.decoder, "reference": self.reference, "generator": scorer.generator}
        self.frozen |= {f"reward {reward.name}": reward for reward in scorer.rewards}
        for part in self.frozen.values():
            freeze(part)
        assert not any(parameter.requires_grad for parameter in self.decoder.parameters())
        self._before: dict[str, str] = {}
        self.train(False)

    def train(self, mode: bool = True) -> RlModule:
        """Stays in eval mode whatever is asked: T5's dropout would make new and old log-probabilities differ."""
        super().train(False)
        return self

    def _with_room(self, split: str, user_prompts: Sequence[str]) -> list[str]:
        distinct = list(dict.fromkeys(user_prompts))
        kept = [prompt for prompt, room in zip(distinct, self.policy.has_room(distinct), strict=True) if room]
        if not kept:
            raise InputError(f"user_prompts: wanted some of the {split} split that leave room for a modifier, got none")
        if len(kept) < len(distinct):
            _log.warning(
                "%d of %d %s prompts leave no room for a modifier", len(distinct) - len(kept), len(distinct), split
            )
        return kept

    def batch_at(self, step: int) -> dict[str, Any]:
        """Returns the iteration, its user prompts, and the image seeds of each: a list of images_per_prompt."""
        total = self.loop.batch_size * self.trainer.world_size
        places = permutation_indices(step * total, total, len(self.train_prompts), self.seed, self.stage, "order")
        prompts = [self.train_prompts[place] for place in places[self.global_rank :: self.trainer.world_size]]
        chance = random.Random(derive_seed(self.seed, self.stage, "image seeds", step, self.global_rank))
        pool, count = self.rollouts.seed_pool, self.rollouts.images_per_prompt
        seeds = [[image_seed(prompt, place, pool) for place in chance.sample(range(pool), count)] for prompt in prompts]
        return {"iteration": step, "user_prompts": prompts, "seeds": seeds}

    def training_step(self, batch: dict[str, Any], step: int) -> None:
        iteration, samples = batch["iteration"], self.rollouts.samples_per_prompt
        prompts = [prompt for prompt in batch["user_prompts"] for _ in range(samples)]
        image_seeds = [own for own in batch["seeds"] for _ in range(samples)]
        seed = derive_seed(self.seed, self.stage, "sample", iteration, self.global_rank)
        refinements = self.policy.refine(prompts, 1.0, [(seed, place) for place in range(len(prompts))])
        scores = score_refinements(self.scorer, self.total, refinements, image_seeds)
        experience, metrics = self.experience(refinements, scores)
        rows = experience.old.sum(dim=1).cpu()
        write_rollouts(self.folder / "rollouts", iteration, refinements, image_seeds, scores, rows)
        metrics |= self.learn(experience, iteration)
        self.log_dict(metrics)
        self.log("reward", scores.gain.mean(), prog_bar=True)
        every = self.rollouts.preview_every
        if every and (iteration % every == 0 or iteration + 1 == self.loop.steps):
            self.preview(self.folder / "previews" / f"iteration-{iteration:06}.png")
        schedule: Any = self.lr_schedulers()
        schedule.step()

    @torch.no_grad()
    def experience(self, refinements: Sequence[Refinement], scores: Scores) -> tuple[Experience, dict[str, float]]:
        """Returns what the updates read, and the metrics of these rollouts."""
        batch = self.policy.collate(refinements).to(self.device)
        mask, gain = batch.mask, scores.gain.to(self.device)
        logits, hidden = self.policy.score(self.encoder, batch)
        old = ppo.token_log_probabilities(logits, batch.allowed, batch.actions, mask)
        reference = ppo.token_log_probabilities(
            self.policy.score(self.reference, batch)[0], batch.allowed, batch.actions, mask
        )
        limit, count = self.scorer.generator.token_limit, self.scorer.generator.count_tokens
        metrics = {
            "kl": ppo.masked_mean(old - reference, mask).item(),
            "entropy": ppo.masked_mean(ppo.token_entropy(logits, batch.allowed, mask), mask).item(),
            "response_length": mask.sum(dim=1).float().mean().item(),
            "distinct_prompts": len({one.refined_prompt for one in refinements}) / len(refinements),
            "over_token_limit": sum(count(one.refined_prompt) > limit for one in refinements) / len(refinements),
        }
        for name, refined in scores.refined.items():
            metrics[f"reward_{name}"] = (refined - scores.plain[name]).mean().item()
        if self.value_head is None:
            groups = ppo.group_advantages(gain, self.rollouts.samples_per_prompt)
            advantages = torch.where(mask, groups.unsqueeze(1), 0)
            nothing = torch.zeros_like(old)
            return Experience(batch, old, reference, advantages, nothing, nothing), metrics
        values = torch.where(mask, self.value_head(hidden.float()).squeeze(-1), 0)
        rewards = ppo.penalised_rewards(gain, old, reference, mask, self.ppo.kl)
        advantages, returns = ppo.generalised_advantages(rewards, values, mask, self.ppo.discount, self.ppo.trace)
        metrics["explained_variance"] = ppo.explained_variance(values, returns, mask).item()
        return Experience(batch, old, reference, ppo.whiten(advantages, mask), values, returns), metrics

    def learn(self, experience: Experience, iteration: int) -> dict[str, float]:
        """Takes the optimizer steps of an iteration; returns their mean metrics."""
        optimizer: Any = self.optimizers()
        collected: list[dict[str, float]] = []
        for epoch in range(self.ppo.epochs):
            seed = derive_seed(self.seed, self.stage, "minibatches", iteration, epoch, self.global_rank)
            order = torch.randperm(len(experience.batch), generator=torch.Generator().manual_seed(seed))
            for rows in order.split(self.ppo.minibatch):
                loss, metrics = self.loss(experience, rows.to(self.device))
                optimizer.zero_grad()
                self.manual_backward(loss)
                limit = self.optimizer.clip or math.inf
                norm = nn.utils.clip_grad_norm_(self.encoder.parameters(), limit)
                if self.value_head is not None:
                    nn.utils.clip_grad_norm_(self.value_head.parameters(), limit)
                metrics["gradient_norm"] = norm.item()
                optimizer.step()
                collected.append(metrics)
        return {name: sum(one[name] for one in collected) / len(collected) for name in collected[0]}

    def loss(self, experience: Experience, rows: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Returns the loss on the rollouts `rows`, int64 (n,), and its metrics.

        The value loss moves the value head alone, all the rest the encoder alone: no weight between them is needed.
        """
        batch, settings = experience.batch.rows(rows), self.ppo
        mask, old = batch.mask, experience.old[rows]
        logits, hidden = self.policy.score(self.encoder, batch)
        new = ppo.token_log_probabilities(logits, batch.allowed, batch.actions, mask)
        policy_loss = ppo.policy_loss(new, old, experience.advantages[rows], mask, settings.ratio_clip)
        loss = policy_loss
        metrics = {
            "policy_loss": policy_loss.item(),
            "clip_fraction": ppo.clip_fraction(new, old, mask, settings.ratio_clip).item(),
        }
        if settings.entropy:
            loss = loss - settings.entropy * ppo.masked_mean(ppo.token_entropy(logits, batch.allowed, mask), mask)
        if self.value_head is None:
            penalty = ppo.kl_loss(new, experience.reference[rows], mask)
            metrics["kl_loss"] = penalty.item()
            return loss + settings.kl * penalty, metrics
        values = self.value_head(hidden.detach().float()).squeeze(-1)
        value_loss = ppo.value_loss(
            values, experience.values[rows], experience.returns[rows], mask, settings.value_clip
        )
        metrics["value_loss"] = value_loss.item()
        return loss + value_loss, metrics

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(self.optimizer, self.trained)
        return {"optimizer": optimizer, "lr_scheduler": build_scheduler(self.optimizer, optimizer, self.loop.steps)}

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Refines the chosen dev prompts greedily and draws them with fixed seeds.

        Returns dev_reward (mean gain over plain, in the standardised sum), the raw gain of each reward, dev_kl (to D
        given the warmed-up encoder: exact, in nats per token), and dev_modifiers and dev_response_length of a prompt.
        """
        refinements = self.policy.refine(self.dev_prompts)
        seeds = [list(range(DEV_SEED, DEV_SEED + self.rollouts.dev_images_per_prompt)) for _ in refinements]
        scores = score_refinements(self.scorer, self.total, refinements, seeds)
        batch = self.policy.collate(refinements).to(self.device)
        new, reference = (
            ppo.allowed_log_softmax(self.policy.score(encoder, batch)[0], batch.allowed)
            for encoder in (self.encoder, self.reference)
        )
        difference = torch.where(new.isfinite(), new - reference, 0)
        kl = (new.exp() * difference).sum(dim=-1)
        separator = self.policy.refiner.constraints.table.separator
        metrics = {
            "dev_reward": scores.gain.mean().item(),
            "dev_kl": ppo.masked_mean(kl, batch.mask).item(),
            "dev_modifiers": sum(one.actions.count(separator) + 1 for one in refinements) / len(refinements),
            "dev_response_length": batch.mask.sum(dim=1).float().mean().item(),
        }
        for name, refined in scores.refined.items():
            metrics[f"dev_reward_{name}"] = (refined - scores.plain[name]).mean().item()
        return metrics

    def preview(self, path: Path) -> None:
        """Writes the picture of the first dev prompts, plain and refined greedily."""
        refinements = self.policy.refine(self.dev_prompts[: self.rollouts.preview_prompts])
        owners, seeds = [one.user_prompt for one in refinements], [DEV_SEED] * len(refinements)
        plain = self.scorer.generator(owners, seeds)
        refined = self.scorer.generator([one.refined_prompt for one in refinements], seeds)
        gains = self.total(owners, refined) - self.total(owners, plain)
        rows = zip(refinements, plain.cpu(), refined.cpu(), gains.tolist(), strict=True)
        write_preview(path, [Column(one.user_prompt, one.refined_prompt, a, b, gain) for one, a, b, gain in rows])

    def on_train_start(self) -> None:
        self._before = {name: fingerprint(part) for name, part in self.frozen.items()}

    def on_train_end(self) -> None:
        """Raises PripError if a frozen part changed, which nothing here may do."""
        changed = [name for name, part in self.frozen.items() if fingerprint(part) != self._before[name]]
        if changed:
            raise PripError(f"rl: frozen parts changed in training: {', '.join(changed)}")

    def export(self, folder: Path) -> None:
        self.encoder.save_pretrained(folder)
        save_tokenizer(self.policy.refiner.processor.encoder_tokenizer, folder)


def run(settings: RlSettings, parts: RlParts | None = None) -> dict[str, Any]:
    """Trains the encoder and returns its metrics; the best is in RUN/rl/part, the whole refiner in RUN/rl/refiner.

    parts: in place of those that the settings name.
    """
    parts = parts or load_parts(settings)
    read = {"encoder": parts.model.encoder, "decoder": parts.model.decoder, "generator": parts.generator}
    read |= {f"reward {reward.name}": reward for reward in parts.rewards}
    inputs = {name: fingerprint(part) for name, part in read.items()}
    inputs["sampling"] = getattr(parts.generator, "sampling", "")
    inputs["user_prompts"] = hash_of_texts([*parts.train_prompts, "", *parts.dev_prompts])
    folder = stage_folder(settings, RlModule.stage, inputs)
    module = build_module(parts, settings, folder)
    metrics = train(module, settings, settings.loop, folder, monitor="dev_reward", mode="max")
    if not (folder / "refiner").is_dir():
        best = PripModel(PreferenceEncoder.from_pretrained(folder / "part"), parts.model.decoder.cpu())
        write_refiner(folder / "refiner", best, parts.processor, _record(settings, folder))
    if settings.push_to_hub is not None:
        publish_refiner(folder / "refiner", settings.push_to_hub, settings.private)
    return metrics


def build_module(parts: RlParts, settings: RlSettings, folder: Path) -> RlModule:
    """Returns the module that trains parts.model.encoder, with the rewards' statistics read or measured."""
    rollouts = settings.rollouts
    scorer = ImageScorer(parts.generator, parts.rewards, BaselineCache(folder / "baseline.sqlite"))
    statistics = reward_statistics(parts, settings, folder, scorer)
    return RlModule(
        parts,
        folder,
        StandardisedSum(parts.rewards, statistics.means, statistics.deviations),
        scorer,
        seed=settings.seed,
        rollouts=rollouts,
        ppo=settings.ppo,
        loop=settings.loop,
        optimizer=settings.optimizer,
    )


def _record(settings: RlSettings, folder: Path) -> dict[str, Any]:
    encoder_folder, decoder_folder = part_folders(settings)
    stages = {f"world/{path.name}": path for path in sorted((settings.run / "world").glob("*"))}
    stages |= {"prepare": settings.run / "prepare", "encoder": encoder_folder.parent, "decoder": decoder_folder.parent}
    return training_record(settings.run, stages | {"rl": folder}, [prompts_file(settings)])
