"""Tables of an evaluation's summary: scores, gains with tests, comparisons, gap closed, agreement, categories."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from ..settings import NONE
from .people import people_tables
from .statistics import FEW_CLUSTERS, TIE
from .summary import ALL
from .table import Cell, Column, Table, number, number_range, p_value

Record = Mapping[str, Any]
_TESTS = {
    "p, Holm": "p_holm",
    "p, exact": "p_exact",
    "p, bootstrap": "p_bootstrap",
    "p, t-test": "p_t",
    "p, Wilcoxon": "p_wilcoxon",
}
"""Columns of p-values with their names in the summary."""


def tables(summary: Record) -> list[Table]:
    """Return the tables of a summary in reading order."""
    return [*people_tables(summary.get("people")), *score_tables(summary), *comparison_tables(summary)]


def score_tables(summary: Record) -> list[Table]:
    """Return a table per generator: means with intervals, and the possible costs of a gain."""
    return [_scores(summary, generator) for generator in summary["about"]["generators"]]


def comparison_tables(summary: Record) -> list[Table]:
    """Return the tables of gains, comparisons, gap closed, agreement and categories that have rows."""
    about = summary["about"]
    made = [_gains(summary, generator) for generator in about["generators"]]
    made += [_comparisons(summary), _gap(summary["gap_closed"]), _agreement(summary["agreement"])]
    made += [
        _categories(summary, generator, scorer) for generator in about["generators"] for scorer in about["scorers"]
    ]
    return [table for table in made if table.rows]


def generator_title(about: Record, generator: str) -> str:
    """Return a generator's name and whether the refiner was trained against it."""
    seen = about["generators"][generator].get("seen", True)
    return f"{generator} ({'trained against' if seen else 'never seen in training'})"


def images_each(about: Record) -> str:
    """Return the number of images per prompt in words: "1 image each"."""
    number = about["images_per_prompt"]
    return f"{number} {'image' if number == 1 else 'images'} each"


def rows_of(summary: Record, generator: str, scorer: str, category: str = ALL) -> list[Record]:
    """Return the summary's rows of one generator, scorer and category, in the order of the refiners."""
    wanted = (generator, scorer, category)
    return [row for row in summary["rows"] if (row["generator"], row["scorer"], row["category"]) == wanted]


def decimals_of(rows: Iterable[Record]) -> int:
    """Return the decimals (1 to 4) that show two significant digits of the intervals' widths."""
    widths = [row["high"] - row["low"] for row in rows if row["low"] is not None and row["high"] - row["low"] > 1e-9]
    return min(4, max(1, 1 - math.floor(math.log10(median(widths))))) if widths else 3


def _scores(summary: Record, generator: str) -> Table:
    """Return means with intervals, and the possible costs of a gain: diversity, lengths, failures."""
    about = summary["about"]
    refiners = [row["refiner"] for row in rows_of(summary, generator, next(iter(about["scorers"])))]
    columns, cells = [Column("refiner", words=True)], [[Cell(name)] for name in refiners]
    for scorer, entry in about["scorers"].items():
        columns.append(Column(scorer, entry["role"]))
        for line, cell in zip(cells, _mean_cells(rows_of(summary, generator, scorer)), strict=True):
            line.append(cell)
    diversity = {record["refiner"]: record for record in summary["diversity"] if record["generator"] == generator}
    if any(record["within_prompt"] is not None for record in diversity.values()):
        columns.append(Column("distance", "within a prompt"))
        for line, name in zip(cells, refiners, strict=True):
            line.append(_within_cell(diversity.get(name)))
    if any(record["across_prompts"] is not None for record in diversity.values()):
        columns.append(Column("Vendi score", "across prompts"))
        for line, name in zip(cells, refiners, strict=True):
            line.append(Cell(number(diversity.get(name, {}).get("across_prompts"), 2)))
    lengths = {record["refiner"]: record for record in summary["lengths"] if record["generator"] == generator}
    columns += [Column("tokens"), Column("at the limit"), Column("failed images")]
    for line, name in zip(cells, refiners, strict=True):
        length = lengths[name]
        line += [Cell(number(length["mean_tokens"], 1)), Cell(percent(length["at_limit"])), Cell(str(length["failed"]))]
    note = (
        f"Means over {about['clusters']} clusters of {about['prompts']} prompts, {images_each(about)}, "
        "with 95 % intervals by resampling clusters."
    )
    title, best = f"Scores on {generator_title(about, generator)}", "the highest mean of a scorer"
    return Table(title, columns, cells, note, best)


