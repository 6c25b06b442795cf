"""The results of an evaluation that never was: real little images of the renderer, scored by the true preference."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prip.miniature.preference import preference_table, scene_preference
from prip.miniature.prompts import sample_modifiers, user_prompts
from prip.miniature.renderer import Renderer
from prip.miniature.scene import parse, sample_scene
from prip.miniature.vocabulary import ATTRIBUTES
from prip.randomness import random_generator

STYLES = ("anime", "concept-art", "paintings", "photo")
ABOUT: dict[str, Any] = {
    "config": "made",
    "checkpoint": "prip-mini",
    "images_per_prompt": 2,
    "seed": 0,
    "seconds": 12.5,
    "refiners": {
        "none": {"kind": "none"},
        "random": {"kind": "random-modifiers"},
        "warmup": {"kind": "prip", "stage": "warmup"},
        "rl": {"kind": "prip"},
        "chat": {"kind": "chat", "model": "somebody/wordy"},
        "best": {"kind": "best", "judge": "truth"},
    },
    "generators": {"diffusion": {"seen": True}, "renderer": {"seen": False}},
    "scorers": {
        "mini-reward": {"role": "trained against"},
        "truth": {"role": "held out"},
        "subject_accuracy": {"role": "fidelity"},
    },
    "settings": {"bootstrap_draws": 500, "prompts": {"kind": "miniature", "split": "test"}},
}
COMPARISONS = [["none", "warmup"], ["warmup", "rl"]]


def refinements(prompt: str, images: int) -> dict[str, list[str]]:
    """Refiner -> its prompt for each image; better and better, as their names say."""
    subject = parse(prompt)["subject"] or 0
    order = preference_table()[subject].argsort(dim=1, descending=True)
    best = [values[int(order[i, 0])].modifiers[0] for i, values in enumerate(ATTRIBUTES.values())]
    second = [values[int(order[i, 1])].modifiers[0] for i, values in enumerate(ATTRIBUTES.values())]
    lucky = random_generator("made results", prompt)
    keep = torch.rand(len(best), generator=lucky).tolist()
    rl = [one if share < 0.7 else other for one, other, share in zip(best, second, keep, strict=True)]
    made = [sample_modifiers(random_generator("made random", prompt, image)) for image in range(images)]
    chat = f"A breathtaking scene of {prompt}, captured in {second[0]} with {best[1]}, {best[2]}"
    return {
        "none": [prompt] * images,
        "random": [", ".join([prompt, *words]) for words in made],
        "warmup": [", ".join([prompt, rl[0], second[1], made[0][0]])] * images,
        "rl": [", ".join([prompt, *rl])] * images,
        "chat": [chat] * images,
        "best": [", ".join([prompt, *best])] * images,
    }


def make_results(
    folder: Path,
    prompts: int = 12,
    images: int = 2,
    categories: bool = True,
    fails: Callable[[int, str, str, int], bool] = lambda prompt, refiner, generator, image: False,
) -> Path:
    """Writes results.parquet and images/ into `folder` and returns the former's path.

    `fails(prompt, refiner, generator, image)`, a prompt by its place, says which images are failed rows.
    """
    import pandas as pd
    from PIL import Image

    texts = user_prompts("test", 2, 0)
    chosen = [texts[i] for i in np.linspace(0, len(texts) - 1, prompts).round().astype(int)]
    painter, rows = Renderer(32), []
    for generator in ABOUT["generators"]:
        for prompt_id, (prompt, subject) in enumerate(chosen):
            seeds = [3_000_000_000 + 97 * prompt_id + image for image in range(images)]
            for refiner, refined in refinements(prompt, images).items():
                heard = [_heard(text, seed, generator) for text, seed in zip(refined, seeds, strict=True)]
                drawn, truth, accuracy = painter(heard, seeds), _truth(prompt, heard, seeds), _shown(prompt, heard)
                flat = drawn.float().flatten(1)
                for image, (text, seed) in enumerate(zip(refined, seeds, strict=True)):
                    failed = fails(prompt_id, refiner, generator, image)
                    address = hashlib.sha256(f"{generator} {text} {seed}".encode()).hexdigest()[:32]
                    path = folder / "images" / address[:2] / f"{address}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(drawn[image].permute(1, 2, 0).numpy()).save(path)
                    rows.append(
                        {
                            "prompt_id": prompt_id,
                            "user_prompt": prompt,
                            "category": STYLES[prompt_id % 4] if categories else "",
                            "unit": f"{subject}/{parse(prompt)['place']}",
                            "cluster": subject,
                            "refiner": refiner,
                            "generator": generator,
                            "image_index": image,
                            "seed": seed,
                            "refined_prompt": text,
                            "tokens": painter.count_tokens(text),
                            "token_limit": 20,
                            "image": "" if failed else address,
                            "error": "RuntimeError: out of <memory>" if failed else "",
                            "within_distance": float((flat[0] - flat[-1]).abs().mean() / 255) if images > 1 else np.nan,
                            "score:mini-reward": np.nan if failed else 4 * truth[image] - 2,
                            "score:truth": np.nan if failed else truth[image],
                            "score:subject_accuracy": np.nan if failed else accuracy[image],
                        }
                    )
    path = folder / "results.parquet"
    table = pd.DataFrame(rows).sort_values(["generator", "refiner", "prompt_id", "image_index"])
    table.to_parquet(path, index=False)
    return path


def _heard(prompt: str, seed: int, generator: str) -> str:
    """What the generator listens to: `diffusion` misses a modifier now and then, and seldom the subject too."""
    luck = torch.rand(3, generator=random_generator("made luck", prompt, seed)).tolist()
    if generator == "renderer":
        return prompt
    parts = prompt.split(", ")
    if len(parts) > 2 and luck[0] < 0.5:
        del parts[1 + int(luck[1] * (len(parts) - 1))]
    return ", ".join(["a robot" if luck[2] < 0.02 else parts[0], *parts[1:]])


def _truth(user_prompt: str, prompts: list[str], seeds: list[int]) -> list[float]:
    scenes = [sample_scene(parse(p), random_generator("renderer", s)) for p, s in zip(prompts, seeds, strict=True)]
    asked = parse(user_prompt)
    wanted = [torch.tensor([-1 if asked[f] is None else asked[f]] * len(prompts)) for f in ("subject", "place")]
    return scene_preference(*wanted, torch.tensor(scenes)).tolist()


def _shown(user_prompt: str, prompts: list[str]) -> list[float]:
    return [float(parse(prompt)["subject"] == parse(user_prompt)["subject"]) for prompt in prompts]


def embeddings(path: Path) -> dict[tuple[str, str], np.ndarray]:
    """By (generator, refiner), vectors of one image of each prompt, as an embedder would hand over."""
    import pandas as pd
    from PIL import Image

    rows = pd.read_parquet(path).query("image != ''").drop_duplicates(["generator", "refiner", "prompt_id"])
    return {
        cell: np.stack(
            [
                np.asarray(
                    Image.open(path.parent / "images" / name[:2] / f"{name}.png").resize((8, 8)), dtype=np.float32
                ).ravel()
                for name in own["image"]
            ]
        )
        for cell, own in rows.groupby(["generator", "refiner"])
    }
