"""What refiners add, measured on texts alone: agreement with the prompts' own writers, variety, contradictions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prip.control.attributes import named_values
from prip.prior.concepts import concept_of, named_concepts
from prip.prior.rules import barred_by, contradict, contradicts_values
from prip.text.prompts import modifiers_added, prefix
from prip.text.words import words_of

from ..kinds.registry import EvaluationPrompt
from .statistics import COVERAGE, FEW_CLUSTERS, estimate, exact_p, resampled_means
from .table import Cell, Column, Table, number, number_range

_COLUMNS = (
    Column("refiner", words=True),
    Column("precision", "of what is added"),
    Column("precision, swapped", "additions of another prompt"),
    Column("added", "modifiers a prompt"),
    Column("distinct", "suffixes"),
    Column("commonest", "share of prompts"),
    Column("entropy", "of words, bits"),
    Column("contradictions", "by rule"),
    Column("rewritten", "or failed"),
)
_NOTE = (
    "Precision: share of the added concepts that the prompt's own writer added, over prompts to which a concept is "
    "added. Commonest: share of the prompts that gain the commonest modifier. Rewritten: texts that do not begin with "
    "the user prompt, or that could not be refined; they count as adding nothing."
)


def precision(added: Sequence[frozenset[str]], references: Sequence[frozenset[str]]) -> NDArray[np.float64]:
    """Return the share of each prompt's added concepts that are references, `(prompts,)`; NaN where none is added."""
    pairs = zip(added, references, strict=True)
    return np.array([len(concepts & wanted) / len(concepts) if concepts else np.nan for concepts, wanted in pairs])


def entropy(counts: Counter[str]) -> float:
    """Return the entropy of a distribution given by counts, in bits; 0 for no counts."""
    total = counts.total()
    return sum(count / total * math.log2(total / count) for count in counts.values())


def contradicts(user_prompt: str, modifiers: Sequence[str]) -> bool:
    """Return whether a modifier contradicts the prompt or an earlier modifier.

    Two contradict each other if they name different values of one attribute (light, medium, ...), or concepts that
    clash; a concept contradicts a prompt with a word that bars it.
    """
    barred = barred_by(user_prompt)
    concepts, values = set(named_concepts(user_prompt)), set(named_values(user_prompt))
    for modifier in modifiers:
        concept = concept_of(modifier)
        if concept in barred or contradicts_values(modifier, values):
            return True
        if concept is not None and contradict(concept, concepts):
            return True
        values |= named_values(modifier)
        concepts |= set() if concept is None else {concept}
    return False


def additions_of(
    prompts: Sequence[EvaluationPrompt], refined: Sequence[str], *, draws: int, seed: int
) -> dict[str, Any]:
    """Return the figures of one refiner.

    Args:
        prompts: User prompts; `precision` needs their references.
        refined: One text for each. A text that does not begin with its user prompt counts as adding nothing.
        draws: Resamplings of prompts for the intervals.
        seed: Of the resamplings.
    """
    modifiers = [_modifiers(prompt.text, text) for prompt, text in zip(prompts, refined, strict=True)]
    concepts = _concepts(modifiers)
    references = [prompt.references for prompt in prompts]
    counts = Counter(modifier.lower() for row in modifiers for modifier in dict.fromkeys(row))
    unchanged = [text == prompt.text for prompt, text in zip(prompts, refined, strict=True)]
    figures: dict[str, Any] = {
        "prompts": len(prompts),
        "rewritten": sum(not row and not same for row, same in zip(modifiers, unchanged, strict=True)),
        "added": float(np.mean([len(row) for row in modifiers])),
        "distinct_suffixes": len({", ".join(row) for row in modifiers}),
        "commonest": counts.most_common(1)[0][0] if counts else None,
        "commonest_share": counts.most_common(1)[0][1] / len(prompts) if counts else 0.0,
        "entropy_bits": entropy(Counter(word for row in modifiers for modifier in row for word in words_of(modifier))),
        "contradictions": float(np.mean([contradicts(p.text, row) for p, row in zip(prompts, modifiers, strict=True)])),
    }
    if any(references):
        figures["precision"] = _estimated(precision(concepts, references), draws, seed)
        figures["swapped_precision"] = _estimated(precision(concepts[1:] + concepts[:1], references), draws, seed)
    return figures


def precision_differences(
    prompts: Sequence[EvaluationPrompt],
    refined: Mapping[str, Sequence[str]],
    pair: Sequence[str],
    draws: int,
    seed: int,
) -> dict[str, float] | None:
    """Return the mean difference of precision from one refiner to another, on prompts to which both add a concept.

    None without such prompts, or without references.
    """
    if not any(prompt.references for prompt in prompts):
        return None
    columns = []
    for name in pair:
        rows = [_modifiers(prompt.text, text) for prompt, text in zip(prompts, refined[name], strict=True)]
        columns.append(precision(_concepts(rows), [prompt.references for prompt in prompts]))
    return _estimated(columns[1] - columns[0], draws, seed)


def additions_tables(summary: Mapping[str, Any]) -> list[Table]:
    """Return the tables of `summary["additions"]` and `summary["differences"]`."""
    rows = tuple(
        (
            Cell(name),
            _estimate_cell(figures.get("precision")),
            _estimate_cell(figures.get("swapped_precision")),
            Cell(number(figures["added"], 1)),
            Cell(f"{figures['distinct_suffixes']} of {figures['prompts']}"),
            Cell(number(figures["commonest_share"], 2), figures["commonest"] or ""),
            Cell(number(figures["entropy_bits"], 2)),
            Cell(number(figures["contradictions"], 3)),
            Cell(str(figures["rewritten"])),
        )
        for name, figures in summary["additions"].items()
    )
    tables = [Table("What is added", _COLUMNS, rows, f"{_NOTE} Intervals: {COVERAGE:.0%}, resampling prompts.")]
    differences = tuple(
        (Cell(f"{pair[0]} to {pair[1]}"), _estimate_cell(figures, sign=True), Cell(number(figures["p_value"], 4)))
        for pair, figures in summary["differences"]
        if figures is not None
    )
    if differences:
        columns = (Column("refiners", words=True), Column("precision", "difference"), Column("p"))
        few = any(figures["n"] < FEW_CLUSTERS for _, figures in summary["differences"] if figures is not None)
        note = f"Below {FEW_CLUSTERS} prompts, p is exact (all patterns of signs) and intervals are too narrow."
        tables.append(Table("Differences", columns, differences, note if few else ""))
    return tables


def _modifiers(user_prompt: str, refined_prompt: str) -> list[str]:
    return modifiers_added(user_prompt, refined_prompt) if refined_prompt.startswith(prefix(user_prompt)) else []


def _concepts(rows: Sequence[Sequence[str]]) -> list[frozenset[str]]:
    """Return the concepts that each list of modifiers holds."""
    return [frozenset(filter(None, map(concept_of, row))) for row in rows]


def _estimated(values: NDArray[np.float64], draws: int, seed: int) -> dict[str, float] | None:
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    figures = estimate(values, resampled_means(values[:, None], draws, seed)[:, 0])
    exact = exact_p(values)
    p_value = figures.p_value if exact is None else exact
    return {"value": figures.value, "low": figures.low, "high": figures.high, "p_value": p_value, "n": len(values)}


def _estimate_cell(figures: Mapping[str, float] | None, sign: bool = False) -> Cell:
    if figures is None:
        return Cell("-")
    return Cell(number(figures["value"], 3, sign), number_range(figures["low"], figures["high"], 3, sign))