def _mean_cells(rows: Sequence[Record]) -> list[Cell]:
    decimals, best = decimals_of(rows), _best(rows, "mean")
    return [
        Cell(number(row["mean"], decimals), number_range(row["low"], row["high"], decimals), row["refiner"] in best)
        for row in rows
    ]


def _best(rows: Sequence[Record], figure: str) -> set[str]:
    """Return the refiners with the highest figure of all rows; empty when all are equal."""
    figures = {row["refiner"]: row[figure] for row in rows if row[figure] is not None}
    best = {name for name, value in figures.items() if value >= max(figures.values()) - TIE}
    return best if best != set(figures) else set()


def _within_cell(one: Record | None) -> Cell:
    if one is None:
        return Cell("-")
    return Cell(number(one["within_prompt"], 3), number_range(one["within_prompt_low"], one["within_prompt_high"], 3))


def _gains(summary: Record, generator: str) -> Table:
    about, lines = summary["about"], []
    by_scorer = {
        scorer: [row for row in rows_of(summary, generator, scorer) if row["refiner"] != NONE]
        for scorer in about["scorers"]
    }
    tests = _tests([row for rows in by_scorer.values() for row in rows])
    for scorer, rows in by_scorer.items():
        decimals, best = decimals_of(rows), _best(rows, "difference")
        for row in rows:
            cells = _test_cells(row, tests, decimals, row["refiner"] in best and row["difference"] > 0)
            lines.append([Cell(row["refiner"]), Cell(scorer), Cell(about["scorers"][scorer]["role"]), *cells])
    columns = (*(Column(head, words=True) for head in ("refiner", "scorer", "role")), *_test_columns(tests))
    title = f"Gain over {NONE} on {generator_title(about, generator)}"
    return Table(title, columns, lines, _test_note(about, tests), "the largest gain of a scorer")


def _comparisons(summary: Record) -> Table:
    about, lines, tests = summary["about"], [], _tests(summary["comparisons"])
    for one in summary["comparisons"]:
        on = list(about["generators"]) if one["generator"] is None else [one["generator"]]
        decimals = decimals_of(row for generator in on for row in rows_of(summary, generator, one["scorer"]))
        words = (
            f"{one['from']} to {one['to']}",
            one["generator"] or "-",
            one["scorer"],
            about["scorers"][one["scorer"]]["role"],
        )
        lines.append([*map(Cell, words), *_test_cells(one, tests, decimals)])
    columns = (
        *(Column(head, words=True) for head in ("from, to", "generator", "scorer", "role")),
        *_test_columns(tests),
    )
    return Table("Refiners against each other", columns, lines, _test_note(about, tests))


def _tests(rows: Sequence[Record]) -> dict[str, str]:
    """Return the p-values that a table of these tests shows: exact ones for few clusters, else the bootstrap's."""
    exact = [row["p_exact"] is not None for row in rows if row["difference"] is not None]
    absent = {"p_exact"} if not any(exact) else {"p_bootstrap"} if all(exact) else set()
    return {head: name for head, name in _TESTS.items() if name not in absent}


def _test_columns(tests: Mapping[str, str]) -> list[Column]:
    return [Column(head) for head in ("gain", *tests, "win / tie / loss")]


def _test_note(about: Record, tests: Mapping[str, str]) -> str:
    draws, names = about["bootstrap_draws"], set(tests.values())
    bootstrap = f"the bootstrap's p-value, with {draws:,} draws never below {2 / (draws + 1):.1g},"
    exact = f"the exact p-value (of all patterns of signs; below {FEW_CLUSTERS} clusters)"
    used = " or ".join(text for name, text in (("p_exact", exact), ("p_bootstrap", bootstrap)) if name in names)
    return (
        f"Gain: mean difference with its 95 % interval. Holm: {used} corrected for all tests of this evaluation. "
        "Win / tie / loss: shares of prompts."
    )


