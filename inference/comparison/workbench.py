"""Before and after: a user prompt and its refinement, drawn from the same seeds and scored for the user prompt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prip.errors import require
from prip.generators.safety import blackened
from prip.loading.folders import refiner_folder

from ..checkpoint_parts import load_rewards
from .sheet import Column

if TYPE_CHECKING:
    from prip.protocols import Generator, Images, Reward
    from prip.refiner import Refiner

TITLES = ("plain", "refined")


@dataclass(frozen=True)
class Workbench:
    """A checkpoint's refiner, with its generator and rewards if it has any."""

    refiner: Refiner
    """Its token budget is counted by the generator, if there is one."""
    generator: Generator | None
    rewards: Sequence[Reward]

    @classmethod
    def load(cls, folder: Path, device: str | None = None, generator: str | None = None) -> Workbench:
        """Load what a checkpoint has. Without a generator, no reward is loaded.

        Args:
            folder: A whole checkpoint, from `prip.loading.folders.whole_folder`, or a refiner alone.
            device: Where to compute; None is a GPU if there is one.
            generator: Replaces the checkpoint's own, by its name in `prip.generators.load_generator`.

        Raises:
            CheckpointError: A part cannot be loaded.
            MissingExtraError: The generator needs diffusers, which is not installed.
            InputError: The device cannot be used.
        """
        own = folder / "generator"
        name = generator or (str(own) if own.is_dir() else None)
        if name not in (None, "renderer"):
            require("diffusers", "generate")
        from prip.refiner import Refiner

        refiner = Refiner.from_pretrained(refiner_folder(folder), device=device)
        return cls(refiner, None, ()) if name is None else cls.around(refiner, folder, name, device)

    @classmethod
    def around(cls, refiner: Refiner, folder: Path, generator: str, device: str | None = None) -> Workbench:
        """Load a generator and the checkpoint's rewards, if any, for a loaded refiner.

        Arguments and errors as for `load`, but the generator is required.
        """
        from prip.devices import as_device
        from prip.generators import load_generator

        name = str(as_device(device))
        drawing = load_generator(generator, device=name)
        rewards = load_rewards(folder / "rewards", name) if (folder / "rewards").is_dir() else ()
        return cls(refiner.counted_by(drawing), drawing, tuple(rewards))

    def draw(
        self, user_prompts: Sequence[str], prompts: Sequence[str], seeds: Sequence[int]
    ) -> tuple[Images, dict[str, list[float]]]:
        """Draw each prompt from its seed, and score the image for its user prompt. Needs a generator.

        Returns:
            The images, and one score per image for each reward, by name; NaN for an image that the generator's safety
            checker blackened.
        """
        assert self.generator is not None
        images = self.generator(prompts, seeds)
        shown = (~blackened(self.generator, images)).nonzero().squeeze(1).tolist()
        scores = {reward.name: [math.nan] * len(images) for reward in self.rewards}
        for reward in self.rewards if shown else ():
            found = reward([user_prompts[row] for row in shown], images[shown]).tolist()
            for row, score in zip(shown, found, strict=True):
                scores[reward.name][row] = score
        return images, scores

    def before_after(
        self, user_prompt: str, refined_prompt: str, seeds: Sequence[int], progress: bool = False
    ) -> list[Column]:
        """Draw the user prompt and the refined one from the same seeds; only once when they are identical.

        progress: whether to show the progress of a diffusers pipeline on the error stream.
        """
        texts = dict(zip(TITLES, dict.fromkeys((user_prompt, refined_prompt)), strict=False))
        show = getattr(self.generator, "show_progress", None) if progress else None
        columns = []
        for title, text in texts.items():
            if show:
                show(f"drawing {title}")
            images, scores = self.draw([user_prompt] * len(seeds), [text] * len(seeds), seeds)
            columns.append(Column(title, text, images, scores))
        if show:
            show(None)
        return columns
