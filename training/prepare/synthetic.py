"""Synthetic rewrites: user prompts with the modifiers of system prompts, and their gain in reward."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch

from prip.rewards import StandardisedSum
from prip.text.prompts import own_words

from ..data.pairs import MANIFEST
from ..data.rewrites import REWRITES, continued
from ..rollouts.image_scorer import ImageScorer
from ..runs.seeds import derive_seed, drawing_seeds

Job = tuple[str, str, int]
"""The user prompt that an image is scored for, the prompt that it is drawn from, and its seed."""


def from_starts(system_prompts: Sequence[str]) -> pd.DataFrame:
    """Return user_prompt, system_prompt: the text before the first modifier of each prompt, and all of it."""
    parts = [prompt.partition(",") for prompt in system_prompts]
    rows = [(own_words(start), rest) for start, _, rest in parts if own_words(start) and own_words(rest)]
    table = pd.DataFrame([(start, continued(start, rest)) for start, rest in rows], columns=REWRITES)
    return table.drop_duplicates(ignore_index=True)


def from_table(user_prompts: Sequence[str], system_prompts: Sequence[str], count: int, seed: int) -> pd.DataFrame:
    """Return user_prompt, system_prompt: each user prompt with the modifiers of `count` different system prompts,
    chosen at random by the seed and the user prompt."""
    modifiers = list(dict.fromkeys(own_words(prompt.partition(",")[2]) for prompt in system_prompts))
    modifiers = [text for text in modifiers if text]
    rows = []
    for prompt in user_prompts:
        chance = random.Random(derive_seed(seed, "rewrites", prompt))
        chosen = chance.sample(range(len(modifiers)), min(count, len(modifiers)))
        rows += [(prompt, continued(prompt, modifiers[index])) for index in chosen]
    return pd.DataFrame(rows, columns=REWRITES)


def known_scores(data: Path, inputs: Mapping[str, str], names: Sequence[str]) -> dict[Job, dict[str, float]]:
    """Return the raw scores by reward of the images that prepare drew into the folder `data`.

    `inputs` are the hashes of the generator and the rewards, by prepare's names. The result is empty if prepare used
    others, or a DiffusionDB.
    """
    prompts, scores, manifest = data / "prompts.parquet", data / "scores.parquet", data / MANIFEST
    if not all(path.is_file() for path in (prompts, scores, manifest)):
        return {}
    described = json.loads(manifest.read_text(encoding="utf-8"))
    if any(described["inputs"].get(name) != value for name, value in inputs.items()):
        return {}
    frame = pd.read_parquet(prompts).merge(pd.read_parquet(scores, columns=["image_name", *names]), on="image_name")
    owners = frame["prompt"]
    if described["settings"]["system"]["scored_for"] == "start":
        owners = owners.where(frame["origin"] == "user", owners.str.partition(",")[0].str.strip())
    jobs = zip(owners, frame["prompt"], frame["seed"].astype(int), strict=True)
    return dict(zip(jobs, frame[list(names)].to_dict("records"), strict=True))


def image_seeds(rewrites: pd.DataFrame, known: Mapping[Job, object], count: int, seed: int) -> list[list[int]]:
    """Return `count` image seeds per rewrite: first those with a known image of the user prompt, then of the system
    prompt."""
    drawn: dict[str, list[int]] = {}
    for _, prompt, image_seed in known:
        drawn.setdefault(prompt, []).append(image_seed)
    chosen = []
    for user_prompt, system_prompt in zip(*(rewrites[column] for column in REWRITES), strict=True):
        candidates = [*drawn.get(user_prompt, []), *drawn.get(system_prompt, [])]
        candidates += drawing_seeds(count, seed, "rewrites", user_prompt)
        chosen.append(list(dict.fromkeys(candidates))[:count])
    return chosen


def gains(
    rewrites: pd.DataFrame,
    seeds: Sequence[Sequence[int]],
    scorer: ImageScorer,
    total: StandardisedSum,
    known: Mapping[Job, Mapping[str, float]],
) -> list[float]:
    """Return each system prompt's mean gain in the standardised sum over its user prompt: both drawn with the same
    seeds and scored for the user prompt. Images in `known` are not drawn."""
    owners = [user for user, row in zip(rewrites["user_prompt"], seeds, strict=True) for _ in row]
    prompts = [system for system, row in zip(rewrites["system_prompt"], seeds, strict=True) for _ in row]
    flat = [image_seed for row in seeds for image_seed in row]
    jobs = list(zip(owners, prompts, flat, strict=True))
    missing = [job for job in dict.fromkeys(jobs) if job not in known]
    scores: dict[Job, Mapping[str, float]] = {job: known[job] for job in jobs if job in known}
    if missing:
        columns: tuple[list[str], list[str], list[int]] = tuple(map(list, zip(*missing, strict=True)))  # type: ignore[assignment]
        drawn = scorer.score(*columns)
        scores |= {job: {name: drawn[name][index].item() for name in drawn} for index, job in enumerate(missing)}
    refined = {name: torch.tensor([scores[job][name] for job in jobs]) for name in scorer.names}
    plain = scorer.score_plain(owners, flat)
    gain = total.combine(refined) - total.combine(plain)
    return [part.mean().item() for part in gain.split([len(row) for row in seeds])]
