"""Reinforcement learning with TRL's GRPOTrainer and RLOOTrainer, on the rollouts and rewards of PPO.

TRL provides the losses, the advantages and the loop; everything else is as under PPO.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.optim.lr_scheduler import LambdaLR
from transformers import PrinterCallback, TrainerCallback

from prip.errors import require
from prip.files import replace_folder, replace_text
from prip.modeling import PreferenceEncoder

from ..engine import ranks
from ..engine.callbacks import NonFiniteError
from ..engine.csv_log import CsvLogger
from ..engine.optimizers import build_optimizer, learning_rate_factor, train_only
from ..runs.run_folder import finished_metrics, write_metrics
from ..runs.seeds import seed_everything
from .context import STAGE, RlContext
from .log_probabilities import action_figures, rollout_metrics
from .memory import rl_memory
from .trl_policy import Rollouts, TrlPolicy

_log = logging.getLogger(__name__)
PROGRESS_FILE = "progress.json"
"""Our own state in a checkpoint of TRL. It is written last: a checkpoint without it is incomplete."""
_LOGGED = {"loss": "loss", "grad_norm": "gradient_norm", "clip_ratio/region_mean": "clip_fraction"}
"""Metrics of TRL's log and their names in ours"""


def train_by_trl(context: RlContext) -> dict[str, Any]:
    """Train the encoder and return the contents of metrics.json; the best encoder is in FOLDER/part.

    For several processes, run it under torchrun.

    Raises:
        MissingExtraError: TRL is not installed.
        NonFiniteError: A reward, loss or gradient is not finite.
    """
    if (finished := finished_metrics(context.folder)) is not None:
        return finished
    metrics = TrlRun(context).train()
    if ranks.rank() == 0:
        write_metrics(context.folder, metrics)
    return metrics


