"""The rows of benchmarks.paper_scale: each runs a stage's own code with a preset's settings and random weights.

    python -m benchmarks.paper_scale.rows ROW OUT.json --size paper|small [--device D] [--repeats N] [--strategy S]

measures one row in a process of its own, so that its memory or failure does not affect the others.
"""

from __future__ import annotations

import json
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks.common import make_parser
from benchmarks.paper_scale.parts import (
    SIZES,
    Device,
    Sizes,
    build_decoder,
    build_encoder,
    build_generator,
    build_processor,
    build_reward,
)
from benchmarks.paper_scale.watch import UNTIMED, Watch, WatchedDecoder, WatchedEncoder, WatchedRl
from prip.miniature.prompts import system_prompt
from prip.modeling import PripModel
from prip.randomness import random_generator
from prip.refiner import Refiner
from prip.rewards.registry import parse_reward
from prip.training.cli.command import parse_settings
from prip.training.data.pairs import Pairs, Splits
from prip.training.engine.loop import train
from prip.training.engine.optimizers import checkpoint_activations
from prip.training.rl.context import build_context
from prip.training.rl.parts import RlParts
from prip.training.warmup.decoder import add_adapters

LORA = ("--lora.rank", "32", "--lora.alpha", "64")
"""Flags of the LoRA row, from the preset tinyllama."""


@dataclass(frozen=True)
class Job:
    """Arguments of a row."""

    device: Device
    sizes: Sizes
    folder: Path
    repeats: int
    strategy: str | None
    """Instead of the preset's; None keeps it."""

    def settings(self, stage: str, *flags: str) -> Any:
        """Return the preset's settings of a stage, for one process and without validation between steps."""
        found = parse_settings(stage, ["--config", self.sizes.preset, "--run", str(self.folder), *flags])
        steps = UNTIMED + self.repeats
        return replace(
            found,
            device="cuda" if self.device.cuda else "cpu",
            devices=1,
            strategy=self.strategy or found.strategy,
            progress=False,
            loop=replace(found.loop, steps=steps, accumulate=1, validate_every=steps, checkpoint_every=steps),
        )

    def ids(self, vocabulary: int, batch: int, length: int) -> torch.Tensor:
        """Return random token ids `(batch, length)`."""
        return torch.randint(2, vocabulary, (batch, length))

    def pivots(self, batch: int) -> torch.Tensor:
        """Return random pivots, float16 as prepare stores them."""
        return torch.randn(batch, *self.sizes.pivot.values()).half()


def no_data(count: int) -> Any:
    """Return splits of `count` empty examples, which are never read."""
    return Splits(Pairs([""] * count, [""] * count), Pairs([], []), None)


def encoder_row(job: Job) -> dict[str, Any]:
    """Measure a step of the encoder warm-up."""
    settings = job.settings("encoder")
    encoder, batch = build_encoder(job.device, job.sizes), settings.loop.batch_size
    if settings.gradient_checkpointing:
        checkpoint_activations(encoder)
    module = WatchedEncoder(encoder, build_processor(user_prompts(50)).encoder_tokenizer, no_data(batch), settings)
    ids = job.ids(job.sizes.t5["vocab_size"], batch, min(job.sizes.user_tokens, settings.max_tokens))
    module.made = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "target": job.pivots(batch)}
    return _trained(job, module, settings, batch, backward=2)


def decoder_row(job: Job, *flags: str) -> dict[str, Any]:
    """Measure a step of the decoder warm-up, with flags that override the preset."""
    settings = job.settings("decoder", *flags)
    dtype = torch.float32 if settings.base_dtype == "float32" else torch.bfloat16
    decoder, batch = build_decoder(job.device, job.sizes, dtype), settings.loop.batch_size
    if settings.lora.rank:
        add_adapters(decoder, settings.lora)
    if settings.gradient_checkpointing:
        checkpoint_activations(decoder)
    module = WatchedDecoder(
        decoder, build_processor(user_prompts(50)).decoder_tokenizer, no_data(batch), replace(settings, bucket_window=0)
    )
    ids = job.ids(job.sizes.llama["vocab_size"], batch, min(job.sizes.system_tokens, settings.max_tokens))
    module.made = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "learned": torch.ones_like(ids, dtype=torch.bool),
        "pivot": job.pivots(batch),
        "factor": 1.0,
        "tokens": ids.numel(),
    }
    return _trained(job, module, settings, batch, backward=1 if settings.lora.rank else 2)


def lora_row(job: Job) -> dict[str, Any]:
    """Measure a step of the decoder warm-up with LoRA, which fits one device."""
    return decoder_row(replace(job, strategy=job.strategy or "auto"), *LORA)


