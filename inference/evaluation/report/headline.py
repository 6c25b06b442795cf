"""The headline of a report: the result in one sentence, its costs, and the figures behind both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..analysis.summary import main_refiner, main_scorer
from ..analysis.table import number, number_range, p_value
from ..analysis.tables import decimals_of, generator_title, percent, rows_of
from ..settings import NONE

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Fact:
    """A figure with its name, a detail, and its tone: good, bad or ""."""

    name: str
    figure: str
    detail: str = ""
    tone: str = ""


@dataclass(frozen=True)
class Headline:
    """The result, its costs, and the facts that support them."""

    sentence: str
    cost: str
    facts: tuple[Fact, ...]


def headline(summary: Record) -> Headline:
    """Return the headline of a summary, about the main refiner and scorer on the first generator."""
    about, refiner = summary["about"], main_refiner(summary["about"])
    scorer, generators = main_scorer(about), list(about["generators"])
    rows = {generator: _row(summary, generator, scorer, refiner) for generator in generators}
    first = rows[generators[0]]
    if refiner is None or first is None or first["difference"] is None:
        return Headline("No refiner was measured against the plain prompt.", "", tuple(_failures(about)))
    facts = [_gain(summary, row) for row in rows.values() if row is not None and row["difference"] is not None]
    facts.append(
        Fact(
            f"Prompts that gain, {generators[0]}",
            percent(first["win"]),
            f"{percent(first['loss'])} lose, {percent(first['tie'])} tie",
            "good" if first["win"] > first["loss"] else "bad",
        )
    )
    facts += _gap(summary, first)
    costs = _costs(summary, generators[0], refiner)
    facts += [fact for fact, _ in costs] + _failures(about)
    decimals = decimals_of(rows_of(summary, generators[0], scorer))
    sentence = _sentence(first, scorer, about["scorers"][scorer]["role"], decimals)
    return Headline(sentence, " ".join(text for _, text in costs if text), tuple(facts))


def _row(summary: Record, generator: str, scorer: str, refiner: str | None) -> Record | None:
    return next((row for row in rows_of(summary, generator, scorer) if row["refiner"] == refiner), None)


def verdict(row: Record) -> str:
    """Return good, bad, or "" when the interval of a difference includes 0."""
    if row["difference_low"] > 0:
        return "good"
    return "bad" if row["difference_high"] < 0 else ""


def _sentence(row: Record, scorer: str, role: str, decimals: int) -> str:
    judge = {"held out": "a judge that took no part in training", "trained against": "a reward that it was trained on"}
    who = f"{scorer}, {judge.get(role, 'a measure of fidelity')}"
    before, after = (number(value, decimals) for value in (row["mean"] - row["difference"], row["mean"]))
    kind = {
        "good": "better pictures than",
        "bad": "worse pictures than",
        "": "pictures neither measurably better nor worse than",
    }
    return (
        f"{row['refiner']} makes {kind[verdict(row)]} the plain prompt, according to {who}: "
        f"from {before} to {after} on {row['generator']}."
    )


def _gain(summary: Record, row: Record) -> Fact:
    decimals = decimals_of(rows_of(summary, row["generator"], row["scorer"]))
    ends = number_range(row["difference_low"], row["difference_high"], decimals, sign=True)
    return Fact(
        f"Gain in {row['scorer']}, {generator_title(summary['about'], row['generator'])}",
        number(row["difference"], decimals, sign=True),
        f"{ends}; p = {p_value(row['p_holm'])} after Holm".replace("= <", "<"),
        verdict(row),
    )


def _gap(summary: Record, row: Record) -> list[Fact]:
    """Return the share of the gap that a measurable gain closes: of a gap that may be 0, a share means nothing."""
    share, low, high = summary["gap_closed"].get(row["generator"], (None, None, None))
    if low is None or not verdict(row):
        return []
    ends = "better than the searched best" if share > 1 else f"{100 * low:.0f} to {100 * high:.0f} %"
    name = f"Gap to the searched best that is closed, {row['generator']}"
    return [Fact(name, percent(min(share, 1.0)), ends)]


def _costs(summary: Record, generator: str, refiner: str) -> list[tuple[Fact, str]]:
    """Return the possible costs of a gain as facts with sentences: fidelity, diversity, length."""
    about, costs = summary["about"], []
    for scorer in [name for name, entry in about["scorers"].items() if entry["role"] == "fidelity"]:
        row = _row(summary, generator, scorer, refiner)
        if row is None or row["difference"] is None:
            continue
        decimals = decimals_of(rows_of(summary, generator, scorer))
        ends = number_range(row["difference_low"], row["difference_high"], decimals, sign=True)
        change = number(row["difference"], decimals, sign=True)
        sentences = {
            "good": f"Fidelity to the user prompt rises ({scorer} {change}).",
            "bad": f"Images drift from the user prompt: {scorer} falls by {change.lstrip('-')}.",
            "": f"No drift from the user prompt is measurable ({scorer} {change}).",
        }
        costs.append((Fact(f"Fidelity, {scorer}", change, ends, verdict(row)), sentences[verdict(row)]))
    costs += _diversity(summary, generator, refiner)
    length = next(
        (row for row in summary["lengths"] if (row["generator"], row["refiner"]) == (generator, refiner)), None
    )
    if length is not None:
        tone = "bad" if length["at_limit"] > 0.05 else ""
        filled = f"{percent(length['at_limit'])} of its prompts reach the token limit." if tone else ""
        detail = f"{length['mean_tokens']:.1f} tokens on average"
        costs.append((Fact("Prompts at the token limit", percent(length["at_limit"]), detail, tone), filled))
    return costs


def _diversity(summary: Record, generator: str, refiner: str) -> list[tuple[Fact, str]]:
    records = {record["refiner"]: record for record in summary["diversity"] if record["generator"] == generator}
    plain, refined = records.get(NONE), records.get(refiner)
    if plain is None or refined is None or plain["within_prompt"] is None or refined["within_prompt"] is None:
        return []
    share = refined["within_prompt"] / plain["within_prompt"] if plain["within_prompt"] else 1.0
    less = refined["within_prompt_high"] < plain["within_prompt_low"]
    more = refined["within_prompt_low"] > plain["within_prompt_high"]
    how = "less alike" if more else "more alike"
    sentence = f"Images of one prompt are {how}: {100 * share:.0f} % of the plain distance." if less or more else ""
    tone = "bad" if less else ""
    detail = f"of plain, from {number(plain['within_prompt'], 3)} to {number(refined['within_prompt'], 3)}"
    return [(Fact("Distance among a prompt's images", f"{100 * share:.0f} %", detail, tone), sentence)]


def _failures(about: Record) -> list[Fact]:
    failed, images = about["failed_images"], about["images"]
    return [Fact("Failed images", str(failed), f"of {images:,}", "bad" if failed else "")]
