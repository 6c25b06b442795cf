"""The headline of a report: the result in one sentence, its costs, and the figures behind both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..analysis.statistics import COVERAGE, FEW_CLUSTERS
from ..analysis.summary import main_refiner, main_scorer
from ..analysis.table import number, number_range, p_value
from ..analysis.tables import decimals_of, few_clusters, generator_title, percent, rows_of
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
    """What people say where they were asked, or else what the main scorer says."""
    cost: str
    facts: tuple[Fact, ...]
    judge: str = ""
    """What the main scorer says, where people come first."""
    warnings: tuple[str, ...] = ()
    """Why the result may not hold: people and scorer contradict each other, or there are few clusters."""


def headline(summary: Record) -> Headline:
    """Return the headline of a summary, about the main refiner and scorer on the first generator.

    Where people were asked about the main refiner, their answers come first.
    """
    judged = _judged(summary)
    few = few_clusters(summary["about"])
    warnings = (few,) if few and len(judged.facts) > 1 else ()
    row = _people_row(summary)
    if row is None:
        relevance = _relevance_sentence(summary)
        if relevance:
            return replace(judged, sentence=relevance, judge=judged.sentence, warnings=warnings)
        return replace(judged, warnings=warnings)
    contradiction = _contradiction(summary, row)
    few_asked = (
        f"Few prompts: people were asked about {row['clusters']} (below {FEW_CLUSTERS})."
        if row["clusters"] < FEW_CLUSTERS
        else ""
    )
    return Headline(
        _people_sentence(row),
        judged.cost,
        (_people_fact(row), *judged.facts),
        judged.sentence,
        tuple(filter(None, (contradiction, few_asked, *warnings))),
    )


def _judged(summary: Record) -> Headline:
    """Return the headline according to the main scorer."""
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
    """Return good, bad, or "" when chance may explain a difference."""
    return _direction(row["difference_low"], row["difference_high"], row["p_exact"])


def _direction(low: float | None, high: float | None, p_exact: float | None) -> str:
    """Return good or bad when an interval excludes 0 and the exact test, made for few clusters, agrees; else ""."""
    if low is None or high is None or (p_exact is not None and p_exact > 1 - COVERAGE):
        return ""
    return "good" if low > 0 else "bad" if high < 0 else ""


def _people_row(summary: Record) -> Record | None:
    """Return people's preferences about the main refiner, against the plain prompt if they were asked that."""
    refiner = main_refiner(summary["about"])
    rows = [_seen_from(refiner, row) for row in (summary.get("people") or {}).get("preference", ())]
    about_it = [row for row in rows if row["refiner"] == refiner]
    return next((row for row in about_it if row["against"] == NONE), next(iter(about_it), None))


def _seen_from(refiner: str | None, row: Record) -> Record:
    """Return a preference with `refiner` as the one that wins, if it is the other of the pair."""
    if row["against"] != refiner:
        return row
    low, high = row["margin_low"], row["margin_high"]
    ends = {} if low is None or high is None else {"margin_low": -high, "margin_high": -low}
    turned = {"refiner": row["against"], "against": row["refiner"], "win": row["loss"], "loss": row["win"]}
    return {**row, **turned, **ends}


def _people_verdict(row: Record) -> str:
    return _direction(row["margin_low"], row["margin_high"], row["p_exact"])


def _pictures(refiner: str) -> str:
    return "the pictures of the plain prompt" if refiner == NONE else f"{refiner}'s pictures"


def _people_sentence(row: Record) -> str:
    own, other = _pictures(row["refiner"]), _pictures(row["against"])
    kind = {
        "good": f"prefer {own} to {other}",
        "bad": f"prefer {other} to {own}",
        "": f"measurably prefer neither {own} nor {other}",
    }
    return (
        f"People {kind[_people_verdict(row)]}: of {row['n']:,} answers, {percent(row['win'])} are for "
        f"{row['refiner']}, {percent(row['loss'])} against it."
    )


def _relevance_sentence(summary: Record) -> str:
    """Return how well people find the prompt shown in the main refiner's pictures, "" if they were not asked."""
    means = {row["refiner"]: number(row["mean"], 2) for row in (summary.get("people") or {}).get("relevance", ())}
    refiner = main_refiner(summary["about"])
    if refiner is None or refiner not in means:
        return ""
    plain = f", and {means[NONE]} in {_pictures(NONE)}" if NONE in means else ""
    return f"People find {means[refiner]} of 2 points of the prompt in {_pictures(refiner)}{plain}."


def _people_fact(row: Record) -> Fact:
    against = "the plain prompt" if row["against"] == NONE else row["against"]
    detail = f"{percent(row['loss'])} prefer {against}, {percent(row['tie'])} neither"
    if row["p_exact"] is not None:
        detail += f"; exact p = {p_value(row['p_exact'])}".replace("= <", "<")
    name = f"Answers of people for {row['refiner']}, {row['n']:,} in all"
    return Fact(name, percent(row["win"]), detail, _people_verdict(row))


def _contradiction(summary: Record, people: Record) -> str:
    """Return how people and the main scorer contradict each other about the plain prompt, "" if they do not."""
    about = summary["about"]
    scorer = main_scorer(about)
    row = _row(summary, next(iter(about["generators"])), scorer, people["refiner"])
    if people["against"] != NONE or row is None or row["difference"] is None:
        return ""
    judged, asked = verdict(row), _people_verdict(people)
    if {judged, asked} == {"good", "bad"}:
        better = {"good": _pictures(people["refiner"]), "bad": _pictures(NONE)}
        return (
            f"People and {scorer} contradict each other: people prefer {better[asked]}, {scorer} prefers "
            f"{better[judged]}."
        )
    if judged and not asked:
        return f"People's answers do not confirm what {scorer} says."
    return ""


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
    kind = "p" if row["p_exact"] is None else "exact p"
    return Fact(
        f"Gain in {row['scorer']}, {generator_title(summary['about'], row['generator'])}",
        number(row["difference"], decimals, sign=True),
        f"{ends}; {kind} = {p_value(row['p_holm'])} after Holm".replace("= <", "<"),
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
        before, after = (number(value, decimals) for value in (row["mean"] - row["difference"], row["mean"]))
        sentences = {
            "good": f"Fidelity to the user prompt rises ({scorer}, from {before} to {after}).",
            "bad": f"Images drift from the user prompt: {scorer} falls from {before} to {after}.",
            "": f"No drift from the user prompt is measurable ({scorer}, from {before} to {after}).",
        }
        figure = "no change" if float(change) == 0 else change
        fact = Fact(f"Change of fidelity, {scorer}", figure, f"{ends}; from {before} to {after}", verdict(row))
        costs.append((fact, sentences[verdict(row)]))
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
