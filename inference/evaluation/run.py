"""The evaluation itself, on plain objects: refiners, generators and judges in, a result fit for JSON out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from prip.protocols import Generator, PromptRefiner, Reward

from .gallery import Gallery
from .protocol import (
    FIRST_EVALUATION_SEED,
    FIRST_SEARCH_SEED,
    STEPS,
    EvaluationSettings,
    Prompt,
    image_seeds,
)
from .refiners import RandomRefiner
from .search import BestRefiner
from .statistics import (
    Floats,
    cluster_means,
    correlation,
    mean_difference,
    ratio_of_means,
    resampling_weights,
)

Result = dict[str, Any]
Scores = dict[str, dict[str, Floats]]
"""Refiner -> judge -> mean score of each subject, `(subjects,)`."""


def evaluate(
    prompts: Sequence[Prompt],
    refiners: Sequence[PromptRefiner],
    generators: Mapping[str, Generator],
    judges: Mapping[str, Reward],
    settings: EvaluationSettings,
    seed: int = 0,
    with_best: bool = False,
    progress: bool = False,
) -> Result:
    """Measure each refiner by each judge on each generator. One of `refiners` must be `none`.

    Every refiner gets the same image seeds; `with_best` adds the refiner `best`, searched for each generator by the
    judge `truth`. Returns rows, steps, gap_closed, and the prompts that each refiner made for the first seed.
    """
    prompts_per_image = [prompt for prompt in prompts for _ in range(settings.images_per_prompt)]
    seeds = image_seeds(FIRST_EVALUATION_SEED, len(prompts_per_image), seed)
    user_prompts = [prompt.text for prompt in prompts_per_image]
    made = {refiner.name: refiner(user_prompts, seeds) for refiner in refiners}
    weights = resampling_weights(len({prompt.subject for prompt in prompts}), settings.bootstrap_draws, seed)
    result: Result = {"rows": [], "gap_closed": {}, "steps": [], "examples": []}
    for name, generator in generators.items():
        gallery = Gallery(generator, judges, settings.batch_size, progress)
        texts = dict(made)
        if with_best:
            texts["best"] = _best_refiner(gallery, prompts, settings, seed)(user_prompts, seeds)
        scores: Scores = {}
        for refiner, refined in texts.items():
            by_judge = gallery.scores(user_prompts, refined, seeds, label=f"{name}: {refiner}")
            scores[refiner] = {judge: _subject_means(values, prompts_per_image) for judge, values in by_judge.items()}
        result["rows"] += _rows(name, scores, len(prompts), weights)
        result["steps"] += _steps(name, scores, weights)
        if "rl" in scores and "best" in scores and "truth" in judges:
            plain, refined_by_rl, best = (scores[refiner]["truth"] for refiner in ("none", "rl", "best"))
            result["gap_closed"][name] = list(ratio_of_means(refined_by_rl - plain, best - plain, weights))
        result["examples"] += _examples(name, prompts, texts, settings.images_per_prompt)
    return result


def _best_refiner(gallery: Gallery, prompts: Sequence[Prompt], settings: EvaluationSettings, seed: int) -> BestRefiner:
    per_prompt = settings.search_per == "prompt"
    unit_of = {prompt.text: prompt.text if per_prompt else prompt.combination for prompt in prompts}
    seeds = image_seeds(FIRST_SEARCH_SEED, len(set(unit_of.values())) * settings.search_images, seed)
    return BestRefiner(gallery, unit_of, seeds, settings.search_passes, settings.search_wordings)


def _subject_means(values: Floats, prompts: Sequence[Prompt]) -> Floats:
    return cluster_means(values, [prompt.combination for prompt in prompts], [prompt.subject for prompt in prompts])


def _rows(generator: str, scores: Scores, count: int, weights: Floats) -> list[Result]:
    """One row for each refiner and judge; its difference is to `none`, of which the p-value is None."""
    rows = []
    for refiner, by_judge in scores.items():
        for judge, means in by_judge.items():
            place = {"refiner": refiner, "generator": generator, "judge": judge, "n": count}
            row: Result = {**place, "mean": float(means.mean())}
            if refiner == "none":
                row |= {"difference": 0.0, "low": 0.0, "high": 0.0, "p_value": None}
            else:
                row |= _test(scores["none"][judge], means, weights)
            rows.append(row)
    return rows


def _steps(generator: str, scores: Scores, weights: Floats) -> list[Result]:
    """Tests of adjacent refiners, of those that were measured."""
    return [
        {"from": before, "to": after, "generator": generator, "judge": judge}
        | _test(scores[before][judge], means, weights)
        for before, after in STEPS
        if before in scores and after in scores
        for judge, means in scores[after].items()
    ]


def _test(before: Floats, after: Floats, weights: Floats) -> Result:
    tested = asdict(mean_difference(after - before, weights))
    return {"difference": tested.pop("value"), **tested}


def _examples(
    generator: str, prompts: Sequence[Prompt], texts: Mapping[str, Sequence[str]], images_per_prompt: int
) -> list[Result]:
    """For the first prompt of each subject, what every refiner made of it for its first image."""
    first = {prompt.subject: place for place, prompt in reversed(list(enumerate(prompts)))}
    return [
        {
            "generator": generator,
            "user_prompt": prompts[place].text,
            "refined_prompts": {refiner: made[place * images_per_prompt] for refiner, made in texts.items()},
        }
        for place in sorted(first.values())
    ]


def agreement_on_renders(judge: Reward, prompts: Sequence[Prompt], count: int, size: int, seed: int = 0) -> Result:
    """Compare the judge with the exact truth on `count` renders of known scenes, of `size` pixels a side.

    The scenes show what a user prompt with random modifiers asks for. Returns n, correlation (None where one of the two
    is constant) and mean_absolute_error.
    """
    import torch

    from prip.miniature.preference import scene_preference
    from prip.miniature.renderer import render, sample_jitter
    from prip.miniature.scene import parse, sample_scene
    from prip.randomness import random_generator

    user_prompts = [prompts[i % len(prompts)].text for i in range(count)]
    shown = RandomRefiner()(user_prompts, list(range(count)))
    generators = [random_generator("agreement", seed, i) for i in range(count)]
    scenes = torch.tensor([sample_scene(parse(p), g) for p, g in zip(shown, generators, strict=True)])
    images = render(scenes, torch.tensor([sample_jitter(g) for g in generators]), size)
    asked = [parse(prompt) for prompt in user_prompts]
    subject, place = (
        torch.tensor([-1 if r[factor] is None else r[factor] for r in asked]) for factor in ("subject", "place")
    )
    exact = scene_preference(subject, place, scenes).double().numpy()
    seen = judge(user_prompts, images).double().numpy()
    error = float(np.abs(seen - exact).mean())
    return {"judge": judge.name, "n": count, "correlation": correlation(seen, exact), "mean_absolute_error": error}
