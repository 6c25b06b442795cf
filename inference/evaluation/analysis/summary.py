"""Summarises an evaluation for JSON: means, differences, tests, diversity and lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prip.errors import InputError

from ..kinds.registry import BEST_JUDGE
from ..settings import NONE
from .diversity import vendi_score
from .results import Prompts, Results, read_results
from .statistics import (
    Estimate,
    Floats,
    cluster_means,
    estimate,
    exact_p,
    holm,
    paired_t,
    ratio_of_means,
    resampled_means,
    wilcoxon,
    win_tie_loss,
)

ALL = "all"
Record = dict[str, Any]
_FIGURES = ("difference", "difference_low", "difference_high", "p_bootstrap", "p_exact", "p_t", "p_wilcoxon", "p_holm")
_UNTESTED: Record = dict.fromkeys((*_FIGURES, "clusters", "win", "tie", "loss"))


def summarise(
    path: Path,
    about: Mapping[str, Any],
    vectors: Mapping[tuple[str, str], NDArray[np.float32]],
    comparisons: Sequence[Sequence[str]] = (),
    draws: int = 10_000,
) -> Record:
    """Return the summary of the results at `path`, with None for agreement and curves.

    Scores are averaged over a prompt's images, a unit's prompts and a cluster's units, without failed images and
    pairs that lack a side.

    Args:
        path: results.parquet.
        about: config, checkpoint, seed, ..., and the mappings refiners, generators and scorers, which determine the
            order; the summary adds the numbers of prompts, clusters, images and draws.
        vectors: Embeddings `(n, width)` by (generator, refiner), of one image per prompt.
        comparisons: As in the settings.
        draws: Resamples of the bootstrap.

    Raises:
        InputError: The results lack a scorer.
    """
    results, seed = read_results(path), int(about["seed"])
    missing = set(about["scorers"]) - set(next(iter(results.cells.values())).scores)
    if missing:
        raise InputError(f"{path}: expected scores of {', '.join(sorted(missing))}, got none")
    seen = [cell for cell in product(about["generators"], about["refiners"]) if cell in results.cells]
    counts = {
        "prompts": len(results.prompts),
        "clusters": len(set(results.prompts.clusters)),
        "images": results.images,
        "failed_images": results.failed,
        "bootstrap_draws": draws,
    }
    rows, compared = [], []
    for generator in about["generators"]:
        refiners = [refiner for refiner in about["refiners"] if (generator, refiner) in results.cells]
        pairs = [(before, after) for before, after in comparisons if {before, after} <= set(refiners)]
        for scorer in about["scorers"]:
            scores = {name: results.cells[generator, name].scores[scorer] for name in refiners}
            table = _ScorerTable(
                results.prompts, scores, {"generator": generator, "scorer": scorer}, draws=draws, seed=seed
            )
            rows += table.rows(refiners)
            compared += table.comparisons(pairs)
    for scorer in about["scorers"]:
        scores = {f"{own}@{generator}": results.cells[generator, own].scores[scorer] for generator, own in seen}
        pairs = [(before, after) for before, after in comparisons if {before, after} <= set(scores)]
        table = _ScorerTable(results.prompts, scores, {"generator": None, "scorer": scorer}, draws=draws, seed=seed)
        compared += table.comparisons(pairs)
    _correct(rows, compared)
    return {
        "about": {**about, **counts},
        "rows": rows,
        "comparisons": compared,
        "gap_closed": _gaps_closed(results, about, draws, seed),
        "diversity": _diversity(results, seen, vectors, draws, seed),
        "lengths": [
            {
                "refiner": refiner,
                "generator": generator,
                "mean_tokens": results.cells[generator, refiner].mean_tokens,
                "at_limit": results.cells[generator, refiner].at_limit,
                "failed": results.cells[generator, refiner].failed,
            }
            for generator, refiner in seen
        ],
        "agreement": None,
        "curves": None,
    }


def main_refiner(about: Mapping[str, Any]) -> str | None:
    """Return a report's main refiner: the last of kind prip, or else the last that refines at all."""
    refining = {name: entry for name, entry in about["refiners"].items() if entry["kind"] not in ("none", "best")}
    prip = [name for name, entry in refining.items() if entry["kind"] == "prip"]
    return (prip or list(refining) or [None])[-1]


def main_scorer(about: Mapping[str, Any]) -> str:
    """Return a report's main scorer: the first held-out one, or else the first."""
    held_out = [name for name, entry in about["scorers"].items() if entry["role"] == "held out"]
    return (held_out or list(about["scorers"]))[0]


