"""Drawing: which images of which prompts, into a folder in DiffusionDB's layout."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from prip.errors import InputError
from prip.picture_files import read_image
from prip.protocols import Generator

from ..runs.seeds import drawing_seeds
from .diffusiondb import PART_SIZE, Sampling, image_name, part_folder, write_metadata, write_part_json
from .images import write_png


def plan_drawings(prompts: pd.DataFrame, origin: str, images_per_prompt: int, seed: int) -> pd.DataFrame:
    """Return image_name, prompt, seed, origin, split: images_per_prompt rows for each row of `prompts` (prompt, split).

    The seeds of a prompt are consecutive and start at a number derived from `seed` and the prompt.
    """
    rows = []
    for prompt, split in zip(prompts["prompt"], prompts["split"], strict=True):
        for number in drawing_seeds(images_per_prompt, seed, "drawing", prompt):
            rows.append((image_name(prompt, number), prompt, number, origin, split))
    return pd.DataFrame(rows, columns=["image_name", "prompt", "seed", "origin", "split"])


def draw_all(
    plan: pd.DataFrame, generator: Generator, sampling: Sampling, folder: Path, batch_size: int, progress: bool
) -> int:
    """Draw the images of `plan` (prompt, seed) into `folder`, in DiffusionDB's layout, and return how many were drawn.

    A batch is skipped if all its files exist and redrawn whole otherwise, so that an interrupted run gives the same
    images.
    """
    unique = plan.drop_duplicates("image_name")
    prompts, seeds = unique["prompt"].tolist(), unique["seed"].tolist()
    drawn = 0
    with tqdm(total=len(prompts), desc="draw", unit="image", disable=not progress, mininterval=1) as bar:
        for start in range(0, len(prompts), PART_SIZE):
            part = part_folder(folder, start // PART_SIZE + 1)
            part.mkdir(parents=True, exist_ok=True)
            end = min(start + PART_SIZE, len(prompts))
            for first in range(start, end, batch_size):
                last = min(first + batch_size, end)
                drawn += _draw_batch(prompts[first:last], seeds[first:last], generator, part)
                bar.update(last - first)
            write_part_json(part, prompts[start:end], seeds[start:end], sampling)
    _, height, width = read_image(part_folder(folder, 1) / image_name(prompts[0], seeds[0]), "train").shape
    write_metadata(folder, prompts, seeds, sampling, width, height)
    return drawn


def _draw_batch(prompts: list[str], seeds: list[int], generator: Generator, part: Path) -> int:
    paths = [part / image_name(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)]
    if all(path.is_file() and path.stat().st_size for path in paths):
        return 0
    images = generator(prompts, seeds)
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[:2] != (len(prompts), 3):
        raise InputError(
            f"generator: expected uint8 ({len(prompts)}, 3, height, width), got {images.dtype} {tuple(images.shape)}"
        )
    for path, image in zip(paths, images, strict=True):
        write_png(path, image)
    return len(prompts)
