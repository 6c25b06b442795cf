"""A small finished evaluation, as `prip evaluate` leaves it: the renderer's images and results.parquet."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import pyarrow
import pyarrow.parquet
from PIL import Image, PngImagePlugin

from prip.miniature.renderer import Renderer

SUBJECTS = ("cat", "sailboat", "pizza", "rocket", "castle", "car")
SUFFIXES = {"none": "", "warmup": ", sharp focus", "rl": ", golden hour, sharp focus, highly detailed"}


def make_evaluation(
    folder: Path,
    subjects: Sequence[str] = SUBJECTS,
    refiners: Sequence[str] = ("none", "rl"),
    images_per_prompt: int = 2,
    size: int = 32,
    generator: str = "renderer",
    failed: Sequence[tuple[str, str]] = (),
) -> Path:
    """Writes images/ and results.parquet into `folder` and returns it. failed: (subject, refiner) without images.

    Every PNG tells its prompt in a text of its own, as image programs do.
    """
    renderer = Renderer(size=size)
    rows = []
    for refiner in refiners:
        for place, subject in enumerate(subjects):
            user_prompt = f"a {subject}"
            refined = user_prompt + SUFFIXES[refiner]
            for index in range(images_per_prompt):
                seed = 1000 * place + index
                address = hashlib.sha256(f"{generator}|{refined}|{seed}".encode()).hexdigest()
                bad = (subject, refiner) in failed
                if not bad:
                    write_image(folder, address, renderer([refined], [seed])[0].permute(1, 2, 0).numpy(), refined)
                rows.append(
                    {
                        "prompt_id": place,
                        "user_prompt": user_prompt,
                        "category": "",
                        "unit": subject,
                        "cluster": subject,
                        "refiner": refiner,
                        "generator": generator,
                        "image_index": index,
                        "seed": seed,
                        "refined_prompt": refined,
                        "tokens": len(refined.split()),
                        "token_limit": 75,
                        "image": "" if bad else address,
                        "error": "it broke" if bad else "",
                        "within_distance": math.nan,
                        "score:truth": 0.5,
                    }
                )
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "results.parquet")
    return folder


def write_image(folder: Path, address: str, pixels, text: str) -> Path:
    """Writes uint8 pixels `(height, width, 3)` under their address, with a text; returns the file."""
    path = folder / "images" / address[:2] / f"{address}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    told = PngImagePlugin.PngInfo()
    told.add_text("prompt", text)
    Image.fromarray(pixels).save(path, pnginfo=told)
    return path
