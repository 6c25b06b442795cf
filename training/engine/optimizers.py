"""What is trained, by which optimizer, at which learning rate."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel
from transformers.optimization import Adafactor

from prip.errors import InputError
from prip.modeling import PreferenceEncoder, PromptDecoder

from ..settings import LoopSettings, OptimizerSettings

if TYPE_CHECKING:
    from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig

_log = logging.getLogger(__name__)


def train_only(module: nn.Module, *patterns: str) -> list[nn.Parameter]:
    """Freezes all of `module`, then unfreezes the parameters whose name fits one of the shell-style `patterns`.

    Returns those. Raises InputError for a pattern that fits no parameter.
    """
    module.requires_grad_(False)
    trained: dict[str, nn.Parameter] = {}
    for pattern in patterns:
        found = {name: value for name, value in module.named_parameters() if fnmatchcase(name, pattern)}
        if not found:
            raise InputError(f"patterns: wanted names of parameters of {type(module).__name__}, got {pattern!r}")
        trained |= found
    for parameter in trained.values():
        parameter.requires_grad_(True)
    total = sum(parameter.numel() for parameter in module.parameters())
    _log.info("training %s of %s parameters", f"{sum(p.numel() for p in trained.values()):,}", f"{total:,}")
    return list(trained.values())


def trained_names(part: PreferenceEncoder | PromptDecoder) -> list[str]:
    """Returns patterns of the parameters that learn of a module's `encoder` or `decoder`: all of an encoder; of a
    decoder its language model, or the adapters on it where there are any, and the projection where it reads a pivot."""
    if isinstance(part, PreferenceEncoder):
        return ["encoder.*"]
    language_model = "decoder.lm.*lora_*" if hasattr(part.lm, "peft_config") else "decoder.lm.*"
    return [language_model, *(["decoder.projection.*"] if part.config.pivot_length else [])]


def in_float32(parameters: Iterable[nn.Parameter]) -> None:
    """Puts what is trained into 32 bits: in 16, steps much smaller than a weight are lost in rounding."""
    for parameter in parameters:
        parameter.data = parameter.data.float()


def checkpoint_activations(model: PreTrainedModel) -> None:
    """Makes the layers of `model` forget their activations in training and compute them again for the gradient.

    transformers does so in training mode alone.
    """
    how = {"use_reentrant": False}
    if hasattr(model, "activation_checkpointing_enable"):  # transformers 5.23 or newer, where the other name warns
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=how)
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=how)


def build_optimizer(settings: OptimizerSettings, parameters: Iterable[nn.Parameter], fused: bool = True) -> Optimizer:
    """Returns the optimizer that `settings` names, over `parameters`.

    fused: adamw in one kernel; in mixed precision, Lightning clips no gradient for an optimizer that is so made.
    """
    if settings.name == "adafactor":
        return Adafactor(
            list(parameters),
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            scale_parameter=False,
            relative_step=False,
            warmup_init=False,
        )
    return torch.optim.AdamW(parameters, lr=settings.lr, weight_decay=settings.weight_decay, fused=fused)


def build_scheduler(settings: OptimizerSettings, optimizer: Optimizer, steps: int) -> LambdaLR:
    """Returns the schedule of the learning rate over `steps` optimizer steps."""
    return LambdaLR(optimizer, learning_rate_factor(settings, steps))


def scheduled_optimizer(
    settings: OptimizerSettings, parameters: Iterable[nn.Parameter], loop: LoopSettings
) -> OptimizerLRSchedulerConfig:
    """Returns what Lightning's configure_optimizers returns: the optimizer, and its schedule, which moves on with every
    step of the loop."""
    optimizer = build_optimizer(settings, parameters, fused=loop.precision != "bf16-mixed")
    scheduler = build_scheduler(settings, optimizer, loop.steps)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def learning_rate_factor(settings: OptimizerSettings, steps: int) -> Callable[[int], float]:
    """Returns the function from the step, counted from 0, to what lr is multiplied by there."""

    def factor(step: int) -> float:
        if step < settings.warmup_steps:
            return (step + 1) / settings.warmup_steps
        if settings.schedule == "constant":
            return 1.0
        done = (step - settings.warmup_steps) / max(1, steps - settings.warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    return factor
