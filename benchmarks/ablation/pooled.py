"""The ablation's tests over all training seeds at once: seeds and clusters of prompts are resampled both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.ablation.tables import refiner_name
from prip.inference.evaluation.analysis.results import Results
from prip.inference.evaluation.analysis.statistics import (
    Estimate,
    Floats,
    cluster_means,
    estimate,
    holm,
    two_way_means,
)


@dataclass(frozen=True)
class Pooled:
    """The full method after RL less another refiner."""

    other: str
    generator: str
    scorer: str
    found: Estimate
    """The mean over seeds and clusters, its interval and its p-value"""
    p_holm: float = 1.0
    """Corrected for all tests of the table"""


def differences(
    results: Results, generator: str, scorer: str, other: str, stage: str, seeds: Sequence[int]
) -> Floats | None:
    """Returns the full method after RL less another refiner, `(seeds, clusters)`, paired by prompt and training seed.

    None where a refiner was not measured.

    other: a row of which `stage` is taken of each seed, or with an empty `stage` a refiner that no seed changes.
    """
    by_seed = []
    for seed in seeds:
        names = (refiner_name(other, stage, seed) if stage else other), refiner_name("full", "RL", seed)
        cells = [results.cells.get((generator, name)) for name in names]
        if cells[0] is None or cells[1] is None:
            return None
        own = cells[1].scores[scorer] - cells[0].scores[scorer]
        by_seed.append(cluster_means(own, results.prompts.units, results.prompts.clusters))
    return np.stack(by_seed)


def pooled_tests(
    results: Results,
    others: Sequence[tuple[str, str]],
    generators: Sequence[str],
    scorers: Sequence[str],
    seeds: Sequence[int],
    draws: int,
    seed: int = 0,
) -> list[Pooled]:
    """Returns the tests of the full method against all `others`, (refiner, stage), that were measured."""
    made = []
    for other, stage in others:
        for generator in generators:
            for scorer in scorers:
                own = differences(results, generator, scorer, other, stage, seeds)
                if own is not None:
                    whole = own[:, ~np.isnan(own).any(axis=0)]
                    found = estimate(whole.mean(axis=0), two_way_means(whole, draws, seed))
                    made.append((f"{other}, {stage}" if stage else other, generator, scorer, found))
    corrected = holm([found.p_value for _, _, _, found in made])
    return [Pooled(*own, p_holm) for own, p_holm in zip(made, corrected, strict=True)]


def pooled_lines(tests: Sequence[Pooled], seeds: int, draws: int) -> Iterator[str]:
    """Yields a Markdown table of the tests."""
    yield (
        f"**full after RL less another refiner, {seeds} training seeds pooled**: mean, 95 % interval and p by "
        f"resampling seeds and subjects both ({draws:,} draws), Holm over the table's {len(tests)} tests"
    )
    yield ""
    yield "| against | generator | scorer | difference | p | p, Holm |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for one in tests:
        own = one.found
        cells = f"{own.value:+.3f} ({own.low:+.3f} to {own.high:+.3f}) | {own.p_value:.2g} | {one.p_holm:.2g}"
        yield f"| {one.other} | {one.generator} | {one.scorer} | {cells} |"
    yield ""
