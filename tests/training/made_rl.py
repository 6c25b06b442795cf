"""A small world for reinforcement learning: warmed-up parts, a generator that paints its prompt, and two rewards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from made_data import DETAILS, LIGHTS, PLACES, SUBJECTS
from torch import Tensor

from prip.modeling import PreferenceEncoder, PripModel, PromptDecoder
from prip.processing import PripProcessor, load_tokenizer
from prip.training.rl.parts import RlParts
from prip.training.settings import (
    DecoderSettings,
    EncoderSettings,
    LlamaSizes,
    LoopSettings,
    OptimizerSettings,
    PpoSettings,
    RlSettings,
    RolloutSettings,
    T5Sizes,
)
from prip.training.warmup import decoder, encoder

WANTED = "neon light"
LLAMA = LlamaSizes(vocab_size=320, hidden_size=48, intermediate_size=96, layers=2, heads=2)
ROLLOUTS = RolloutSettings(
    max_new_tokens=16, statistics_images=24, dev_prompts=4, dev_images_per_prompt=2, preview_every=0
)
LOOP = LoopSettings(steps=4, batch_size=4, log_every=1, validate_every=3, checkpoint_every=2)


class Painter:
    """Paints what the prompt asks for into the colour channels, and the seed as noise: a weight that must stay."""

    name, token_limit = "painter", 75

    def __init__(self) -> None:
        self.layer = torch.nn.Linear(2, 3)
        torch.nn.init.constant_(self.layer.weight, 40.0)
        torch.nn.init.zeros_(self.layer.bias)
        self.drawn: list[tuple[str, int]] = []

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        self.drawn += zip(prompts, seeds, strict=True)
        images = []
        for prompt, seed in zip(prompts, seeds, strict=True):
            noise = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(seed)) * 40
            asked = torch.tensor([float(WANTED in prompt), 0.0], device=self.layer.weight.device)
            image = noise + self.layer(asked).cpu().view(3, 1, 1)
            image[1] += 100 * any(detail in prompt for detail in DETAILS)
            images.append(image.clamp(0, 255).to(torch.uint8))
        return torch.stack(images)


class Brightness(torch.nn.Module):
    """Mean of a colour channel, on a scale of its own."""

    def __init__(self, name: str, channel: int, scale: float) -> None:
        super().__init__()
        self.name, self.channel = name, channel
        self.scale = torch.nn.Parameter(torch.tensor(scale))

    def __call__(self, user_prompts: Sequence[str], images: Tensor) -> Tensor:
        assert len(user_prompts) == len(images)
        values = images.to(self.scale.device)[:, self.channel].float().mean(dim=(1, 2))
        return (values * self.scale.detach()).cpu()


def warm_up(run: Path, data: Path) -> Path:
    """Trains a small encoder and decoder into `run`; returns it."""
    loop = LoopSettings(steps=100, batch_size=16, validate_every=100, checkpoint_every=100)
    common: dict[str, Any] = {"run": run, "data": data, "device": "cpu", "progress": False, "loop": loop}
    common["optimizer"] = OptimizerSettings(lr=4e-3)
    sizes = T5Sizes(vocab_size=280, d_model=32, d_ff=32, layers=1, heads=2)
    encoder.run(EncoderSettings(sizes=sizes, **(common | {"loop": replace(loop, steps=2)})))
    decoder.run(DecoderSettings(sizes=LLAMA, **common))
    return run


def warm_up_peer(run: Path, data: Path) -> Path:
    """Trains a small decoder without pivot, on the system prompts in `data` as rewrites, into `run`; returns it."""
    prompts = pd.read_parquet(data / "system_prompts.parquet")
    user_prompts = prompts["system_prompt"].str.partition(",")[0]
    prompts.assign(user_prompt=user_prompts).to_parquet(run / "rewrites.parquet")
    loop = LoopSettings(steps=100, batch_size=16, validate_every=100, checkpoint_every=100)
    common: dict[str, Any] = {"run": run, "device": "cpu", "progress": False, "loop": loop}
    common["optimizer"] = OptimizerSettings(lr=4e-3)
    decoder.run(DecoderSettings(sizes=LLAMA, pivot="none", rewrites=run / "rewrites.parquet", **common))
    return run


def make_peer(warm: Path) -> RlParts:
    """Returns the parts that `warm_up_peer` made, with the painter."""
    folder = warm / "decoder" / "part"
    model = PripModel(None, PromptDecoder.from_pretrained(folder))
    return _with_painter(model, PripProcessor(None, load_tokenizer(folder)))


def make_parts(warm: Path, prompts: int | None = None) -> RlParts:
    """Returns the parts that `warm_up` made, with the painter; on the first `prompts` user prompts, or on all."""
    folders = warm / "encoder" / "part", warm / "decoder" / "part"
    model = PripModel(PreferenceEncoder.from_pretrained(folders[0]), PromptDecoder.from_pretrained(folders[1]))
    return _with_painter(model, PripProcessor(load_tokenizer(folders[0]), load_tokenizer(folders[1])), prompts)


def _with_painter(model: PripModel, processor: PripProcessor, prompts: int | None = None) -> RlParts:
    texts = {place: [f"a {subject} in a {place}" for subject in SUBJECTS] for place in PLACES}
    return RlParts(
        model=model,
        processor=processor,
        generator=Painter(),
        rewards=[Brightness("red", 0, 1.0), Brightness("green", 1, 0.01)],
        train_prompts=[text for place in PLACES[:-1] for text in texts[place]][:prompts],
        dev_prompts=texts[PLACES[-1]],
    )


def assert_same_rollouts(one: pd.DataFrame, other: pd.DataFrame, tolerance: float) -> None:
    """Asserts that two tables of rollouts are equal, their log-probabilities up to `tolerance`."""
    columns = ["log_probability", "reference_log_probability"]
    pd.testing.assert_frame_equal(one.drop(columns=columns), other.drop(columns=columns))
    assert other.log_probability.to_numpy() == pytest.approx(one.log_probability.to_numpy(), abs=tolerance)
    for mine, theirs in zip(one.reference_log_probability, other.reference_log_probability, strict=True):
        assert theirs == pytest.approx(mine, abs=tolerance)


def rl_settings(run: Path, **options: Any) -> RlSettings:
    """Returns settings of a few iterations on the CPU."""
    chosen: dict[str, Any] = {"device": "cpu", "progress": False, "loop": LOOP, "rollouts": ROLLOUTS}
    chosen["optimizer"] = OptimizerSettings(lr=2e-3)
    return RlSettings(run=run, **(chosen | options))


def finished_rl(run: Path) -> Path:
    """Makes RUN/rl look like an earlier run, and returns a file in it that --overwrite deletes."""
    (run / "rl").mkdir(parents=True)
    for name in ("settings.yaml", "finished"):
        (run / "rl" / name).touch()
    return run / "rl" / "finished"


VALUE = PpoSettings(baseline="value", epochs=2, minibatch=6)
GROUP = PpoSettings(baseline="group", epochs=2, minibatch=6)
assert WANTED in LIGHTS