def few_clusters(about: Record) -> str:
    """Return a warning if an evaluation has few clusters of prompts, else ""."""
    clusters = about["clusters"]
    if clusters >= FEW_CLUSTERS:
        return ""
    units = "prompts" if clusters == about["prompts"] else "clusters of prompts"
    return (
        f"Few prompts: with {clusters} {units} (below {FEW_CLUSTERS}), intervals are too narrow, and p-values are "
        f"exact: never below {p_value(2 / 2**clusters)} before Holm's correction."
    )


def _test_cells(row: Record, tests: Mapping[str, str], decimals: int, best: bool = False) -> list[Cell]:
    if row["difference"] is None:
        return [Cell("-") for _ in _test_columns(tests)]
    return [
        Cell(
            number(row["difference"], decimals, sign=True),
            number_range(row["difference_low"], row["difference_high"], decimals, sign=True),
            best,
        ),
        *(Cell(p_value(row[name])) for name in tests.values()),
        Cell(
            " / ".join("-" if row[name] is None else f"{100 * row[name]:.0f}" for name in ("win", "tie", "loss")) + " %"
        ),
    ]


def categories_of(summary: Record) -> list[str]:
    """Return the categories of the prompt set in its order."""
    return list(dict.fromkeys(row["category"] for row in summary["rows"] if row["category"] != ALL))


def _categories(summary: Record, generator: str, scorer: str) -> Table:
    """Return means by category: one column per category up to six, otherwise one row per category."""
    about, names, best = summary["about"], categories_of(summary), "the highest mean of a category"
    title = f"{scorer} ({about['scorers'][scorer]['role']}) by category on {generator_title(about, generator)}"
    if not names:
        return Table(title, (), ())
    by_category = {name: rows_of(summary, generator, scorer, name) for name in (*names, ALL)}
    cells = {name: _mean_cells(rows) for name, rows in by_category.items()}
    refiners = [row["refiner"] for row in by_category[ALL]]
    heads = [Column(name, f"n = {max(row['n'] for row in rows)}") for name, rows in by_category.items()]
    lines = [[Cell(refiner), *(cells[name][index] for name in by_category)] for index, refiner in enumerate(refiners)]
    if len(names) <= 6:
        return Table(title, (Column("refiner", words=True), *heads), lines, best=best)
    turned = [
        [Cell(name), Cell(head.mark.removeprefix("n = ")), *cells[name]]
        for name, head in zip(cells, heads, strict=True)
    ]
    columns = (Column("category", words=True), Column("n"), *(Column(refiner) for refiner in refiners))
    return Table(title, columns, turned, best=best)


def _gap(gap_closed: Record) -> Table:
    lines = []
    for generator, (share, low, high) in gap_closed.items():
        if share is None:
            lines.append([Cell(generator), Cell("best is not above none")])
        elif low is None:
            lines.append([Cell(generator), Cell(percent(share), "best may not be above none")])
        else:
            lines.append([Cell(generator), Cell(percent(share), f"{100 * low:.1f} to {100 * high:.1f} %")])
    return Table(
        f"Share of the gap from {NONE} to the searched best that is closed",
        (Column("generator", words=True), Column("share")),
        lines,
    )


def _agreement(agreement: Record | None) -> Table:
    """Return the figures of the agreement by name."""
    lines = [
        [
            Cell(name.replace("_", " ")),
            Cell(value if isinstance(value, str) else "-" if value is None else f"{value:.4g}"),
        ]
        for name, value in (agreement or {}).items()
    ]
    columns = Column("what", words=True), Column("value")
    note = (
        "The judge compared with the exact truth (0 to 1) on n renders of known scenes; full agreement has correlation "
        "1 and error 0."
    )
    return Table("Agreement of the judge with the truth", columns, lines, note)


def percent(share: float | None) -> str:
    """Return a share in percent; "-" for None."""
    return "-" if share is None else f"{number(100 * share, 1)} %"