class TrlRun(TrainerCallback):
    """A run of one of TRL's trainers: its reward function and the callback around its steps."""

    def __init__(self, context: RlContext) -> None:
        self.context, self.settings, self.loop = context, context.settings, context.settings.loop
        assert isinstance(context.learner, PreferenceEncoder) and isinstance(context.reference, PreferenceEncoder)
        self.encoder, self.reference = context.learner, context.reference
        self.logger = CsvLogger(context.folder / "logs" / "metrics.csv")
        self.best_step, self.best_metrics, self.last_metrics = -1, dict[str, float](), dict[str, float]()
        self.images_drawn = [0.0, 0.0]
        self._seconds_before, self._began = 0.0, time.monotonic()
        settings = self.settings
        self.processes = settings.devices
        rows = settings.loop.batch_size * settings.rollouts.samples_per_prompt
        self.minibatch = settings.ppo.minibatch // self.processes
        self.updates = settings.ppo.epochs * (rows // self.minibatch)
        """Optimizer steps per iteration"""
        self.trained = train_only(self.encoder, "*")
        self.trainer = self._build_trainer()
        self.device: torch.device = self.trainer.args.device
        context.settle(self.device)
        if ranks.rank() == 0:
            _log.info("%s", rl_memory(context, self.device))

    def _build_trainer(self) -> Any:
        trl, datasets = require("trl", "train"), require("datasets", "train")
        settings = self.settings
        base = {"grpo": "GRPOTrainer", "rloo": "RLOOTrainer"}[settings.algorithm]
        # TRL identifies user prompts by their tokens; the policy maps them back.
        tokenizer = self.context.parts.processor.decoder_tokenizer
        pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        prompts = list(dict.fromkeys(self.context.train_prompts))
        ids = dict(zip(prompts, tokenizer(text=prompts)["input_ids"], strict=True))
        self.rollouts = Rollouts(self.context.policy, ids, tokenizer.eos_token_id, pad)
        policy = TrlPolicy(self.encoder, self.rollouts)
        # The schedule counts iterations, TRL optimizer steps.
        optimizer = build_optimizer(settings.optimizer, self.trained)
        factor = learning_rate_factor(settings.optimizer, self.loop.steps)
        schedule = LambdaLR(optimizer, lambda update: factor(update // self.updates))
        batches = [self.context.whole_batch(iteration, self.processes) for iteration in range(self.loop.steps)]
        samples = settings.rollouts.samples_per_prompt
        trainer = _trainer_class(getattr(trl, base))(
            model=policy,
            reward_funcs=self.reward,
            args=self._arguments(trl),
            train_dataset=datasets.Dataset.from_dict(
                {"prompt": [prompt for batch in batches for prompt in batch.user_prompts[::samples]]}
            ),
            processing_class=tokenizer,
            callbacks=[self],
            optimizers=(optimizer, schedule),
        )
        trainer.remove_callback(PrinterCallback)
        del policy.forward  # TRL's fused language-model head, which ignores the constraints
        if settings.ppo.kl:  # set here, because TRL would load the reference by name
            trainer.beta = settings.ppo.kl
            trainer.ref_model = TrlPolicy(self.reference, self.rollouts).eval()
        return trainer

    def _arguments(self, trl: Any) -> Any:
        """Return TRL's arguments: an iteration is a generation batch, an optimizer step one of PPO's minibatches."""
        settings, ppo = self.settings, self.settings.ppo
        common: dict[str, Any] = {
            "output_dir": str(self.context.folder / "state" / "trl"),
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
        """Train, from the last complete checkpoint when resuming, and return the metrics."""
        before = self.context.fingerprints()
        checkpoint = self._last_checkpoint() if self.settings.resume else None
        if checkpoint is not None:
            progress = json.loads((checkpoint / PROGRESS_FILE).read_text(encoding="utf-8"))
            self._seconds_before = progress.pop("seconds")
            for name, value in progress.items():
                setattr(self, name, value)
        self.trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        self.context.check_frozen(before)
        ranks.wait()  # until the first process has exported the best part
        confirmed = self.context.confirm(self.best_step, self.loop.steps, self.device)
        _log.info("%s: best dev_reward %.6g after step %d", STAGE, self.best_metrics["dev_reward"], self.best_step)
        return {
            "stage": STAGE,
            "steps": self.loop.steps,
            "best_step": self.best_step,
            "best": self.best_metrics,
            "last": self.last_metrics,
            "confirmed": confirmed,
            "trained_parameters": sum(value.numel() for value in self.trained),
            "parameters": sum(value.numel() for value in self.encoder.parameters()),
            "seconds": round(self._seconds, 1),
        }

    @property
    def _seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._began

    def _last_checkpoint(self) -> Path | None:
        complete = (self.context.folder / "state" / "trl").glob(f"checkpoint-*/{PROGRESS_FILE}")
        return max((path.parent for path in complete), key=lambda path: int(path.name.split("-")[1]), default=None)

    def reward(self, prompts: Sequence[str], completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
        """Return the gain of each rollout, as TRL's reward function; write and log the rollouts."""
        context, rollouts = self.context, self.rollouts.current
        assert rollouts is not None
        assert [refinement.actions for refinement in rollouts.refinements] == [list(ids) for ids in completion_ids]
        iteration = rollouts.batch.iteration
        scores = context.score(rollouts.batch, rollouts.refinements)
        if not scores.gain[~scores.blackened].isfinite().all():
            raise NonFiniteError(f"{STAGE}: a reward of iteration {iteration} is not finite")
        figures = action_figures(context, self.encoder, rollouts.actions, self.device)
        metrics = rollout_metrics(context, rollouts.refinements, scores, figures, self.device)
        for index, name in enumerate(("drawn_refined", "drawn_plain")):
            self.images_drawn[index] += metrics[name]
        context.write_rollouts(
            rollouts.batch,
            rollouts.refinements,
            scores,
            log_probabilities=figures.old.cpu(),
            reference=figures.reference.cpu(),
        )
        self.logger.log_metrics(metrics, iteration)
        # A rollout without a score gets the mean of its user prompt's other ones, hence no advantage over them.
        gain = scores.gain.view(-1, self.settings.rollouts.samples_per_prompt)
        unscored = scores.blackened.view_as(gain)
        others = torch.where(unscored, 0, gain).sum(dim=1, keepdim=True) / (~unscored).sum(dim=1, keepdim=True).clamp(
            min=1
        )
        return torch.where(unscored, others, gain).flatten().tolist()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not self.best_metrics:
            self._measure(0)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        seed_everything(self.settings.seed, STAGE, state.global_step, args.process_index)
        if state.global_step % self.updates == 0:
            whole = self.context.whole_batch(state.global_step // self.updates, self.processes)
            share = len(whole) // self.processes
            self.rollouts.due = whole.choose(range(args.process_index * share, (args.process_index + 1) * share))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        done, rest = divmod(state.global_step, self.updates)
        if rest:
            return
        self.context.preview(done - 1, last=done == self.loop.steps)
        if done == self.loop.steps or done % self.loop.validate_every == 0:
            self._measure(done)

    def on_log(self, args: Any, state: Any, control: Any, **options: Any) -> None:
        logs: dict[str, float] = options["logs"]
        metrics = {ours: logs[name] for name, ours in _LOGGED.items() if name in logs}
        bad = [name for name, value in metrics.items() if not math.isfinite(value)]
        if bad:
            raise NonFiniteError(f"{STAGE}: {', '.join(bad)} not finite after update {state.global_step}")
        if metrics:
            self.logger.log_metrics(metrics, state.global_step // self.updates - 1)
            if ranks.rank() == 0:
                self.logger.save()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        names = ("best_step", "best_metrics", "last_metrics", "images_drawn")
        progress = {name: getattr(self, name) for name in names} | {"seconds": self._seconds}
        if ranks.rank() == 0:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            replace_text(folder / PROGRESS_FILE, json.dumps(progress) + "\n")

    def _measure(self, done: int) -> None:
        """Measure the dev split after `done` iterations, and write the encoder if it is the best so far."""
        metrics = self.context.dev.measure(self.encoder, self.context.reference, self.device)
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
                replace_folder(self.context.folder / "part", self.context.save_learner)


def _trainer_class(base: Any) -> Any:
    """Return a subclass of `base` that checkpoints only the encoder and reports nothing to the Hub."""

    class Trainer(base):
        _name = base._name

        def _send_telemetry(self) -> None:
            pass

        def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
            self.model.encoder.save_pretrained(output_dir or self.args.output_dir)

        def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
            weights = load_file(Path(resume_from_checkpoint) / "model.safetensors")
            self.model.encoder.load_state_dict(weights, strict=False)  # T5's tied weights are stored once

        def create_model_card(self, *args: Any, **options: Any) -> None:
            pass

    return Trainer


def _largest_divisor(number: int, limit: int) -> int:
    return next(divisor for divisor in range(min(number, limit), 0, -1) if number % divisor == 0)
