"""Before and after: a user prompt and what was made of it, drawn from the same seeds and scored for the user prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prip.errors import require
from prip.loading.folders import refiner_folder

from ..checkpoint_parts import load_rewards
from .sheet import Column

if TYPE_CHECKING:
    from prip.protocols import Generator, Images, Reward
    from prip.refiner import Refiner

TITLES = ("plain", "refined")


@dataclass(frozen=True)
class Workbench:
    """What was loaded of a checkpoint: its refiner, and the generator and the rewards where there are any."""

    refiner: Refiner
    """Its token budget is counted by the generator, where there is one."""
    generator: Generator | None
    rewards: Sequence[Reward]

    @classmethod
    def load(cls, folder: Path, device: str | None = None, generator: str | None = None) -> Workbench:
        """Load all that a checkpoint has of these.

        folder: of a whole checkpoint, as `prip.loading.folders.whole_folder` gives it, or of a refiner alone.
        device: None is a GPU where there is one.
        generator: in place of the checkpoint's own, as `prip.generators.load_generator` names it.
        Without a generator there is nothing to score, and no reward is loaded.

        Raises CheckpointError for a part that cannot be loaded, MissingExtraError for a generator without diffusers,
        InputError for an unusable device.
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
        """Load what draws for a refiner and scores that: a generator, and the rewards of a checkpoint if it has any.

        The arguments and errors are those of `load`, but that the generator is named in any case.
        """
        from prip.devices import as_device
        from prip.generators import load_generator

        place = str(as_device(device))
        drawing = load_generator(generator, device=place)
        rewards = load_rewards(folder / "rewards", place) if (folder / "rewards").is_dir() else ()
        return cls(refiner.counted_by(drawing), drawing, tuple(rewards))

    def draw(
        self, user_prompts: Sequence[str], prompts: Sequence[str], seeds: Sequence[int]
    ) -> tuple[Images, dict[str, list[float]]]:
        """Draw each prompt from its seed, and score the image for its user prompt. It takes a generator.

        Returns the images, and for each reward, by its name, a score an image.
        """
        assert self.generator is not None
        images = self.generator(prompts, seeds)
        return images, {reward.name: reward(user_prompts, images).tolist() for reward in self.rewards}

    def before_after(
        self, user_prompt: str, refined_prompt: str, seeds: Sequence[int], progress: bool = False
    ) -> list[Column]:
        """Draw the user prompt and the refined one, both from the same seeds: once where they are the same.

        progress: whether a bar on the error stream shows how far a diffusers pipeline has come.
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
