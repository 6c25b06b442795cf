"""The model card of a refiner: description, usage, and the figures in training.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LIBRARY = "prip"
TAGS = ("prompt-refinement", "text-to-image")

_USE = """```python
from prip import Refiner

refiner = Refiner.from_pretrained("{name}")
refiner.refine("a cat")
```"""


def card_header(license: str | None = "apache-2.0") -> str:
    """Return the card's YAML header for the Hub, with its --- lines."""
    from huggingface_hub import ModelCardData

    data = ModelCardData(license=license, library_name=LIBRARY, tags=list(TAGS), pipeline_tag="text-generation")
    return f"---\n{data.to_yaml()}\n---\n"


def refiner_card(name: str, record: Mapping[str, Any] | None, license: str | None = None) -> str:
    """Return the card in Markdown.

    Args:
        name: Argument of `Refiner.from_pretrained`.
        record: Content of training.json, if there is any.
        license: The Hub's identifier of a license; None leaves it open, since it depends on the base models.
    """
    record = record or {}
    parts = [
        card_header(license),
        f"# {name}\n",
        "A prompt refiner of [PRIP](https://arxiv.org/abs/2407.00247), prompt refinement with image pivot: it keeps\n"
        "the user's words and adds modifiers that suit a text-to-image model.\n",
        _USE.format(name=name) + "\n",
        "## Training\n",
        _stages(record),
    ]
    if evaluation := record.get("evaluation"):
        parts += ["## Evaluation\n", evaluation_tables(evaluation)]
    if data := record.get("data"):
        rows = [f"| {file} | `{digest}` |" for file, digest in data.items()]
        parts += ["## Data\n", "\n".join(["| file | SHA-256 |", "| --- | --- |", *rows]) + "\n"]
    if record:
        parts.append("All settings, seeds and figures: `training.json`.\n")
    return "\n".join(parts)


def _stages(record: Mapping[str, Any]) -> str:
    """Return a table of each stage's best checkpoint, by figures on held-out data."""
    rows = []
    for stage, entry in (record.get("stages") or {}).items():
        metrics = entry.get("metrics") or {}
        figures = {name: value for name, value in (metrics.get("best") or {}).items() if isinstance(value, int | float)}
        shown = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        rows.append(f"| {stage} | {entry.get('seed', '')} | {metrics.get('steps', '')} | {shown} |")
    if not rows:
        return "No training record.\n"
    return "\n".join(["| stage | seed | steps | figures on held-out data |", "| --- | --- | --- | --- |", *rows]) + "\n"


def evaluation_tables(evaluation: Mapping[str, Any]) -> str:
    """Return a summary of `prip evaluate` as tables."""
    about = evaluation["about"]
    lines = [
        f"`prip evaluate --config {about['config']}`: {about['prompts']} user prompts, {about['images_per_prompt']} "
        "images each; difference to the plain prompt, 95 % interval.",
        "",
        "| refiner | generator | scorer | mean | difference | interval |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in evaluation["rows"]:
        if row["category"] != "all":
            continue
        scorer = f"{row['scorer']} ({about['scorers'][row['scorer']]['role']})"
        cells = [row["refiner"], row["generator"], scorer, f"{row['mean']:.3f}"]
        interval = "" if row["difference"] is None else f"{row['difference_low']:+.3f} to {row['difference_high']:+.3f}"
        cells += ["" if row["difference"] is None else f"{row['difference']:+.3f}", interval]
        lines.append(f"| {' | '.join(cells)} |")
    if evaluation["gap_closed"]:
        lines += ["", "Share of the gap from plain to best that is closed:", ""]
    for generator, (share, low, high) in evaluation["gap_closed"].items():
        interval = "no interval" if low is None else f"{low:.0%} to {high:.0%}"
        lines.append(f"- {generator}: " + ("best is no better" if share is None else f"{share:.0%} ({interval})"))
    return "\n".join(lines) + "\n"
