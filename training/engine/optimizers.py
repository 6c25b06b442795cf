"""Which parameters are trained, with which optimizer and learning rate, and activation checkpointing."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel
from transformers.optimization import Adafactor

from prip.errors import InputError
from prip.modeling import PreferenceEncoder, PromptDecoder

from ..settings import LoopSettings, OptimizerSettings

_log = logging.getLogger(__name__)


def train_only(module: nn.Module, *patterns: str) -> list[nn.Parameter]:
    """Freeze `module` except for the parameters whose names match the shell-style `patterns`, and return those.

    Raise InputError if a pattern matches no parameter.
    """
    module.requires_grad_(False)
    trained: dict[str, nn.Parameter] = {}
    for pattern in patterns:
        matches = {name: value for name, value in module.named_parameters() if fnmatchcase(name, pattern)}
        if not matches:
            raise InputError(f"patterns: expected names of parameters of {type(module).__name__}, got {pattern!r}")
        trained |= matches
    for parameter in trained.values():
        parameter.requires_grad_(True)
    total = sum(parameter.numel() for parameter in module.parameters())
    _log.info("training %s of %s parameters", f"{sum(p.numel() for p in trained.values()):,}", f"{total:,}")
    return list(trained.values())


def trained_names(part: PreferenceEncoder | PromptDecoder) -> list[str]:
    """Return patterns of the parameters that learn in a module's `encoder` or `decoder`.

    An encoder learns entirely; a decoder learns its language model, or only the adapters if there are any, and the
    projection if it reads a pivot.
    """
    if isinstance(part, PreferenceEncoder):
        return ["encoder.*"]
    language_model = "decoder.lm.*lora_*" if hasattr(part.lm, "peft_config") else "decoder.lm.*"
    return [language_model, *(["decoder.projection.*"] if part.config.pivot_length else [])]


def in_float32(parameters: Iterable[nn.Parameter]) -> None:
    """Convert trained parameters to float32: in 16 bits, steps much smaller than a weight are lost to rounding."""
    for parameter in parameters:
        parameter.data = parameter.data.float()


def checkpoint_activations(model: PreTrainedModel) -> None:
    """Recompute the activations of `model` in the backward pass; transformers does so in training mode only."""
    options = {"use_reentrant": False}
    if hasattr(model, "activation_checkpointing_enable"):  # transformers 5.23 or newer, which deprecates the other name
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=options)
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)


def build_optimizer(
    settings: OptimizerSettings,
    parameters: Iterable[nn.Parameter],
    fused: bool = True,
    *,
    new: Iterable[nn.Parameter] = (),
    new_lr: float | None = None,
) -> Optimizer:
    """Return an optimizer.

    Args:
        settings: Its settings.
        parameters: The parameters to train.
        fused: Whether adamw runs in one kernel, for which Lightning cannot clip gradients in mixed precision.
        new: Parameters that start at 0, as a second group: steps relative to their size would never move them, so
            scale_parameter does not apply.
        new_lr: Learning rate of `new`; None is settings.lr.
    """
    groups: list[dict[str, Any]] = [{"params": list(parameters)}]
    if added := list(new):
        groups.append({"params": added, "lr": settings.lr if new_lr is None else new_lr})
    if settings.name == "adafactor":
        for group, scaled in zip(groups, (settings.scale_parameter, False), strict=False):
            group["scale_parameter"] = scaled
        return Adafactor(
            groups,
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            relative_step=False,
            warmup_init=False,
        )
    return torch.optim.AdamW(groups, lr=settings.lr, weight_decay=settings.weight_decay, fused=fused)


def build_scheduler(settings: OptimizerSettings, optimizer: Optimizer, steps: int) -> LambdaLR:
    """Return the learning-rate schedule over `steps` optimizer steps."""
    return LambdaLR(optimizer, learning_rate_factor(settings, steps))


def scheduled_optimizer(
    settings: OptimizerSettings, parameters: Iterable[nn.Parameter], loop: LoopSettings
) -> OptimizerLRSchedulerConfig:
    """Return the optimizer and its schedule, advanced at every step, for Lightning's configure_optimizers."""
    optimizer = build_optimizer(settings, parameters, fused=loop.precision != "bf16-mixed")
    scheduler = build_scheduler(settings, optimizer, loop.steps)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def learning_rate_factor(settings: OptimizerSettings, steps: int) -> Callable[[int], float]:
    """Return a function from the step, counted from 0, to the factor of the learning rate."""

    def factor(step: int) -> float:
        if step < settings.warmup_steps:
            return (step + 1) / settings.warmup_steps
        if settings.schedule == "constant":
            return 1.0
        done = (step - settings.warmup_steps) / max(1, steps - settings.warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    return factor