class _ScorerTable:
    """One scorer's figures, by refiner on one generator or by REFINER@GENERATOR."""

    def __init__(
        self, prompts: Prompts, scores: Mapping[str, Floats], labels: Record, *, draws: int, seed: int
    ) -> None:
        """scores: `(prompts,)` by name. labels: generator and scorer, added to every record."""
        self.prompts, self.scores, self.labels, self.draws, self.seed = prompts, scores, labels, draws, seed
        named = np.array(self.prompts.categories)
        self.masks: dict[str, NDArray[np.bool_]] = {ALL: np.ones(len(named), dtype=bool)}
        self.masks |= {name: named == name for name in dict.fromkeys(self.prompts.categories) if name}

    def rows(self, refiners: Sequence[str]) -> list[Record]:
        """Return a row for each refiner and category; differences are to `none`."""
        rows, keys = [], [(refiner, category) for refiner in refiners for category in self.masks]
        means = self._estimates([np.where(self.masks[c], self.scores[r], np.nan) for r, c in keys])
        tested = iter(self._tests([self._difference(NONE, r, c) for r, c in keys if r != NONE]))
        for (refiner, category), mean in zip(keys, means, strict=True):
            count = int((~np.isnan(self.scores[refiner]) & self.masks[category]).sum())
            row = {"refiner": refiner, **self.labels, "category": category, "n": count, **_mean(mean)}
            rows.append(row | (_UNTESTED if refiner == NONE else next(tested)))
        return rows

    def comparisons(self, pairs: Sequence[tuple[str, str]]) -> list[Record]:
        differences = [self._difference(before, after, ALL) for before, after in pairs]
        return [
            {"from": before, "to": after, **self.labels, "n": int((~np.isnan(own)).sum()), **tested}
            for (before, after), own, tested in zip(pairs, differences, self._tests(differences), strict=True)
        ]

    def _difference(self, before: str, after: str, category: str) -> Floats:
        return np.where(self.masks[category], self.scores[after] - self.scores[before], np.nan)

    def _estimates(self, by_prompt: Sequence[Floats]) -> list[Estimate | None]:
        return _estimates([self._clusters(values) for values in by_prompt], self.draws, self.seed)

    def _clusters(self, values: Floats) -> Floats:
        return cluster_means(values, self.prompts.units, self.prompts.clusters)

    def _tests(self, differences: Sequence[Floats]) -> list[Record]:
        return [
            _UNTESTED if mean is None else _tested(mean, self._clusters(values), values)
            for values, mean in zip(differences, self._estimates(differences), strict=True)
        ]


def _estimates(columns: Sequence[Floats], draws: int, seed: int) -> list[Estimate | None]:
    """Return the estimate of each column of cluster means, None for a column of NaN."""
    if not columns:
        return []
    resampled = resampled_means(np.stack(columns, axis=1), draws, seed)
    return [
        None if np.isnan(own).all() else estimate(own, drawn) for own, drawn in zip(columns, resampled.T, strict=True)
    ]


def _mean(mean: Estimate | None) -> Record:
    if mean is None:
        return {"mean": None, "low": None, "high": None}
    return {"mean": mean.value, "low": mean.low, "high": mean.high}


def _tested(mean: Estimate, clusters: Floats, by_prompt: Floats) -> Record:
    clusters = clusters[~np.isnan(clusters)]
    win, tie, loss = win_tie_loss(by_prompt[~np.isnan(by_prompt)])
    return {
        "difference": mean.value,
        "difference_low": mean.low,
        "difference_high": mean.high,
        "p_bootstrap": mean.p_value,
        "p_exact": exact_p(clusters),
        "p_t": paired_t(clusters),
        "p_wilcoxon": wilcoxon(clusters),
        "p_holm": None,
        "clusters": len(clusters),
        "win": win,
        "tie": tie,
        "loss": loss,
    }


def _correct(rows: Sequence[Record], compared: Sequence[Record]) -> None:
    """Set p_holm over the tests outside categories: of exact p-values where there are any, else of the bootstrap's.

    A comparison with `none` repeats a row's test and counts once.
    """
    tests: dict[tuple[str | None, ...], list[Record]] = {}
    for row in rows:
        if row["category"] == ALL and row["p_bootstrap"] is not None:
            tests.setdefault((NONE, row["refiner"], row["generator"], row["scorer"]), []).append(row)
    for one in compared:
        if one["p_bootstrap"] is not None:
            tests.setdefault((one["from"], one["to"], one["generator"], one["scorer"]), []).append(one)
    firsts = [same[0] for same in tests.values()]
    corrected = holm([row["p_bootstrap"] if row["p_exact"] is None else row["p_exact"] for row in firsts])
    for same, p_value in zip(tests.values(), corrected, strict=True):
        for record in same:
            record["p_holm"] = p_value


def _gaps_closed(results: Results, about: Mapping[str, Any], draws: int, seed: int) -> dict[str, list[float | None]]:
    """Return per generator the share of the gap from `none` to `best` that the main refiner closes, low, high."""
    best = next((name for name, entry in about["refiners"].items() if entry["kind"] == "best"), None)
    refiner = main_refiner(about)
    if best is None or refiner is None:
        return {}
    judge, shares = about["refiners"][best].get("judge", BEST_JUDGE), {}
    for generator in about["generators"]:
        cells = [results.cells.get((generator, name)) for name in (NONE, refiner, best)]
        if judge not in about["scorers"] or None in cells:
            continue
        plain, refined, highest = (
            cluster_means(cell.scores[judge], results.prompts.units, results.prompts.clusters)
            for cell in cells
            if cell is not None
        )
        valid = ~np.isnan(plain + refined + highest)
        if valid.any():
            shares[generator] = list(ratio_of_means((refined - plain)[valid], (highest - plain)[valid], draws, seed))
    return shares


def _diversity(
    results: Results,
    cells: Sequence[tuple[str, str]],
    vectors: Mapping[tuple[str, str], NDArray[np.float32]],
    draws: int,
    seed: int,
) -> list[Record]:
    """Return per cell the distance among a prompt's images with its interval, and the Vendi score across prompts."""
    prompts = results.prompts
    columns = [cluster_means(results.cells[cell].within, prompts.units, prompts.clusters) for cell in cells]
    records = []
    for cell, within in zip(cells, _estimates(columns, draws, seed), strict=True):
        across = vendi_score(vectors[cell]) if cell in vectors else float("nan")
        if within is None and np.isnan(across):
            continue
        records.append(
            {
                "refiner": cell[1],
                "generator": cell[0],
                "within_prompt": within and within.value,
                "within_prompt_low": within and within.low,
                "within_prompt_high": within and within.high,
                "across_prompts": None if np.isnan(across) else across,
            }
        )
    return records
