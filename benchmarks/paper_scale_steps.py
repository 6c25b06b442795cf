"""The steps that are measured at the paper's sizes."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from paper_scale_parts import (
    Device,
    Sizes,
    build_decoder,
    build_encoder,
    build_generator,
    build_processor,
    build_rewards,
)
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.flop_counter import FlopCounterMode

from prip.miniature.prompts import system_prompt
from prip.modeling import PripModel
from prip.randomness import random_generator
from prip.refiner import Refiner
from prip.training.decoder import add_adapters
from prip.training.harness import train
from prip.training.optimizers import build_optimizer, train_only
from prip.training.rl import RlModule
from prip.training.rl_parts import RlParts
from prip.training.settings import (
    LoopSettings,
    LoraSettings,
    OptimizerSettings,
    PpoSettings,
    RlSettings,
    RolloutSettings,
)
from prip.training.workshop import build_workshop


@dataclass(frozen=True)
class Cost:
    """What one step takes."""

    examples: int
    seconds: float
    peak_gib: float
    flops: float | None = None
    """None where they were not counted."""

    @property
    def rate(self) -> float:
        """Examples a second."""
        return self.examples / self.seconds


def measure(device: Device, step: Callable[[], Any], examples: int, repeats: int) -> Cost:
    """Median seconds of `step` after two runs that warm up, the second of which counts its FLOPs."""
    device.forget()
    step()
    with FlopCounterMode(display=False) as counter:
        step()
    times = []
    for _ in range(repeats):
        began = device.now()
        step()
        times.append(device.now() - began)
    return Cost(examples, statistics.median(times), device.peak_gib(), counter.get_total_flops())


def train_step(loss: Callable[[], Tensor], parameters: list[nn.Parameter], optimizer: str) -> Callable[[], None]:
    """A function that takes one optimizer step."""
    built = build_optimizer(OptimizerSettings(name=optimizer), parameters)  # type: ignore[arg-type]

    def step() -> None:
        built.zero_grad()
        loss().backward()
        built.step()

    return step


def encoder_cost(device: Device, sizes: Sizes, repeats: int) -> Cost:
    """A step of stage 1 on random user prompts and pivots, by Adafactor."""
    encoder = build_encoder(device, sizes).train()
    batch = sizes.encoder_batch
    ids = torch.randint(2, sizes.t5["vocab_size"], (batch, sizes.user_tokens), device=device.torch)
    target = torch.randn(batch, *sizes.pivot.values(), device=device.torch, dtype=device.dtype)
    step = train_step(
        lambda: mse_loss(encoder(input_ids=ids, attention_mask=torch.ones_like(ids)), target),
        train_only(encoder, "*"),
        "adafactor",
    )
    return measure(device, step, batch, repeats)


def decoder_cost(device: Device, sizes: Sizes, lora_rank: int, repeats: int) -> Cost:
    """A step of stage 2 on random system prompts and pivots: LoRA adapters by AdamW, or all weights by Adafactor."""
    decoder = build_decoder(device, sizes)
    if lora_rank:
        with device.building():
            add_adapters(decoder, LoraSettings(rank=lora_rank))
    decoder.train()
    batch = sizes.decoder_batch
    ids = torch.randint(2, sizes.llama["vocab_size"], (batch, sizes.system_tokens), device=device.torch)
    pivot = torch.randn(batch, *sizes.pivot.values(), device=device.torch, dtype=device.dtype)
    step = train_step(
        lambda: cross_entropy(decoder(pivot, ids).logits.float().transpose(1, 2), ids),
        train_only(decoder, *(["lm.*lora_*", "projection.*"] if lora_rank else ["*"])),
        "adamw" if lora_rank else "adafactor",
    )
    return measure(device, step, batch, repeats)


def refine_cost(device: Device, sizes: Sizes, repeats: int) -> Cost:
    """Refining a batch of user prompts greedily."""
    prompts = user_prompts(sizes.rollouts)
    model = PripModel(build_encoder(device, sizes), build_decoder(device, sizes))
    refiner = Refiner(model.requires_grad_(False), build_processor(prompts))
    return measure(device, lambda: refiner.refine(prompts, max_new_tokens=sizes.new_tokens), len(prompts), repeats)


def user_prompts(count: int) -> list[str]:
    """Distinct prompts of some words."""
    return [f"{system_prompt('train', random_generator('paper scale', i))} number {i}" for i in range(count)]


class Clock:
    """Seconds by phase."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}

    def timed(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function that does the same and is timed."""

        def call(*args: Any, **kwargs: Any) -> Any:
            began = self.device.now()
            result = function(*args, **kwargs)
            self.seconds[phase] = self.seconds.get(phase, 0.0) + self.device.now() - began
            return result

        return call


class TimedRl(RlModule):
    """Reinforcement learning that keeps the seconds of each phase of its last iteration."""

    def __init__(self, clock: Clock, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.clock = clock
        scorer, refiner = self.scorer, self.policy.refiner
        refiner.actions = clock.timed("refine", refiner.actions)  # type: ignore[method-assign]
        scorer.draw = clock.timed("draw", scorer.draw)  # type: ignore[method-assign]
        scorer.score = clock.timed("draw and score", scorer.score)  # type: ignore[method-assign]

    def training_step(self, given: dict[str, Any], step: int) -> None:
        self.clock.seconds.clear()
        self.clock.timed("iteration", super().training_step)(given, step)

    def learn(self, *args: Any) -> dict[str, float]:
        return self.clock.timed("update", super().learn)(*args)

    def evaluate(self) -> dict[str, float]:
        kept = dict(self.clock.seconds)
        found = super().evaluate()
        self.clock.seconds.clear()
        self.clock.seconds.update(kept)
        return found


def rollout_cost(device: Device, sizes: Sizes, folder: Path) -> tuple[Cost, dict[str, float]]:
    """An iteration of PPO, the third, whose plain images are all in the cache: one image a rollout, one epoch.

    Returns its cost, and the seconds of refine, draw, score and update.
    """
    prompts = user_prompts(sizes.rollouts)
    parts = RlParts(
        PripModel(build_encoder(device, sizes), build_decoder(device, sizes)),
        build_processor(prompts),
        build_generator(device, sizes),
        build_rewards(device, sizes),
        prompts,
        prompts[:4],
    )
    settings = RlSettings(
        run=folder,
        device="cuda" if device.cuda else "cpu",
        progress=False,
        rollouts=RolloutSettings(
            samples_per_prompt=1,
            seed_pool=1,
            max_new_tokens=sizes.new_tokens,
            statistics_images=4,
            dev_prompts=4,
            preview_every=0,
        ),
        ppo=PpoSettings(baseline="value", epochs=1, minibatch=sizes.rollouts),
        optimizer=OptimizerSettings(name="adafactor"),
        loop=LoopSettings(steps=3, batch_size=sizes.rollouts, log_every=1, validate_every=3, checkpoint_every=100),
    )
    device.forget()
    clock = Clock(device)
    workshop = build_workshop(parts, settings, folder)
    module = TimedRl(clock, workshop, ppo=settings.ppo, loop=settings.loop, optimizer=settings.optimizer)
    train(module, settings, settings.loop, folder, monitor="dev_reward", mode="max")
    spent = clock.seconds
    phases = {name: spent[name] for name in ("refine", "draw")}
    phases |= {"score": spent["draw and score"] - spent["draw"], "update": spent["update"]}
    phases["all else"] = spent["iteration"] - sum(phases.values())
    return Cost(sizes.rollouts, spent["iteration"], device.peak_gib()), phases
