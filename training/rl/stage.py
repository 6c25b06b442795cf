"""Stage 3: train the preference encoder end to end, by PPO on the rewards of the refined prompts' images (Eq. 3).

Or the prompt decoder, behind a frozen encoder or alone: the paper's peers are trained so.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prip.files import hash_of_texts
from prip.fingerprints import fingerprints
from prip.modeling import PreferenceEncoder, PripModel, PromptDecoder

from ..engine import ranks
from ..engine.loop import train
from ..engine.optimizers import build_optimizer, build_scheduler, train_only, trained_names
from ..engine.sharding import clipped_step, forward
from ..engine.stage_module import StageModule
from ..rollouts.policy import ActionBatch, Refinement
from ..rollouts.scores import Scores, write_rollouts
from ..runs.pinned_settings import pin_rl
from ..runs.processes import process_rank
from ..runs.refiner_folder import publish_refiner, training_record, write_refiner
from ..runs.run_folder import stage_folder
from ..runs.seeds import derive_seed
from ..settings import LoopSettings, OptimizerSettings, PpoSettings, RlSettings
from . import ppo
from .context import STAGE, RolloutBatch, Workshop, build_workshop
from .log_probabilities import gather_replay, replay, rollout_metrics
from .memory import rl_memory
from .parts import RlParts, drawing_inputs, load_parts, part_folders, prompts_file

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Experience:
    """Rollouts of an iteration as the updates read them; all but `batch` and `lengths` are float32 (batch, length)."""

    batch: ActionBatch
    """On the CPU"""
    lengths: Tensor
    """int64 (rollouts of all processes,), on the CPU: how many actions each has"""
    old: Tensor
    """Log-probabilities of the actions when they were sampled"""
    reference: Tensor
    """Those of the warmed-up model"""
    advantages: Tensor
    values: Tensor
    returns: Tensor


class RlModule(StageModule):
    """Proximal policy optimisation of the part that learns, the encoder or the decoder, and of the value head where
    there is one; all else is frozen.

    A training step is an iteration: rollouts, then epochs over their minibatches. Dropout is off throughout. Several
    processes take the steps of one process with the batches of all: each makes its share of the rollouts and keeps it,
    advantages are whitened over all of them, and the minibatches are those of one process. What is frozen is no
    submodule, so that no strategy sends it around.
    """

    stage = STAGE
    starts_trained = True

    def __init__(
        self, workshop: Workshop, *, ppo: PpoSettings, loop: LoopSettings, optimizer: OptimizerSettings
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.workshop, self.policy, self.scorer, self.total = (
            workshop,
            workshop.policy,
            workshop.scorer,
            workshop.total,
        )
        self.ppo, self.loop, self.optimizer = ppo, loop, optimizer
        self.train_prompts = workshop.train_prompts
        self.add_module(workshop.learns, workshop.learner)
        self.value_head = None
        if ppo.baseline == "value":
            width = workshop.parts.model.decoder.lm.config.get_text_config().hidden_size
            self.value_head = nn.Linear(width, 1)
            nn.init.zeros_(self.value_head.weight)
            nn.init.zeros_(self.value_head.bias)
        names = trained_names(workshop.learner)
        self.trained = train_only(self, *names, *(["value_head.*"] if self.value_head else []))
        self.images_drawn: Tensor
        self.register_buffer("images_drawn", torch.zeros(2, dtype=torch.int64))
        self._before: dict[str, str] = {}
        self.train(False)

    def train(self, mode: bool = True) -> RlModule:
        """Stays in eval mode whatever is asked: T5's dropout would make new and old log-probabilities differ."""
        super().train(False)
        return self

    def setup(self, stage: str) -> None:
        """Logs the memory table: here the strategy has not shared out yet what learns."""
        if self.trainer.is_global_zero:
            device = self.trainer.strategy.root_device
            _log.info("%s", rl_memory(self.workshop, self.optimizer.name, self.ppo.minibatch, device))

    def on_fit_start(self) -> None:
        self.workshop.settle(self.device)

    def batch_at(self, step: int) -> dict[str, Any]:
        """Returns the iteration's user prompts and seeds, those of this process: a RolloutBatch, as a dict."""
        return asdict(self.workshop.batch(step, self.global_rank, self.trainer.world_size))

    def training_step(self, given: dict[str, Any], step: int) -> None:
        batch = RolloutBatch(**given)
        iteration = batch.iteration
        refinements = self.policy.refine(batch.user_prompts, 1.0, batch.sample_seeds)
        scores = self.workshop.score(iteration, refinements, batch.image_seeds)
        with self.workshop.residence.using("decoder"):
            experience, metrics = self.experience(refinements, scores)
            write_rollouts(
                self.workshop.folder / "rollouts",
                iteration,
                refinements,
                batch.image_seeds,
                scores,
                experience.old.sum(dim=1).cpu(),
                ranks.rank(),
                ranks.count(),
            )
            metrics |= self.learn(experience, iteration)
        reward = metrics.pop("reward")
        self.log_dict(metrics)
        self.log("reward", reward, prog_bar=True)
        self.workshop.preview(iteration, last=iteration + 1 == self.loop.steps)
        schedule: Any = self.lr_schedulers()
        schedule.step()

    @torch.no_grad()
    def experience(self, refinements: Sequence[Refinement], scores: Scores) -> tuple[Experience, dict[str, float]]:
        """Returns what the updates read of this process' rollouts, and the metrics of those of all."""
        group, settings = self.workshop.rollouts.samples_per_prompt, self.ppo
        batch = self.policy.collate(refinements)
        own = replay(self.workshop, self.workshop.learner, batch, self.device, self.value_head)
        metrics = rollout_metrics(self.workshop, refinements, scores, own, self.device)
        self.images_drawn += torch.tensor([metrics["drawn_refined"], metrics["drawn_plain"]]).to(self.images_drawn)
        gain, own_mask = scores.gain.to(self.device), batch.mask.to(self.device)
        lengths = ranks.gather_rows(own_mask.sum(dim=1), group)
        if self.value_head is None:
            advantages = torch.where(own_mask, ppo.group_advantages(gain, group).unsqueeze(1), 0)
            nothing = torch.zeros_like(own.old)
            return Experience(batch, lengths.cpu(), own.old, own.reference, advantages, nothing, nothing), metrics
        whole = gather_replay(own, group)
        mask = torch.arange(whole.old.shape[1], device=self.device) < lengths.unsqueeze(1)
        rewards = ppo.penalised_rewards(ranks.gather_rows(gain, group), whole.old, whole.reference, mask, settings.kl)
        advantages, returns = ppo.generalised_advantages(rewards, whole.values, mask, settings.discount, settings.trace)
        metrics["explained_variance"] = ppo.explained_variance(whole.values, returns, mask).item()
        whitened, returns = (
            ranks.rows_of_this(one, group)[:, : own_mask.shape[1]] for one in (ppo.whiten(advantages, mask), returns)
        )
        return Experience(batch, lengths.cpu(), own.old, own.reference, whitened, own.values, returns), metrics

    def learn(self, experience: Experience, iteration: int) -> dict[str, float]:
        """Takes the optimizer steps of an iteration; returns their mean metrics."""
        optimizer: Any = self.optimizers()
        collected: list[dict[str, float]] = []
        norms: list[float] = []
        for epoch in range(self.ppo.epochs):
            seed = derive_seed(self.workshop.seed, self.stage, "minibatches", iteration, epoch, 0)
            order = torch.randperm(len(experience.lengths), generator=torch.Generator().manual_seed(seed))
            for rows in order.split(self.ppo.minibatch):
                collected.append(self._backward(experience, rows))
                norms.append(clipped_step(self, optimizer, self.trained, self.optimizer.clip))
        names = list(collected[0])
        sums = ranks.total(torch.tensor([[one[name] for name in names] for one in collected], device=self.device))
        means = {name: sum(sums[:, place].tolist()) / len(collected) for place, name in enumerate(names)}
        return means | {"gradient_norm": sum(norms) / len(norms)}

    def _backward(self, experience: Experience, rows: Tensor) -> dict[str, float]:
        """Leaves the gradient of a minibatch, places among the rollouts of all processes; returns its metrics, of which
        each process has the terms of its own rollouts.

        Gradients are averaged over the processes after each chunk. A process that has no rollout left takes part with
        one of weight 0.
        """
        group, chunk = self.workshop.rollouts.samples_per_prompt, self.workshop.rollouts.chunk.update
        shares = [len(ranks.local_places(rows, process, group)) for process in range(ranks.count())]
        own, actions = ranks.local_places(rows, ranks.rank(), group), int(experience.lengths[rows].sum())
        collected: dict[str, float] = {}
        for start in range(0, max(shares), chunk):
            some = own[start : start + chunk]
            weight = min(len(some), 1)
            loss, metrics = forward(self, experience, some if weight else torch.tensor([0]), actions)
            self.manual_backward(loss * (weight * ranks.count()))
            for name, value in metrics.items():
                collected[name] = collected.get(name, 0.0) + weight * value
        return collected

    def forward(
        self, experience: Experience, rows: Tensor, actions: int | None = None
    ) -> tuple[Tensor, dict[str, float]]:
        """Returns the loss on the rollouts `rows`, int64 (n,), and its metrics.

        actions: how many actions the means are taken over, where `rows` are only some of those rollouts. The value loss
        moves the value head alone, all the rest the part that learns alone; their gradients are clipped as one.
        """
        settings = self.ppo
        batch = experience.batch.rows(rows).to(self.device)
        rows = rows.to(self.device)
        mask, old = batch.mask, experience.old[rows]
        logits, hidden = self.policy.score(self.workshop.learner, batch)
        allowed = batch.allowed
        new = ppo.token_log_probabilities(logits, allowed, batch.actions, mask)
        policy_loss = ppo.policy_loss(new, old, experience.advantages[rows], mask, settings.ratio_clip, actions)
        loss = policy_loss
        metrics = {
            "policy_loss": policy_loss.item(),
            "clip_fraction": ppo.clip_fraction(new, old, mask, settings.ratio_clip, actions).item(),
        }
        if settings.entropy:
            entropy = ppo.token_entropy(logits, allowed, mask)
            loss = loss - settings.entropy * ppo.masked_mean(entropy, mask, actions)
        if self.value_head is None:
            penalty = ppo.kl_loss(new, experience.reference[rows], mask, actions)
            metrics["kl_loss"] = penalty.item()
            return loss + settings.kl * penalty, metrics
        values = self.value_head(hidden.detach().float()).squeeze(-1)
        value_loss = ppo.value_loss(
            values, experience.values[rows], experience.returns[rows], mask, settings.value_clip, actions
        )
        metrics["value_loss"] = value_loss.item()
        return loss + value_loss, metrics

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(self.optimizer, self.trained)
        return {"optimizer": optimizer, "lr_scheduler": build_scheduler(self.optimizer, optimizer, self.loop.steps)}

    def evaluate(self) -> dict[str, float]:
        """Returns what DevSplit.measure does, and how many images were drawn so far in training, of refined prompts and
        of plain ones."""
        metrics = self.workshop.dev.measure(self.workshop.learner, self.workshop.reference, self.device)
        refined, plain = self.images_drawn.tolist()
        return metrics | {"images_refined": refined, "images_plain": plain}

    def on_train_start(self) -> None:
        self._before = self.workshop.fingerprints()

    def on_train_end(self) -> None:
        self.workshop.check_frozen(self._before)

    def export(self, folder: Path) -> None:
        self.workshop.save_learner(folder)


