"""Small objects that fulfil the protocols, and a folder RUN/parts of small real parts with random weights."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

SUBJECTS = ["cat", "dog", "apple", "castle", "tulip", "boat", "fox", "bicycle"]
MODIFIERS = ["golden hour", "sharp focus", "highly detailed", "watercolor"]


class MadeGenerator:
    """Draws one colour a (prompt, seed); counts the calls and, at `fail_at`, breaks off."""

    name, token_limit, steps, guidance = "made", 75, 3, 1.5

    def __init__(self, size: int = 8, fail_at: int = 0) -> None:
        self.size, self.fail_at, self.calls = size, fail_at, 0

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        self.calls += 1
        if self.calls == self.fail_at:
            raise KeyboardInterrupt
        colours = [
            list(zlib.crc32(f"{p}/{s}".encode()).to_bytes(4, "big")[:3]) for p, s in zip(prompts, seeds, strict=True)
        ]
        return torch.tensor(colours, dtype=torch.uint8)[:, :, None, None].expand(-1, -1, self.size, self.size)

    def count_tokens(self, text: str) -> int:
        return len(text.split())


class ColourReward:
    """The mean of one channel, scaled and shifted; remembers the prompts that it scored for."""

    def __init__(self, name: str, channel: int, scale: float = 1.0, shift: float = 0.0) -> None:
        self.name, self.channel, self.scale, self.shift = name, channel, scale, shift
        self.asked: list[str] = []

    def __call__(self, user_prompts: Sequence[str], images: Tensor) -> Tensor:
        assert len(user_prompts) == len(images)
        self.asked += user_prompts
        return images[:, self.channel].float().mean((1, 2)) * self.scale + self.shift


class ColourPivots:
    """The mean colour, as a pivot of 2 x 3."""

    pivot_length, pivot_width = 2, 3

    def __call__(self, images: Tensor) -> Tensor:
        return images.float().mean((2, 3))[:, None].expand(-1, 2, -1)


def user_prompts() -> pd.DataFrame:
    """Eight prompts: six train, one dev, one test."""
    splits = ["train"] * 6 + ["dev", "test"]
    rows = zip(SUBJECTS, splits, strict=True)
    return pd.DataFrame([{"user_prompt": f"a {name}", "subject": name, "split": split} for name, split in rows])


def system_prompts() -> pd.DataFrame:
    """Sixteen prompts of training and four of dev."""
    return pd.DataFrame(
        [
            {"system_prompt": f"a {name}, {modifier}", "split": "dev" if name == SUBJECTS[4] else "train"}
            for name in SUBJECTS[:5]
            for modifier in MODIFIERS
        ]
    )


def write_prompts(run: Path) -> None:
    """Writes RUN/parts/prompts."""
    folder = run / "parts" / "prompts"
    folder.mkdir(parents=True)
    user_prompts().to_parquet(folder / "user_prompts.parquet")
    system_prompts().to_parquet(folder / "system_prompts.parquet")


def write_parts(run: Path) -> None:
    """Writes RUN/parts: prompts, a diffusion generator of 16-pixel images, a pivot encoder and two rewards."""
    from tiny_diffusion import tiny_pipeline

    from prip.generators.diffusion import DiffusersGenerator, DrawingOptions
    from prip.pivot_encoders.qformer import QFormerPivotEncoder, QFormerPivotEncoderConfig
    from prip.rewards.prompt_reward import PromptReward, PromptRewardConfig
    from prip.training.from_scratch import train_encoder_tokenizer

    write_prompts(run)
    tokenizer = train_encoder_tokenizer(system_prompts()["system_prompt"].tolist(), 300)
    tokenizer.model_max_length = 32
    with torch.random.fork_rng():
        torch.manual_seed(0)
        options = DrawingOptions(steps=1, guidance=1.0)
        DiffusersGenerator(tiny_pipeline(tokenizer), options).save_pretrained(run / "parts" / "generator")
        sizes = {"trunk_width": 32, "grid": 4}
        pivots = QFormerPivotEncoderConfig(pivot_length=2, pivot_width=16, layers=1, heads=2, **sizes)
        QFormerPivotEncoder(pivots).save_pretrained(run / "parts" / "pivot_encoder")
        for name, mean in (("mini-reward", 0.0), ("mini-hps", 27.0)):
            config = PromptRewardConfig(name=name, vocab_size=len(tokenizer), width=16, score_mean=mean, **sizes)
            reward = PromptReward(config)
            reward.tokenizer = tokenizer
            reward.save_pretrained(run / "parts" / "rewards" / name)
