"""The ablation's tests over all training seeds, resampling both seeds and clusters of prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.ablation.tables import refiner_name
from benchmarks.common import table_head, table_row
from prip.inference.evaluation.analysis.results import Results
from prip.inference.evaluation.analysis.statistics import Estimate, Floats, cluster_means, estimate, holm, two_way_means


@dataclass(frozen=True)
class Pooled:
    """The difference of the full method after RL to another refiner."""

    other: str
    generator: str
    scorer: str
    found: Estimate
    """Mean over seeds and clusters, its interval and p-value."""
    p_holm: float = 1.0
    """Corrected for all tests of the table."""


def differences(
    results: Results, generator: str, scorer: str, other: str, stage: str, seeds: Sequence[int]
) -> Floats | None:
    """Return the full method after RL minus another refiner, `(seeds, clusters)`, paired by prompt and seed.

    `other` is a row at `stage`, or a refiner without seeds if `stage` is empty. Returns None if one was not measured.
    """
    by_seed = []
    for seed in seeds:
        names = (refiner_name(other, stage, seed) if stage else other), refiner_name("full", "RL", seed)
        cells = [results.cells.get((generator, name)) for name in names]
        if cells[0] is None or cells[1] is None:
            return None
        difference = cells[1].scores[scorer] - cells[0].scores[scorer]
        by_seed.append(cluster_means(difference, results.prompts.units, results.prompts.clusters))
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
    """Return the tests of the full method against those of `others`, (refiner, stage), that were measured."""
    made = []
    for other, stage in others:
        for generator in generators:
            for scorer in scorers:
                by_seed = differences(results, generator, scorer, other, stage, seeds)
                if by_seed is not None:
                    whole = by_seed[:, ~np.isnan(by_seed).any(axis=0)]
                    found = estimate(whole.mean(axis=0), two_way_means(whole, draws, seed))
                    made.append((f"{other}, {stage}" if stage else other, generator, scorer, found))
    corrected = holm([found.p_value for _, _, _, found in made])
    return [Pooled(*test, p_holm) for test, p_holm in zip(made, corrected, strict=True)]


def pooled_lines(tests: Sequence[Pooled], seeds: int, draws: int) -> Iterator[str]:
    """Yield a Markdown table of the tests."""
    yield (
        f"**full after RL minus another refiner, {seeds} training seeds pooled**: mean, 95 % interval and p by "
        f"resampling seeds and subjects ({draws:,} draws), Holm over the table's {len(tests)} tests"
    )
    yield ""
    yield table_head(["against", "generator", "scorer", "difference", "p", "p, Holm"])
    for test in tests:
        difference = f"{test.found.value:+.3f} ({test.found.low:+.3f} to {test.found.high:+.3f})"
        p_values = f"{test.found.p_value:.2g}", f"{test.p_holm:.2g}"
        yield table_row([test.other, test.generator, test.scorer, difference, *p_values])
    yield ""