def rl_row(job: Job) -> dict[str, Any]:
    """Measure an RL iteration on one of the preset's devices, with its share of each minibatch and all plain images
    in the cache."""
    preset = parse_settings("rl", ["--config", job.sizes.preset, "--run", str(job.folder)])
    settings = job.settings("rl")
    rollouts = settings.loop.batch_size * settings.rollouts.samples_per_prompt
    settings = replace(
        settings,
        ppo=replace(settings.ppo, minibatch=max(1, settings.ppo.minibatch // preset.devices)),
        rollouts=replace(settings.rollouts, statistics_images=4, dev_prompts=4, preview_every=0),
    )
    dtype, prompts = getattr(torch, settings.parts.dtype), user_prompts(settings.loop.batch_size)
    names = [str(parse_reward(text).name) for text in settings.parts.rewards]
    parts = RlParts(
        model=PripModel(build_encoder(job.device, job.sizes), build_decoder(job.device, job.sizes, dtype)).eval(),
        processor=build_processor(prompts),
        generator=build_generator(job.device, job.sizes, dtype, settings.parts.generator_options),
        rewards=[build_reward(job.device, job.sizes, dtype, name) for name in names],
        train_prompts=prompts,
        dev_prompts=prompts[:4],
    )
    watch = Watch(job.device, backward=0)
    module = WatchedRl(build_context(parts, settings, job.folder)).under(watch)
    clip = settings.optimizer.clip
    train(module, settings, settings.loop, job.folder, monitor="unmeasured", mode="max", clip=clip)
    tokens = pd.read_parquet(job.folder / "rollouts", columns=["tokens"])["tokens"].mean()
    measured = watch.figures(rollouts) | {"phases": watch.phase_figures(rollouts), "tokens_per_rollout": float(tokens)}
    return measured | _facts(settings, module)


def refine_row(job: Job) -> dict[str, Any]:
    """Measure greedy refining of a chunk of user prompts, in the precision of rl."""
    settings = job.settings("rl")
    prompts = user_prompts(settings.rollouts.chunk.refine)
    dtype = getattr(torch, settings.parts.dtype)
    model = PripModel(build_encoder(job.device, job.sizes), build_decoder(job.device, job.sizes, dtype))
    refiner = Refiner(model.requires_grad_(False).eval(), build_processor(prompts))
    watch = Watch(job.device, backward=0)
    for _ in range(UNTIMED + job.repeats):
        watch.begin()
        with watch.counting():
            refiner.refine(prompts, max_new_tokens=settings.rollouts.max_new_tokens)
        watch.end()
    return watch.figures(len(prompts))


def _trained(job: Job, module: Any, settings: Any, batch: int, backward: float) -> dict[str, Any]:
    module.watch = Watch(job.device, backward)
    clip = settings.optimizer.clip
    train(module, settings, settings.loop, job.folder, monitor="unmeasured", mode="max", clip=clip)
    return module.watch.figures(batch) | _facts(settings, module)


def _facts(settings: Any, module: torch.nn.Module) -> dict[str, Any]:
    named = {"optimizer": settings.optimizer.name, "precision": settings.loop.precision, "strategy": settings.strategy}
    forgets = any(getattr(part, "gradient_checkpointing", False) is True for part in module.modules())
    return {"settings": named | {"gradient_checkpointing": forgets}}


def user_prompts(count: int) -> list[str]:
    """Return distinct short prompts."""
    return [f"{system_prompt('train', random_generator('paper scale', i))} number {i}" for i in range(count)]


ROWS: dict[str, Callable[[Job], dict[str, Any]]] = {
    "encoder": encoder_row,
    "lora": lora_row,
    "full": decoder_row,
    "rl": rl_row,
    "refine": refine_row,
}


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument("row", choices=ROWS)
    parser.add_argument("out", type=Path, help="JSON file to write, with the figures or the error")
    parser.add_argument("--size", choices=sorted(SIZES), required=True)
    parser.add_argument("--device")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--strategy")
    arguments = parser.parse_args()
    found: dict[str, Any] = {"torch": torch.__version__}
    try:
        device = Device(arguments.device)
        found["device"] = device.name
        with tempfile.TemporaryDirectory() as folder:
            job = Job(device, SIZES[arguments.size](), Path(folder), arguments.repeats, arguments.strategy)
            found |= ROWS[arguments.row](job)
    except Exception as error:
        traceback.print_exc()
        found["error"] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    arguments.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 1 if "error" in found else 0


if __name__ == "__main__":
    sys.exit(main())
