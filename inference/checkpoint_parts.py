"""Locate and load the parts of a whole checkpoint or of a training run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prip.errors import CheckpointError, InputError
from prip.loading.folders import whole_folder

if TYPE_CHECKING:
    from prip.protocols import Reward
    from prip.refiner import Refiner


@dataclass(frozen=True)
class Parts:
    """Folders of the parts, which need not exist."""

    encoder: Path
    """The preference encoder after reinforcement learning."""
    warmup_encoder: Path
    """The preference encoder after its warm-up."""
    decoder: Path
    generator: Path
    tuned_generator: Path | None
    """The generator after `prip-train tune`; None in a checkpoint."""
    rewards: Path
    """Holds one folder per training reward."""
    readers: Path
    pivot_encoder: Path

    @classmethod
    def of_checkpoint(cls, name: str, revision: str | None = None) -> Parts:
        """Return the parts of a checkpoint: embedded, a folder, or "owner/name" on the Hub at `revision`.

        Raises CheckpointError if there is no such checkpoint.
        """
        root = whole_folder(name, revision)
        refiner = root / "refiner" if (root / "refiner").is_dir() else root
        return cls(
            encoder=refiner / "encoder",
            warmup_encoder=root / "warmup" / "encoder",
            decoder=refiner / "decoder",
            generator=root / "generator",
            tuned_generator=None,
            rewards=root / "rewards",
            readers=root / "readers",
            pivot_encoder=root / "pivot_encoder",
        )

    @classmethod
    def of_run(cls, run: Path) -> Parts:
        """Return the parts that a training run has exported. Raises CheckpointError if there is no such run."""
        if not run.is_dir():
            raise CheckpointError(f"run: expected a folder, got {str(run)!r}")
        refiner, frozen = run / "rl" / "refiner", run / "parts"
        return cls(
            encoder=refiner / "encoder",
            warmup_encoder=run / "encoder" / "part",
            decoder=refiner / "decoder" if refiner.is_dir() else run / "decoder" / "part",
            generator=frozen / "generator",
            tuned_generator=run / "tune" / "part",
            rewards=frozen / "rewards",
            readers=frozen / "readers",
            pivot_encoder=frozen / "pivot_encoder",
        )


def existing(folder: Path) -> Path:
    """Return the folder of a part. Raises CheckpointError if it is missing."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is missing")
    return folder


def load_refiner(encoder: Path, decoder: Path, name: str, device: str) -> Refiner:
    """Load a refiner in float32 from the folders of its two parts, which hold their tokenizers too.

    Raises CheckpointError if a part is missing or the two do not fit together.
    """
    from prip.modeling import PreferenceEncoder, PripModel, PromptDecoder
    from prip.processing import PripProcessor, load_tokenizer
    from prip.refiner import Refiner

    parts = PreferenceEncoder.from_pretrained(existing(encoder)), PromptDecoder.from_pretrained(existing(decoder))
    try:
        processor = PripProcessor(load_tokenizer(encoder), load_tokenizer(decoder))
        return Refiner(PripModel(*parts).to(device), processor, name=name)
    except InputError as error:
        raise CheckpointError(f"{encoder} and {decoder}: {error}") from error


def load_rewards(folder: Path, device: str) -> list[Reward]:
    """Load all training rewards, sorted by folder name. Raises CheckpointError if there are none."""
    from prip.rewards import load_reward

    folders = sorted(path.parent for path in existing(folder).glob("*/config.json"))
    if not folders:
        raise CheckpointError(f"{folder}: expected at least one reward, got none")
    return [load_reward(path, device) for path in folders]
