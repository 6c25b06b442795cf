"""Reinforcement learning by TRL's GRPOTrainer and RLOOTrainer, on the rollouts and rewards of PPO.

TRL's trainers bring losses, advantages and the loop. What they train, with which rollouts, what these earn, how the dev
split is measured and what is left behind is PRIP's, as under PPO.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.optim.lr_scheduler import LambdaLR
from transformers import PrinterCallback, TrainerCallback
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from prip.errors import InputError, require
from prip.files import replace_folder, replace_text
from prip.modeling import PreferenceEncoder

from ..engine import ranks
from ..engine.callbacks import NonFiniteError
from ..engine.csv_log import CsvLogger
from ..engine.optimizers import build_optimizer, learning_rate_factor, train_only
from ..rollouts.scores import write_rollouts
from ..runs.run_folder import finished_metrics, write_metrics
from ..runs.seeds import seed_everything
from ..settings import RlSettings
from .context import STAGE, Workshop
from .log_probabilities import replay, rollout_metrics
from .memory import rl_memory
from .trl_policy import Rollouts, TrlPolicy

_log = logging.getLogger(__name__)
PROGRESS_FILE = "progress.json"
"""In a checkpoint of TRL's: what the run knows besides. It is written last: a checkpoint without it is not whole."""
_LOGGED = {"loss": "loss", "grad_norm": "gradient_norm", "clip_ratio/region_mean": "clip_fraction"}
"""What TRL logs of an iteration's updates, and what it is called here"""


def train_by_trl(workshop: Workshop, settings: RlSettings) -> dict[str, Any]:
    """Trains the workshop's encoder and returns what is written to metrics.json; the best encoder is in FOLDER/part.

    Several processes are started by torchrun, not from here. Raises MissingExtraError without TRL, InputError for a
    minibatch that does not divide the rollouts, NonFiniteError for a reward, loss or gradient that is not finite.
    """
    if (finished := finished_metrics(workshop.folder)) is not None:
        return finished
    run = TrlRun(workshop, settings)
    metrics = run.train()
    if ranks.rank() == 0:
        write_metrics(workshop.folder, metrics)
    return metrics


