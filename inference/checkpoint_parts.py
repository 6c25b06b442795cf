"""Where the parts of a whole checkpoint lie, the embedded one, a folder of that layout, or a training run."""

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
    """Folders of a whole checkpoint; a missing one is an error of whoever loads it."""

    encoder: Path
    """E after reinforcement learning."""
    warmup_encoder: Path
    """E after its warm-up."""
    decoder: Path
    generator: Path
    tuned_generator: Path | None
    """What prip-train tune made of it; a checkpoint has none."""
    rewards: Path
    """One folder a training reward."""
    readers: Path
    pivot_encoder: Path

    @classmethod
    def of_checkpoint(cls, name: str, revision: str | None = None) -> Parts:
        """Parts of an embedded checkpoint, a folder or "owner/name" on the Hub, there at `revision`. A refiner alone
        has none but its own.

        Raises CheckpointError when there is none such.
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
        """Parts that the stages of a training run have exported. Raises CheckpointError when there is no such run."""
        if not run.is_dir():
            raise CheckpointError(f"run {str(run)!r} is not a folder")
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
    """Return the folder of a part. Raises CheckpointError when it is missing."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is missing")
    return folder


def load_refiner(encoder: Path, decoder: Path, name: str, device: str) -> Refiner:
    """Load E and D from the folders of two parts, each with its tokenizer, in float32.

    Raises CheckpointError when a part is missing, or the two do not fit together.
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
    """Load every training reward, in the order of their folders' names. Raises CheckpointError when there is none."""
    from prip.rewards import load_reward

    folders = sorted(path.parent for path in existing(folder).glob("*/config.json"))
    if not folders:
        raise CheckpointError(f"{folder} holds no reward")
    return [load_reward(path, device) for path in folders]
