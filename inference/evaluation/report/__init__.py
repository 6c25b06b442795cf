"""Writes what people read of an evaluation: summary.json, tables.md, report.html and the terminal's summary."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prip.files import write_output

from ..analysis.additions import additions_tables
from ..analysis.results import read_results
from ..analysis.table import print_tables, to_markdown
from ..analysis.tables import tables
from ..work.images import ImageStore
from .headline import headline
from .page import report_page

RESULTS, SUMMARY, TABLES, REPORT = "results.parquet", "summary.json", "tables.md", "report.html"


def write_additions(folder: Path, summary: Mapping[str, Any]) -> None:
    """Write the summary and tables of an evaluation of texts alone into `folder`, and print the tables."""
    text = json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_output(folder / SUMMARY, text.encode())
    all_tables = additions_tables(summary)
    write_output(folder / TABLES, to_markdown(all_tables).encode())
    print_tables(all_tables)
    print(f"written to {folder}: {SUMMARY}, {TABLES}")


def write_report(folder: Path, summary: Mapping[str, Any], images: Path, *, print_all: bool = False) -> None:
    """Write the summary, the tables and the page into `folder`, which holds the results, and print the headline.

    images: folder of the evaluation's images. print_all: whether to print the tables as well.
    """
    text = json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_output(folder / SUMMARY, text.encode())
    all_tables, results = tables(summary), folder / RESULTS
    write_output(folder / TABLES, to_markdown(all_tables).encode())
    page = report_page(summary, read_results(results), results, ImageStore(images).path)
    write_output(folder / REPORT, page.encode())
    if print_all:
        print_tables(all_tables)
    result = headline(summary)
    print(*filter(None, (result.sentence, result.judge, result.cost)), sep="\n")
    for warning in result.warnings:
        print(f"warning: {warning}")
    for fact in result.facts:
        print(f"  {fact.name}: {fact.figure}" + (f" ({fact.detail})" if fact.detail else ""))
    print(f"report: {folder / REPORT}, tables: {folder / TABLES}, figures: {folder / SUMMARY}")
