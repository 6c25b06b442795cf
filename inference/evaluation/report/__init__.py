"""Writes what people read of an evaluation: summary.json, tables.md, report.html and the terminal's tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prip.files import write_output

from ..analysis.results import read_results
from ..analysis.table import print_tables, to_markdown
from ..analysis.tables import tables
from ..work.images import ImageStore
from .page import IMAGE_LIMIT, report_page

RESULTS, SUMMARY, TABLES, REPORT = "results.parquet", "summary.json", "tables.md", "report.html"


def write_report(folder: Path, summary: Mapping[str, Any], images: Path, image_limit: int = IMAGE_LIMIT) -> None:
    """Write the summary, the tables and the page into `folder`, which holds the results, and print the tables.

    images: folder of the evaluation's images. image_limit: maximum number of images on the page.
    """
    text = json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_output(folder / SUMMARY, text.encode())
    all_tables, results = tables(summary), folder / RESULTS
    write_output(folder / TABLES, to_markdown(all_tables).encode())
    page = report_page(summary, read_results(results), results, ImageStore(images).path, image_limit)
    write_output(folder / REPORT, page.encode())
    print_tables(all_tables)
    print(f"written to {folder}: {SUMMARY}, {TABLES}, {REPORT}")
