"""A tiny folder DATA, as prepare writes it: pivots that tell the modifiers, prompts that hide them."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pandas as pd
import torch

from prip.training.data.pivot_cache import write_index, write_shard

SUBJECTS = ["cat", "dog", "apple", "castle", "red car", "tulip"]
PLACES = ["park", "desert", "street", "forest"]
LIGHTS = ["golden hour", "soft light", "neon light"]
DETAILS = ["sharp focus", "highly detailed", "soft focus"]
PIVOT_LENGTH, PIVOT_WIDTH = 2, 8


def write_data(folder: Path, repeats: int = 1) -> Path:
    """Writes the two tables and their pivots; the last place is the dev split. Returns `folder`."""
    chance = random.Random(0)
    preferred, system, names, pivots = [], [], [], []

    def add_image(subject: int, light: int, detail: int) -> str:
        pivot = torch.zeros(PIVOT_LENGTH, PIVOT_WIDTH)
        pivot[0, subject], pivot[1, light], pivot[1, len(LIGHTS) + detail] = 1, 1, 1
        names.append(f"image-{len(names):05}")
        pivots.append(pivot + 0.05 * torch.randn(pivot.shape, generator=torch.Generator().manual_seed(len(names))))
        return names[-1]

    everything = itertools.product(range(len(SUBJECTS)), PLACES, range(len(LIGHTS)), range(repeats))
    for subject, place, light, _ in everything:
        split = "dev" if place == PLACES[-1] else "train"
        user_prompt, best = f"a {SUBJECTS[subject]} in a {place}", subject % len(LIGHTS)
        detail = chance.randrange(len(DETAILS))
        preferred.append(
            {
                "user_prompt": user_prompt,
                "image_name": add_image(subject, best, best),
                "random_image_name": add_image(subject, light, detail),
                "split": split,
            }
        )
        system.append(
            {
                "system_prompt": f"{user_prompt}, {LIGHTS[light]}, {DETAILS[detail]}",
                "image_name": add_image(subject, light, detail),
                "split": split,
            }
        )
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(preferred).to_parquet(folder / "preferred_images.parquet")
    pd.DataFrame(system).to_parquet(folder / "system_prompts.parquet")
    write_pivots(folder / "pivots", names, torch.stack(pivots))
    return folder


def write_pivots(folder: Path, names: list[str], pivots: torch.Tensor, shard: int = 64) -> None:
    """Writes a PivotCache of pivots (len(names), pivot_length, pivot_width), `shard` of them in a file."""
    shards = {f"{start}.safetensors": slice(start, start + shard) for start in range(0, len(names), shard)}
    for file, chosen in shards.items():
        write_shard(folder / file, names[chosen], pivots[chosen])
    write_index(folder, {file: names[chosen] for file, chosen in shards.items()})
