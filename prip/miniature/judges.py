"""The judges of the miniature: rewards for evaluation, which training never opens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..protocols import Images, Reward
from ..rewards import load_reward
from .preference import expected_preference
from .reader import Reader
from .scene import parse


def _requested(user_prompts: Sequence[str], factor: str) -> Tensor:
    """Return the value of a factor that each prompt asks for, int64 `(n,)`; -1 if a prompt leaves it open."""
    asked = [parse(prompt)[factor] for prompt in user_prompts]
    return torch.tensor([-1 if value is None else value for value in asked], dtype=torch.long)


class Truth:
    """A `Reward`: the true preference of what a reader sees."""

    name = "truth"

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def __call__(self, user_prompts: Sequence[str], images: Images) -> Tensor:
        """Return the expected preference, float32 `(n,)` in 0..1; raise ValueError for an unknown subject."""
        subject = _requested(user_prompts, "subject")
        if (subject < 0).any():
            unknown = user_prompts[int((subject < 0).nonzero()[0])]
            raise ValueError(f"user_prompts: expected a subject of the miniature in each, got {unknown!r}")
        return expected_preference(subject, _requested(user_prompts, "place"), self.reader.read(images))


class SubjectAccuracy:
    """A `Reward`: 1 if the reader sees the subject that the user asked for, else 0."""

    name = "subject_accuracy"

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def __call__(self, user_prompts: Sequence[str], images: Images) -> Tensor:
        """Return float32 scores `(n,)`."""
        return (self.reader.read(images)[0].argmax(1) == _requested(user_prompts, "subject")).float()


class Judges(NamedTuple):
    """All judges; `_asdict()` returns them by name."""

    truth: Truth
    second_reward: Reward
    subject_accuracy: SubjectAccuracy


def load_judges(readers: str | Path, device: str | None = None) -> Judges:
    """Load the judges from a checkpoint's folder readers/; raise CheckpointError if a part is missing.

    `truth` and `subject_accuracy` use reader B, `second_reward` has reader C's trunk.
    """
    reader = Reader.from_pretrained(Path(readers) / "b").to(device or "cpu").eval()  # type: ignore[arg-type]
    return Judges(Truth(reader), load_reward(Path(readers) / "c", device), SubjectAccuracy(reader))