class TrlRun(TrainerCallback):
    """A run by one of TRL's trainers: the reward function that it calls, and the callback around its steps."""

    def __init__(self, workshop: Workshop, settings: RlSettings) -> None:
        self.workshop, self.settings, self.loop = workshop, settings, settings.loop
        assert isinstance(workshop.learner, PreferenceEncoder) and isinstance(workshop.reference, PreferenceEncoder)
        self.encoder, self.reference = workshop.learner, workshop.reference
        self.logger = CsvLogger(workshop.folder / "logs" / "metrics.csv")
        self.best_step, self.best_metrics, self.last_metrics = -1, dict[str, float](), dict[str, float]()
        self.images_drawn = [0.0, 0.0]
        self._seconds_before, self._began = 0.0, time.monotonic()
        self.processes = int(os.environ.get("WORLD_SIZE", 1))
        if settings.devices != self.processes:
            raise InputError(
                f"devices: wanted {self.processes}, as many processes as torchrun started (algorithm: "
                f"{settings.algorithm} starts none itself), got {settings.devices}"
            )
        rows = settings.loop.batch_size * settings.rollouts.samples_per_prompt
        self.minibatch = settings.ppo.minibatch // self.processes
        if self.minibatch * self.processes != settings.ppo.minibatch or rows % self.minibatch:
            raise InputError(
                f"minibatch: wanted {self.processes} (processes) times a divisor of {rows} (batch_size x "
                f"samples_per_prompt) for algorithm: {settings.algorithm}, got {settings.ppo.minibatch}"
            )
        self.updates = settings.ppo.epochs * (rows // self.minibatch)
        """Optimizer steps of an iteration"""
        self.trained = train_only(self.encoder, "*")
        self.trainer = self._build_trainer()
        self.device: torch.device = self.trainer.args.device
        workshop.settle(self.device)
        if ranks.rank() == 0:
            _log.info("%s", rl_memory(workshop, settings.optimizer.name, settings.ppo.minibatch, self.device))

    def _build_trainer(self) -> Any:
        trl, datasets = require("trl", "train"), require("datasets", "train")
        base = {"grpo": "GRPOTrainer", "rloo": "RLOOTrainer"}[self.settings.algorithm]
        tokenizer = self.workshop.policy.refiner.processor.decoder_tokenizer
        pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        prompts = list(dict.fromkeys(self.workshop.train_prompts))
        ids = dict(zip(prompts, _prompt_ids(tokenizer, prompts), strict=True))
        self.rollouts = Rollouts(self.workshop.policy, ids, tokenizer.eos_token_id, pad)
        policy = TrlPolicy(self.encoder, self.rollouts)
        optimizer = build_optimizer(self.settings.optimizer, self.trained)
        factor = learning_rate_factor(self.settings.optimizer, self.loop.steps)
        schedule = LambdaLR(optimizer, lambda update: factor(update // self.updates))
        asked = [
            prompt
            for iteration in range(self.loop.steps)
            for prompt in self.workshop.whole_batch(iteration, self.processes).user_prompts[
                :: self.settings.rollouts.samples_per_prompt
            ]
        ]
        trainer = _trainer_class(getattr(trl, base))(
            model=policy,
            reward_funcs=self.reward,
            args=self._arguments(trl),
            train_dataset=datasets.Dataset.from_dict({"prompt": asked}),
            processing_class=tokenizer,
            callbacks=[self],
            optimizers=(optimizer, schedule),
        )
        trainer.remove_callback(PrinterCallback)
        del policy.forward  # TRL puts a fused language-model head before it, which knows no constraints
        if self.settings.ppo.kl:  # TRL would load the reference by name; it is here already
            trainer.beta = self.settings.ppo.kl
            trainer.ref_model = TrlPolicy(self.reference, self.rollouts).eval()
        return trainer

    def _arguments(self, trl: Any) -> Any:
        """Returns TRL's arguments: an iteration is a generation batch, an optimizer step one of PPO's minibatches."""
        settings, ppo = self.settings, self.settings.ppo
        common: dict[str, Any] = {
            "output_dir": str(self.workshop.folder / "state" / "trl"),
            "max_steps": self.loop.steps * self.updates,
            "num_iterations": ppo.epochs,
            "num_generations": settings.rollouts.samples_per_prompt,
            "max_completion_length": settings.rollouts.max_new_tokens,
            "temperature": 1.0,
            "epsilon": ppo.ratio_clip,
            "beta": 0.0,
            "shuffle_dataset": False,
            "max_grad_norm": settings.optimizer.clip,
            "save_strategy": "steps",
            "save_steps": self.loop.checkpoint_every * self.updates,
            "save_total_limit": 1,
            "logging_steps": self.updates,
            "logging_nan_inf_filter": False,
            "report_to": "none",
            "disable_tqdm": not settings.progress,
            "gradient_checkpointing": False,
            "bf16": self.loop.precision != "32-true",
            "use_cpu": settings.device == "cpu",
            "dataloader_pin_memory": False,
            "seed": settings.seed % 2**32,
        }
        if settings.algorithm == "grpo" and ppo.entropy:
            common["entropy_coef"] = ppo.entropy
        micro = _largest_divisor(self.minibatch, settings.rollouts.chunk.update)
        steps = settings.loop.batch_size * settings.rollouts.samples_per_prompt // micro
        shape = {
            "per_device_train_batch_size": micro,
            "gradient_accumulation_steps": self.minibatch // micro,
            "steps_per_generation": steps,
        }
        kind = {"grpo": "GRPOConfig", "rloo": "RLOOConfig"}[settings.algorithm]
        return getattr(trl, kind)(**common, **shape)

    def train(self) -> dict[str, Any]:
        """Trains, or goes on from the last whole checkpoint, and returns the metrics."""
        before = self.workshop.fingerprints()
        checkpoint = self._last_checkpoint() if self.settings.resume else None
        if checkpoint is not None:
            held = json.loads((checkpoint / PROGRESS_FILE).read_text(encoding="utf-8"))
            self._seconds_before = held.pop("seconds")
            for name, value in held.items():
                setattr(self, name, value)
        self.trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        self.workshop.check_frozen(before)
        _log.info("%s: best dev_reward %.6g after step %d", STAGE, self.best_metrics["dev_reward"], self.best_step)
        return {
            "stage": STAGE,
            "steps": self.loop.steps,
            "best_step": self.best_step,
            "best": self.best_metrics,
            "last": self.last_metrics,
            "trained_parameters": sum(one.numel() for one in self.trained),
            "parameters": sum(one.numel() for one in self.encoder.parameters()),
            "seconds": round(self._seconds, 1),
        }

    @property
    def _seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._began

    def _last_checkpoint(self) -> Path | None:
        whole = (self.workshop.folder / "state" / "trl").glob(f"checkpoint-*/{PROGRESS_FILE}")
        return max((path.parent for path in whole), key=lambda path: int(path.name.split("-")[1]), default=None)

    def reward(self, prompts: Sequence[str], completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
        """Returns the gain of each rollout over the plain prompt, for TRL. Keeps and logs the rollouts."""
        made = self.rollouts.made
        assert made is not None
        assert [one.actions for one in made.refinements] == [list(ids) for ids in completion_ids]
        iteration, seeds = made.batch.iteration, made.batch.image_seeds
        scores = self.workshop.score(iteration, made.refinements, seeds)
        if not scores.gain.isfinite().all():
            raise NonFiniteError(f"{STAGE}: a reward of iteration {iteration} is not finite")
        own = replay(self.workshop, self.encoder, made.actions, self.device)
        metrics = rollout_metrics(self.workshop, made.refinements, scores, own, self.device)
        for place, name in enumerate(("drawn_refined", "drawn_plain")):
            self.images_drawn[place] += metrics[name]
        probabilities = own.old.sum(dim=1).cpu()
        folder = self.workshop.folder / "rollouts"
        write_rollouts(folder, iteration, made.refinements, seeds, scores, probabilities, ranks.rank(), ranks.count())
        self.logger.log_metrics(metrics, iteration)
        return scores.gain.tolist()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not self.best_metrics:
            self._measure(0)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        seed_everything(self.settings.seed, STAGE, state.global_step, args.process_index)
        if state.global_step % self.updates == 0:
            whole = self.workshop.whole_batch(state.global_step // self.updates, self.processes)
            share = len(whole) // self.processes
            self.rollouts.due = whole.choose(range(args.process_index * share, (args.process_index + 1) * share))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        done, rest = divmod(state.global_step, self.updates)
        if rest:
            return
        self.workshop.preview(done - 1, last=done == self.loop.steps)
        if done == self.loop.steps or done % self.loop.validate_every == 0:
            self._measure(done)

    def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        logs: dict[str, float] = given["logs"]
        metrics = {own: logs[name] for name, own in _LOGGED.items() if name in logs}
        bad = [name for name, value in metrics.items() if not math.isfinite(value)]
        if bad:
            raise NonFiniteError(f"{STAGE}: {', '.join(bad)} not finite after update {state.global_step}")
        if metrics:
            self.logger.log_metrics(metrics, state.global_step // self.updates - 1)
            if ranks.rank() == 0:
                self.logger.save()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        names = ("best_step", "best_metrics", "last_metrics", "images_drawn")
        held = {name: getattr(self, name) for name in names} | {"seconds": self._seconds}
        if ranks.rank() == 0:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            replace_text(folder / PROGRESS_FILE, json.dumps(held) + "\n")

    def _measure(self, done: int) -> None:
        """Measures the dev split after `done` iterations, and keeps the encoder if it is the best."""
        metrics = self.workshop.dev.measure(self.encoder, self.workshop.reference, self.device)
        metrics |= {"images_refined": self.images_drawn[0], "images_plain": self.images_drawn[1]}
        self.last_metrics = metrics
        if not math.isfinite(metrics["dev_reward"]):
            raise NonFiniteError(f"{STAGE}: dev_reward is {metrics['dev_reward']} after {done} steps")
        self.logger.log_metrics(metrics, done - 1)
        better = not self.best_metrics or metrics["dev_reward"] > self.best_metrics["dev_reward"]
        if better:
            self.best_step, self.best_metrics = done, metrics
        if ranks.rank() == 0:
            self.logger.save()
            if better:
                replace_folder(self.workshop.folder / "part", self.workshop.save_learner)


def _trainer_class(base: Any) -> Any:
    """Returns `base` with checkpoints that hold the encoder alone, and without reports to the Hub."""

    class Trainer(base):
        _name = base._name

        def _send_telemetry(self) -> None:
            pass

        def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
            self.model.encoder.save_pretrained(output_dir or self.args.output_dir)

        def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
            held = load_file(Path(resume_from_checkpoint) / "model.safetensors")
            self.model.encoder.load_state_dict(held, strict=False)  # what T5 ties is stored once

        def create_model_card(self, *args: Any, **options: Any) -> None:
            pass

    return Trainer


def _prompt_ids(tokenizer: PreTrainedTokenizerBase, prompts: list[str]) -> list[list[int]]:
    return tokenizer(text=prompts)["input_ids"]


def _largest_divisor(number: int, limit: int) -> int:
    return next(one for one in range(min(number, limit), 0, -1) if number % one == 0)