def run(settings: RlSettings, parts: RlParts | None = None) -> dict[str, Any]:
    """Trains the part that learns and returns the metrics; the best is in RUN/rl/part, the whole refiner in
    RUN/rl/refiner.

    parts: in place of those that the settings name.
    """
    settings = pin_rl(settings)
    parts = parts or load_parts(settings)
    inputs = fingerprints(dict(parts.model.named_children())) | drawing_inputs(parts.generator, parts.rewards)
    inputs["user_prompts"] = hash_of_texts([*parts.train_prompts, "", *parts.dev_prompts])
    folder = stage_folder(settings, STAGE, inputs)
    if settings.algorithm == "ppo":
        module = build_module(parts, settings, folder)
        clip = settings.optimizer.clip
        metrics = train(module, settings, settings.loop, folder, monitor="dev_reward", mode="max", clip=clip)
    else:
        from .trl_trainer import train_by_trl

        metrics = train_by_trl(build_workshop(parts, settings, folder), settings)
    drawn = (int(metrics["last"][name]) for name in ("images_refined", "images_plain"))
    _log.info("rl: drew %d images of refined prompts and %d of plain ones, each of which once", *drawn)
    if process_rank() == 0 and not (folder / "refiner").is_dir():
        best = _best(parts.model.cpu(), settings, folder / "part")
        write_refiner(folder / "refiner", best, parts.processor, _record(settings, folder))
    if process_rank() == 0 and settings.push_to_hub is not None:
        publish_refiner(folder / "refiner", settings.push_to_hub, settings.private)
    return metrics


def build_module(parts: RlParts, settings: RlSettings, folder: Path) -> RlModule:
    """Returns the module that trains what settings.learns names of parts.model."""
    workshop = build_workshop(parts, settings, folder)
    return RlModule(workshop, ppo=settings.ppo, loop=settings.loop, optimizer=settings.optimizer)


def _best(model: PripModel, settings: RlSettings, part: Path) -> PripModel:
    """Returns the model with the best of the part that learnt."""
    if settings.learns == "encoder":
        return PripModel(PreferenceEncoder.from_pretrained(part), model.decoder)
    return PripModel(model.encoder, PromptDecoder.from_pretrained(part))


def _record(settings: RlSettings, folder: Path) -> dict[str, Any]:
    encoder_folder, decoder_folder = part_folders(settings)
    stages = {f"world/{path.name}": path for path in sorted((settings.run / "world").glob("*"))}
    stages |= {"prepare": settings.run / "prepare", "rewrites": settings.run / "rewrites"}
    stages |= {"encoder": encoder_folder.parent, "decoder": decoder_folder.parent}
    return training_record(settings.run, stages | {"rl": folder}, [prompts_file(settings)])
