"""Stage 3: train the preference encoder end to end with PPO, rewarded by the images of the refined prompts (Eq. 3).

Optionally it trains the prompt decoder instead, behind a frozen encoder or alone, like the paper's baselines.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from prip.errors import CheckpointError, InputError
from prip.files import hash_of_texts
from prip.fingerprints import fingerprints
from prip.modeling import PreferenceEncoder, PripModel, PromptDecoder

from ..engine import ranks
from ..engine.loop import train
from ..engine.minibatches import balanced_minibatches, chunks_of_this, exchanged
from ..engine.optimizers import build_optimizer, build_scheduler, train_only, trained_names
from ..engine.sharding import clipped_step, for_backward
from ..engine.stage_module import StageModule
from ..rollouts.image_scorer import drawing_inputs
from ..rollouts.policy import ActionBatch, Refinement
from ..rollouts.scores import Scores
from ..runs.pinned_settings import pin_rl
from ..runs.processes import process_rank
from ..runs.refiner_folder import publish_refiner, training_record, write_refiner
from ..runs.run_folder import stage_folder
from ..runs.seeds import derive_seed
from ..settings import RlSettings
from . import ppo
from .context import STAGE, RlContext, RolloutBatch, build_context, check_parts
from .log_probabilities import ActionFigures, action_figures, rollout_metrics
from .memory import rl_memory
from .parts import RlParts, load_parts, part_folders, prompts_file
from .value_head import ValueHead

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Experience:
    """The rollouts of this process, as tensors for the updates."""

    batch: ActionBatch
    """On the CPU"""
    lengths: Tensor
    """int64 (rollouts of all processes,), on the CPU: number of actions of each"""
    figures: ActionFigures
    """Of the policy that sampled them"""
    advantages: Tensor
    """float32 (batch, length)"""
    returns: Tensor
    """float32 (batch, length); 0 without a value head"""


class RlModule(StageModule):
    """Proximal policy optimization of the learner and of the value head, if there is one; all else is frozen.

    A training step is an iteration: rollouts, then epochs over their minibatches. Dropout is off throughout. Several
    processes take the same steps as a single one with all their batches: each samples its share of the rollouts,
    advantages are whitened over all, and minibatches are those of a single process. Frozen parts are not submodules, so
    no strategy distributes them.
    """

    stage = STAGE
    starts_trained = True

    def __init__(self, context: RlContext) -> None:
        super().__init__()
        settings = context.settings
        self.automatic_optimization = False
        self.context, self.ppo, self.optimizer = context, settings.ppo, settings.optimizer
        self.add_module(settings.learns, context.learner)
        self.value_head: ValueHead | None = None
        if settings.ppo.baseline == "value":
            width = context.parts.model.decoder.lm.config.get_text_config().hidden_size
            self.value_head = ValueHead(width)
        names = trained_names(context.learner)
        self.trained = train_only(self, *names, *(["value_head.*"] if self.value_head else []))
        self.images_drawn: Tensor
        self.register_buffer("images_drawn", torch.zeros(2, dtype=torch.int64))
        self.kl_weight: Tensor | None
        adapts = settings.ppo.adaptive_kl is not None
        self.register_buffer("kl_weight", torch.tensor(settings.ppo.kl, dtype=torch.float64) if adapts else None)
        self._before: dict[str, str] = {}
        self.train(False)

    def train(self, mode: bool = True) -> RlModule:
        """Stay in eval mode: with T5's dropout, new and old log-probabilities would differ."""
        super().train(False)
        return self

    def setup(self, stage: str) -> None:
        """Log the memory table, before the strategy shards the learner."""
        if self.trainer.is_global_zero:
            _log.info("%s", rl_memory(self.context, self.trainer.strategy.root_device))

    def on_fit_start(self) -> None:
        self.context.settle(self.device)

    def batch_at(self, step: int) -> dict[str, Any]:
        """Return the share of this process in the iteration: a RolloutBatch as a dict."""
        return asdict(self.context.batch(step, self.global_rank, self.trainer.world_size))

    def training_step(self, batch: dict[str, Any], step: int) -> None:
        rollouts, context = RolloutBatch(**batch), self.context
        # Sample system prompts, draw their images, and score these against the plain images of the same seeds.
        refinements = context.policy.refine(rollouts.user_prompts, 1.0, rollouts.sample_seeds)
        scores = context.score(rollouts, refinements)
        with context.policy.offloading.using("decoder"):
            # Score the sampled tokens under policy and reference, and turn the scores into advantages.
            experience, metrics = self.experience(refinements, scores)
            figures = experience.figures
            context.write_rollouts(
                rollouts, refinements, scores, log_probabilities=figures.old.cpu(), reference=figures.reference.cpu()
            )
            # Update the learner on them.
            metrics |= self.learn(experience, rollouts.iteration)
        if self.kl_weight is not None and self.ppo.adaptive_kl is not None:
            metrics["kl_weight"] = self.kl_weight.item()
            self.kl_weight.fill_(ppo.adapted_weight(self.kl_weight.item(), metrics["kl"], self.ppo.adaptive_kl))
        reward = metrics.pop("reward")
        self.log_dict(metrics)
        self.log("reward", reward, prog_bar=True)
        context.preview(rollouts.iteration, last=rollouts.iteration + 1 == context.settings.loop.steps)
        cast(LambdaLR, self.lr_schedulers()).step()

    @torch.no_grad()
    def experience(self, refinements: Sequence[Refinement], scores: Scores) -> tuple[Experience, dict[str, float]]:
        """Return the experience of this process, and the metrics of the rollouts of all processes."""
        context, settings = self.context, self.ppo
        group = context.settings.rollouts.samples_per_prompt
        batch = context.policy.collate(refinements)
        figures = action_figures(context, context.learner, batch, self.device, self.value_head)
        metrics = rollout_metrics(context, refinements, scores, figures, self.device)
        self.images_drawn += torch.tensor([metrics["drawn_refined"], metrics["drawn_plain"]]).to(self.images_drawn)
        # Rollouts without a score take no part in the updates.
        batch = replace(batch, mask=batch.mask & ~scores.blackened.unsqueeze(1))
        gain, own_mask = scores.gain.to(self.device), batch.mask.to(self.device)
        lengths = ranks.gather_rows(own_mask.sum(dim=1), group)
        if self.value_head is None:
            advantages = ppo.group_advantages(gain, group, scored=~scores.blackened.to(self.device))
            advantages = torch.where(own_mask, advantages.unsqueeze(1), 0)
            return Experience(batch, lengths.cpu(), figures, advantages, torch.zeros_like(advantages)), metrics
        # Whitening needs the advantages of all rollouts; each process then keeps its own rows.
        whole = figures.gathered(group)
        mask = torch.arange(whole.old.shape[1], device=self.device) < lengths.unsqueeze(1)
        weight = self._kl_weight()
        rewards = ppo.penalized_rewards(ranks.gather_rows(gain, group), whole.old, whole.reference, mask, weight)
        advantages, returns = ppo.generalized_advantages(rewards, whole.values, mask, settings.discount, settings.trace)
        metrics["explained_variance"] = ppo.explained_variance(whole.values, returns, mask).item()
        whitened, returns = (
            ranks.rows_of_this(values, group)[:, : own_mask.shape[1]]
            for values in (ppo.whiten(advantages, mask), returns)
        )
        return Experience(batch, lengths.cpu(), figures, whitened, returns), metrics

    def _kl_weight(self) -> float:
        """Return the weight of the KL divergence from the reference in this iteration."""
        return self.ppo.kl if self.kl_weight is None else self.kl_weight.item()

    def learn(self, experience: Experience, iteration: int) -> dict[str, float]:
        """Take the optimizer steps of an iteration and return the means of their metrics."""
        optimizer = cast(LightningOptimizer, self.optimizers())
        collected: list[dict[str, float]] = []
        norms: list[float] = []
        minibatches = self._minibatches(len(experience.lengths), iteration)
        for rows in minibatches:
            collected.append(self._backward(experience, rows))
            if self._beyond_target(collected[-1]["update_kl"]):
                optimizer.zero_grad()
                if self.trainer.is_global_zero:
                    message = (
                        "iteration %d: took %d of %d optimizer steps: the policy moved more than %g nats per token"
                    )
                    _log.warning(message, iteration, len(norms), len(minibatches), self.ppo.target_kl)
                break
            norms.append(clipped_step(self, optimizer, self.trained, self.optimizer.clip))
        names = list(collected[0])
        values = torch.tensor([[metrics[name] for name in names] for metrics in collected], device=self.device)
        columns = ranks.total(values).T.tolist()
        means = {name: sum(column) / len(collected) for name, column in zip(names, columns, strict=True)}
        return means | {"gradient_norm": sum(norms) / max(1, len(norms)), "updates": float(len(norms))}

    def _minibatches(self, rollouts: int, iteration: int) -> list[Tensor]:
        """Return the indices of each optimizer step's rollouts, of all epochs."""
        group = self.context.settings.rollouts.samples_per_prompt
        result: list[Tensor] = []
        for epoch in range(self.ppo.epochs):
            seed = derive_seed(self.context.settings.seed, self.stage, "minibatches", iteration, epoch, 0)
            random = torch.Generator().manual_seed(seed)
            result += balanced_minibatches(rollouts, self.ppo.minibatch, group, random)
        return result

    def _beyond_target(self, share: float) -> bool:
        """Return whether the KL divergence of a minibatch, of which `share` is this process's, is beyond target_kl."""
        if self.ppo.target_kl is None:
            return False
        return ranks.total(torch.tensor([share], device=self.device)).item() > self.ppo.target_kl

    def _backward(self, experience: Experience, rows: Tensor) -> dict[str, float]:
        """Accumulate the gradient of a minibatch; return the terms of its metrics that this process contributes.

        `rows` are indices among the rollouts of all processes. Gradients are averaged over the processes with the last
        chunk; a process that has fewer rollouts than others contributes one with weight 0.
        """
        rollouts, actions = self.context.settings.rollouts, int(experience.lengths[rows].sum())
        collected: dict[str, float] = {}
        for chunk in chunks_of_this(rows, rollouts.chunk.update, rollouts.samples_per_prompt):
            with exchanged(self, chunk.last):
                loss, metrics = for_backward(self)(experience, chunk.rows, actions)
                self.manual_backward(loss * (chunk.weight * ranks.count()))
            for name, value in metrics.items():
                collected[name] = collected.get(name, 0.0) + chunk.weight * value
        return collected

    def forward(
        self, experience: Experience, rows: Tensor, actions: int | None = None
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss on the rollouts `rows` of this process, int64 (n,), and its metrics.

        The value loss trains only the value head, all other terms only the learner; their gradients are clipped
        together. `actions` is the number of actions in a mean, if `rows` are only a part of a minibatch.
        """
        settings, figures = self.ppo, experience.figures
        batch = experience.batch.rows(rows).to(self.device)
        rows = rows.to(self.device)
        mask, old = batch.mask, figures.old[rows]
        logits, hidden = self.context.policy.action_logits(self.context.learner, batch)
        allowed = batch.allowed
        new = ppo.token_log_probabilities(logits, allowed, batch.actions, mask)
        loss = ppo.policy_loss(new, old, experience.advantages[rows], mask, settings.ratio_clip, actions)
        metrics = {
            "policy_loss": loss.item(),
            "clip_fraction": ppo.clip_fraction(new, old, mask, settings.ratio_clip, actions).item(),
            "update_kl": ppo.kl_loss(old, new, mask, actions).item(),
        }
        if settings.entropy:
            entropy = ppo.token_entropy(logits, allowed, mask)
            loss = loss - settings.entropy * ppo.masked_mean(entropy, mask, actions)
        if self.value_head is None:
            penalty = ppo.kl_loss(new, figures.reference[rows], mask, actions)
            metrics["kl_loss"] = penalty.item()
            return loss + self._kl_weight() * penalty, metrics
        values = self.value_head(hidden.detach())
        value_loss = ppo.value_loss(
            values, figures.values[rows], experience.returns[rows], mask, settings.value_clip, actions
        )
        metrics["value_loss"] = value_loss.item()
        return loss + value_loss, metrics

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        head = [] if self.value_head is None else list(self.value_head.parameters())
        learner = self.trained[: len(self.trained) - len(head)]  # train_only returned the head last
        optimizer = build_optimizer(self.optimizer, learner, new=head, new_lr=self.ppo.value_lr)
        scheduler = build_scheduler(self.optimizer, optimizer, self.context.settings.loop.steps)
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raise CheckpointError for the value head of earlier versions, which read hidden states as they are."""
        if "value_head.weight" in checkpoint.get("state_dict", {}):
            raise CheckpointError(
                "resume: expected a value head that reads normalised hidden states, got one of an earlier version: "
                "start again with --overwrite"
            )

    def evaluate(self) -> dict[str, float]:
        """Return the metrics of the dev split and the images drawn in training so far, refined and plain."""
        metrics = self.context.dev.measure(self.context.learner, self.context.reference, self.device)
        refined, plain = self.images_drawn.tolist()
        return metrics | {"images_refined": refined, "images_plain": plain}

    def confirm(self, best_step: int, last_step: int) -> dict[str, dict[str, float]]:
        """Measure the dev split of the first, the best and the last learner on other image seeds."""
        return self.context.confirm(best_step, last_step, self.device)

    def on_train_start(self) -> None:
        self._before = self.context.fingerprints()

    def on_train_end(self) -> None:
        self.context.check_frozen(self._before)

    def export(self, folder: Path) -> None:
        self.context.save_learner(folder)


def run(settings: RlSettings, parts: RlParts | None = None) -> dict[str, Any]:
    """Train the learner and return the metrics; its best state is in RUN/rl/part, the refiner in RUN/rl/refiner.

    `parts` replaces the parts that the settings name.
    """
    settings = pin_rl(settings)
    if settings.algorithm != "ppo":
        check_processes(settings)
    parts = parts or load_parts(settings)
    check_parts(parts, settings)
    folder = stage_folder(settings, STAGE, {} if process_rank() else _input_hashes(parts))
    if settings.algorithm == "ppo":
        module, clip = build_module(parts, settings, folder), settings.optimizer.clip
        metrics = train(module, settings, settings.loop, folder, monitor="dev_reward", mode="max", clip=clip)
    else:
        from .trl_trainer import train_by_trl

        metrics = train_by_trl(build_context(parts, settings, folder))
    drawn = (int(metrics["last"][name]) for name in ("images_refined", "images_plain"))
    _log.info("rl: drew %d distinct images of refined prompts and %d of plain ones", *drawn)
    if process_rank() == 0 and not (folder / "refiner").is_dir():
        best = _best(parts.model.cpu(), settings, folder / "part")
        write_refiner(folder / "refiner", best, parts.processor, _record(settings, folder))
    if process_rank() == 0 and settings.push_to_hub is not None:
        publish_refiner(folder / "refiner", settings.push_to_hub, settings.private)
    return metrics


def _input_hashes(parts: RlParts) -> dict[str, str]:
    """Return the entries of inputs.json, which only the first process writes."""
    inputs = fingerprints(dict(parts.model.named_children())) | drawing_inputs(parts.generator, parts.rewards)
    return inputs | {"user_prompts": hash_of_texts([*parts.train_prompts, "", *parts.dev_prompts])}


def check_processes(settings: RlSettings) -> None:
    """Raise InputError unless there are `devices` processes: TRL's trainers start none themselves."""
    processes = int(os.environ.get("WORLD_SIZE", 1))
    if settings.devices != processes:
        raise InputError(
            f"devices: expected {processes}, the number of processes started by torchrun (algorithm: "
            f"{settings.algorithm} starts none), got {settings.devices}"
        )


def build_module(parts: RlParts, settings: RlSettings, folder: Path) -> RlModule:
    """Return the module that trains the part of `parts.model` named by `settings.learns`."""
    return RlModule(build_context(parts, settings, folder))


def _best(model: PripModel, settings: RlSettings, part: Path) -> PripModel:
    if settings.learns == "encoder":
        return PripModel(PreferenceEncoder.from_pretrained(part), model.decoder)
    return PripModel(model.encoder, PromptDecoder.from_pretrained(part))


def _record(settings: RlSettings, folder: Path) -> dict[str, Any]:
    encoder_folder, decoder_folder = part_folders(settings)
    stages = {f"world/{path.name}": path for path in sorted((settings.run / "world").glob("*"))}
    stages |= {"prepare": settings.run / "prepare", "rewrites": settings.run / "rewrites"}
    stages |= {"encoder": encoder_folder.parent, "decoder": decoder_folder.parent}
    return training_record(settings.run, stages | {"rl": folder}, [prompts_file(settings)])
