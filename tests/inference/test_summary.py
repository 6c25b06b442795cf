"""From results.parquet to the summary and its tables, held against the rows themselves."""

from __future__ import annotations

import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_results import ABOUT, COMPARISONS, STYLES, embeddings, make_results

from prip.errors import InputError
from prip.inference.evaluation.analysis.curves import joined, read_curves
from prip.inference.evaluation.analysis.results import failed_rows, read_results, rows_of
from prip.inference.evaluation.analysis.statistics import holm
from prip.inference.evaluation.analysis.summary import main_refiner, main_scorer, summarise
from prip.inference.evaluation.analysis.table import Cell, Column, Table, number, print_tables, to_markdown
from prip.inference.evaluation.analysis.tables import comparison_tables, decimals_of, few_clusters, score_tables, tables

REFINERS = list(ABOUT["refiners"])


def fails(prompt: int, refiner: str, generator: str, image: int) -> bool:
    """All images of prompt 3 by rl on diffusion, and one of prompt 5 by chat on the renderer."""
    wanted = (prompt, refiner, generator)
    return wanted == (3, "rl", "diffusion") or (*wanted, image) == (5, "chat", "renderer", 1)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_results(tmp_path_factory.mktemp("evaluation"), prompts=16, fails=fails)


@pytest.fixture(scope="module")
def summary(path: Path) -> dict[str, Any]:
    return summarise(path, ABOUT, embeddings(path), COMPARISONS, draws=400)


def row_of(summary: dict[str, Any], **wanted: str) -> dict[str, Any]:
    wanted = {"generator": "diffusion", "scorer": "truth", "category": "all"} | wanted
    (row,) = [row for row in summary["rows"] if all(row[name] == value for name, value in wanted.items())]
    return row


def prompt_means(path: Path, scorer: str) -> pd.Series:
    frame = pd.read_parquet(path)
    return frame.groupby(["generator", "refiner", "prompt_id"])[f"score:{scorer}"].mean()


def over_clusters(path: Path, by_prompt: pd.Series) -> float:
    """Mean over clusters of means over units, by pandas."""
    places = pd.read_parquet(path).drop_duplicates("prompt_id").set_index("prompt_id")[["unit", "cluster"]]
    return float(
        places.join(by_prompt.rename("x")).groupby(["cluster", "unit"])["x"].mean().groupby("cluster").mean().mean()
    )


def test_a_comparison_across_generators_is_paired_by_prompt(path: Path) -> None:
    across = [["none@diffusion", "none@renderer"], ["none@diffusion", "rl@renderer"], ["none@lamp", "rl@renderer"]]
    summary = summarise(path, ABOUT, {}, [*COMPARISONS, *across], draws=400)
    found = [one for one in summary["comparisons"] if one["generator"] is None and one["scorer"] == "truth"]
    assert [[one["from"], one["to"]] for one in found] == across[:2]
    means = prompt_means(path, "truth")
    for one, (before, after) in zip(found, (("none", "none"), ("none", "rl")), strict=True):
        by_prompt = means["renderer", after] - means["diffusion", before]
        assert one["difference"] == pytest.approx(over_clusters(path, by_prompt), abs=1e-12)
        assert one["n"] == 16 and one["win"] == pytest.approx((by_prompt > 1e-6).mean())
        assert one["difference_low"] <= one["difference"] <= one["difference_high"]
    tested = [row for row in summary["rows"] if row["category"] == "all" and row["refiner"] != "none"]
    further = [one for one in summary["comparisons"] if one["from"] != "none"]
    assert [one["p_holm"] for one in [*tested, *further]] == holm([one["p_exact"] for one in [*tested, *further]])
    (table,) = [one for one in comparison_tables(summary) if one.title == "Refiners against each other"]
    assert "none@diffusion to rl@renderer" in {row[0].text for row in table.rows}


def test_means_and_differences_are_those_of_the_rows(path: Path, summary: dict[str, Any]) -> None:
    for scorer in ABOUT["scorers"]:
        means = prompt_means(path, scorer)
        for generator in ABOUT["generators"]:
            for refiner in ABOUT["refiners"]:
                row = row_of(summary, generator=generator, refiner=refiner, scorer=scorer)
                own, plain = means[generator, refiner], means[generator, "none"]
                assert row["mean"] == pytest.approx(over_clusters(path, own), abs=1e-9)
                assert row["low"] <= row["mean"] <= row["high"] and row["n"] == own.notna().sum()
                if refiner == "none":
                    assert row["difference"] is row["p_holm"] is row["win"] is None
                    continue
                assert row["difference"] == pytest.approx(over_clusters(path, own - plain), abs=1e-9)
                assert row["difference_low"] <= row["difference"] <= row["difference_high"]
                assert row["win"] == pytest.approx(((own - plain) > 1e-6).sum() / (own - plain).notna().sum())
                assert row["win"] + row["tie"] + row["loss"] == pytest.approx(1)


def test_a_failed_side_leaves_a_pair_out_and_is_counted(path: Path, summary: dict[str, Any]) -> None:
    assert row_of(summary, refiner="rl")["n"] == 15 and row_of(summary, refiner="warmup")["n"] == 16
    assert row_of(summary, refiner="chat", generator="renderer")["n"] == 16, "one image of two is left"
    (pair,) = [
        one
        for one in summary["comparisons"]
        if (one["from"], one["to"], one["generator"], one["scorer"]) == ("warmup", "rl", "diffusion", "truth")
    ]
    means = prompt_means(path, "truth")
    assert pair["n"] == 15
    assert pair["difference"] == pytest.approx(
        over_clusters(path, means["diffusion", "rl"] - means["diffusion", "warmup"])
    )
    failed = {(one["generator"], one["refiner"]): one["failed"] for one in summary["lengths"]}
    assert failed["diffusion", "rl"] == 2 and failed["renderer", "chat"] == 1 and sum(failed.values()) == 3
    assert summary["about"]["failed_images"] == 3 and summary["about"]["images"] == 16 * 2 * 6 * 2
    listed = failed_rows(path, 2)
    assert len(listed) == 2 and all(row["error"] == "RuntimeError: out of <memory>" for row in listed)
    assert len(failed_rows(path, 50)) == 3


def test_categories_have_rows_of_their_own(path: Path, summary: dict[str, Any]) -> None:
    frame = pd.read_parquet(path).query("generator == 'renderer' and refiner == 'rl'")
    for style in STYLES:
        row = row_of(summary, refiner="rl", generator="renderer", category=style)
        means = frame[frame["category"] == style].groupby("prompt_id")["score:truth"].mean()
        assert row["mean"] == pytest.approx(over_clusters(path, means)) and row["n"] == len(means) == 4
        assert row["p_holm"] is None and row["p_bootstrap"] is not None


def test_holm_counts_each_test_once(summary: dict[str, Any]) -> None:
    rows = [row for row in summary["rows"] if row["category"] == "all" and row["p_bootstrap"] is not None]
    further = [one for one in summary["comparisons"] if one["from"] != "none"]
    assert len(rows) == 5 * 2 * 3 and len(further) == 2 * 3
    expected = holm([one["p_exact"] for one in [*rows, *further]])
    assert [one["p_holm"] for one in [*rows, *further]] == expected
    same = {
        (row["refiner"], row["generator"], row["scorer"]): (row["p_bootstrap"], row["p_holm"], row["difference"])
        for row in rows
    }
    from_none = [one for one in summary["comparisons"] if one["from"] == "none"]
    for one in from_none:
        found = one["p_bootstrap"], one["p_holm"], one["difference"]
        assert found == same[one["to"], one["generator"], one["scorer"]]
    assert len(from_none) == 2 * 3


def test_gap_diversity_and_lengths(path: Path, summary: dict[str, Any]) -> None:
    means, frame = prompt_means(path, "truth"), pd.read_parquet(path)
    plain, rl, best = (means["renderer", name] for name in ("none", "rl", "best"))
    share, low, high = summary["gap_closed"]["renderer"]
    assert share == pytest.approx(over_clusters(path, rl - plain) / over_clusters(path, best - plain))
    assert 0 < low <= share <= high < 1
    one = next(d for d in summary["diversity"] if (d["generator"], d["refiner"]) == ("renderer", "rl"))
    own = frame.query("generator == 'renderer' and refiner == 'rl'")
    assert one["within_prompt"] == pytest.approx(
        over_clusters(path, own.groupby("prompt_id")["within_distance"].mean())
    )
    assert one["within_prompt_low"] <= one["within_prompt"] <= one["within_prompt_high"]
    assert 1 < one["across_prompts"] < 16
    length = next(d for d in summary["lengths"] if (d["generator"], d["refiner"]) == ("renderer", "rl"))
    assert length["mean_tokens"] == pytest.approx(own["tokens"].mean())
    assert length["at_limit"] == pytest.approx((own["tokens"] >= 20).mean()) and 0 < length["at_limit"] < 1


def test_the_summary_is_json_and_the_same_every_time(path: Path, summary: dict[str, Any]) -> None:
    text = json.dumps(summary, allow_nan=False)
    assert json.loads(text) == summary
    assert summarise(path, ABOUT, embeddings(path), COMPARISONS, draws=400) == summary
    moved = summarise(path, {**ABOUT, "seed": 1}, {}, draws=400)
    assert row_of(moved, refiner="rl")["low"] != row_of(summary, refiner="rl")["low"]


def test_a_set_without_categories_and_without_an_embedder(tmp_path: Path) -> None:
    path = make_results(tmp_path, prompts=4, images=1, categories=False)
    found = summarise(path, ABOUT, {}, draws=100)
    assert {row["category"] for row in found["rows"]} == {"all"}
    assert found["diversity"] == [] and found["comparisons"] == []
    assert not [table for table in comparison_tables(found) if "category" in table.title]
    assert "distance" not in [column.head for column in score_tables(found)[0].columns]


def test_a_refiner_of_which_all_failed_has_no_figures(tmp_path: Path) -> None:
    path = make_results(tmp_path, prompts=4, images=1, fails=lambda prompt, refiner, *_: refiner == "chat")
    found = summarise(path, ABOUT, {}, draws=100)
    row = row_of(found, refiner="chat")
    assert row["n"] == 0 and row["mean"] is row["difference"] is row["p_holm"] is None
    assert row_of(found, refiner="rl")["mean"] is not None
    cells = {row[0].text: row for table in score_tables(found)[:1] for row in table.rows}
    assert cells["chat"][1] == Cell("-")


def test_what_is_no_evaluation_is_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read as an evaluation's results"):
        read_results(tmp_path / "none.parquet")
    pd.DataFrame({"prompt_id": [1]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(InputError, match="a table without user_prompt, category"):
        read_results(tmp_path / "other.parquet")
    pd.read_parquet(path).head(0).to_parquet(tmp_path / "empty.parquet")
    with pytest.raises(InputError, match="got no rows"):
        read_results(tmp_path / "empty.parquet")
    with pytest.raises(InputError, match="expected scores of hps, got none"):
        summarise(path, {**ABOUT, "scorers": {"hps": {"role": "held out"}}}, {})


def test_rows_of_a_few_prompts(path: Path) -> None:
    rows = rows_of(path, [2, 5])
    assert {row["prompt_id"] for row in rows} == {2, 5} and len(rows) == 2 * 2 * 6 * 2


def test_reading_needs_little_memory_however_many_rows(tmp_path: Path) -> None:
    """Rows that would take over 100 MB as objects are read within a small part of that."""
    prompts, images = 4_000, 16
    count = prompts * images
    prompt_id = np.repeat(np.arange(prompts), images)
    frame = pd.DataFrame(
        {"prompt_id": prompt_id, "user_prompt": [f"a long user prompt number {i}" * 20 for i in prompt_id]}
    )
    for name in ("unit", "cluster"):
        frame[name] = frame["user_prompt"]
    frame = frame.assign(
        category="", refiner="none", generator="one", image_index=0, seed=0, refined_prompt="", tokens=3
    )
    frame = frame.assign(token_limit=75, image="", error="", within_distance=0.5)
    frame["score:truth"] = np.arange(count) % images
    frame.to_parquet(tmp_path / "results.parquet", index=False)
    del frame
    tracemalloc.start()
    results = read_results(tmp_path / "results.parquet")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert results.cells["one", "none"].scores["truth"].tolist() == [7.5] * prompts
    assert peak < 25e6


def test_what_a_report_speaks_of_first() -> None:
    assert main_refiner(ABOUT) == "rl" and main_scorer(ABOUT) == "truth"
    about = {"refiners": {"none": {"kind": "none"}, "a": {"kind": "suffix"}, "best": {"kind": "best"}}}
    assert main_refiner(about) == "a"
    assert main_refiner({"refiners": {"none": {"kind": "none"}, "best": {"kind": "best"}}}) is None
    assert main_scorer({"scorers": {"a": {"role": "trained against"}, "b": {"role": "fidelity"}}}) == "a"


def test_tables_hold_the_figures_with_intervals_and_roles(summary: dict[str, Any]) -> None:
    table = score_tables(summary)[0]
    assert table.title == "Scores on diffusion (trained against)"
    assert [(column.head, column.mark) for column in table.columns[1:4]] == [
        ("mini-reward", "trained against"),
        ("truth", "held out"),
        ("subject_accuracy", "fidelity"),
    ]
    cells = {row[0].text: row for row in table.rows}
    row = row_of(summary, refiner="rl")
    decimals = len(cells["rl"][2].text.split(".")[1])
    assert cells["rl"][2] == Cell(
        f"{row['mean']:.{decimals}f}", f"{row['low']:.{decimals}f} to {row['high']:.{decimals}f}"
    )
    assert all(row[place].interval for row in table.rows for place in (1, 2, 3))
    assert cells["rl"][-1].text == "2"
    gains = next(table for table in comparison_tables(summary) if table.title.startswith("Gain over none on diffusion"))
    assert len(gains.rows) == 5 * 3 and "all patterns of signs; below 20 clusters" in gains.note


def test_few_clusters_have_exact_p_values(tmp_path: Path) -> None:
    path = make_results(tmp_path, prompts=6)
    summary = summarise(path, ABOUT, {}, COMPARISONS, draws=400)
    row, means = row_of(summary, refiner="rl"), prompt_means(path, "truth")
    gains = (means["diffusion", "rl"] - means["diffusion", "none"]).to_numpy()
    assert summary["about"]["clusters"] == row["clusters"] == 6 and (gains > 0).all()
    assert row["p_bootstrap"] < 0.01, "too small to be true"
    assert row["p_exact"] == 2 / 2**6 and row["p_holm"] >= row["p_exact"]
    gains_table = next(one for one in comparison_tables(summary) if one.title.startswith("Gain over none"))
    heads = [column.head for column in gains_table.columns]
    assert "p, exact" in heads and "p, bootstrap" not in heads
    assert few_clusters(summary["about"]).startswith("Few prompts: with 6 prompts (below 20)")
    assert "never below 0.031" in few_clusters(summary["about"])


def test_many_clusters_have_the_bootstraps_p_values(tmp_path: Path) -> None:
    summary = summarise(make_results(tmp_path, prompts=24, images=1), ABOUT, {}, COMPARISONS, draws=400)
    rows = [row for row in summary["rows"] if row["category"] == "all" and row["p_bootstrap"] is not None]
    further = [one for one in summary["comparisons"] if one["from"] != "none"]
    assert summary["about"]["clusters"] >= 20 and few_clusters(summary["about"]) == ""
    assert {one["p_exact"] for one in [*rows, *further]} == {None}
    assert [one["p_holm"] for one in [*rows, *further]] == holm([one["p_bootstrap"] for one in [*rows, *further]])
    gains = next(table for table in comparison_tables(summary) if table.title.startswith("Gain over none"))
    heads = [column.head for column in gains.columns]
    assert "p, bootstrap" in heads and "p, exact" not in heads and "400 draws never below 0.005" in gains.note


def test_the_best_is_marked_whichever_refiner_it_is(summary: dict[str, Any]) -> None:
    made = tables(summary)
    assert sum(cell.best for table in made for row in table.rows for cell in row) > 20
    for generator, table in zip(ABOUT["generators"], score_tables(summary), strict=True):
        for column, scorer in enumerate(ABOUT["scorers"], 1):
            means = {
                name: row_of(summary, refiner=name, generator=generator, scorer=scorer)["mean"] for name in REFINERS
            }
            marked = {row[0].text for row in table.rows if row[column].best}
            highest = {name for name, mean in means.items() if mean >= max(means.values()) - 1e-6}
            assert marked == (highest if highest != set(REFINERS) else set())
    assert "best" in {row[0].text for row in score_tables(summary)[0].rows if row[2].best}


def test_a_loss_is_no_largest_gain(summary: dict[str, Any]) -> None:
    losing = [row | {"difference": row["difference"] and -abs(row["difference"])} for row in summary["rows"]]
    table = next(t for t in comparison_tables({**summary, "rows": losing}) if t.title.startswith("Gain over none"))
    assert not any(cell.best for row in table.rows for cell in row)


def test_nobody_is_best_where_all_are_alike(summary: dict[str, Any]) -> None:
    cells = [row[3] for row in score_tables(summary)[1].rows]
    assert {cell.text for cell in cells} == {"1.000"} and not any(cell.best for cell in cells)


def test_many_categories_become_rows(summary: dict[str, Any]) -> None:
    rows = [row for row in summary["rows"] if row["category"] == "photo"]
    many = [{**row, "category": f"kind {i}"} for i in range(8) for row in rows]
    wide = {**summary, "rows": [row for row in summary["rows"] if row["category"] == "all"] + many}
    table = next(table for table in comparison_tables(wide) if table.title.startswith("truth (held out) by category"))
    assert [column.head for column in table.columns] == ["category", "n", *ABOUT["refiners"]]
    assert [row[0].text for row in table.rows] == [*(f"kind {i}" for i in range(8)), "all"]


def test_numbers_in_words() -> None:
    assert number(-0.0001, 2, sign=True) == "0.00" and number(0.5, 1, sign=True) == "+0.5"
    assert number(None, 2) == "-"
    rows = [{"low": 0.512, "high": 0.534}, {"low": 0.1, "high": 0.12}, {"low": None, "high": None}]
    assert decimals_of(rows) == 3 and decimals_of([]) == 3
    assert decimals_of([{"low": 20.0, "high": 95.0}]) == 1


def test_markdown_is_whole_and_escaped() -> None:
    table = Table(
        "A *b*", (Column("r", words=True), Column("x|y", "held out")), ((Cell("<b>"), Cell("1", "0 to 2", True)),), "n"
    )
    lines = to_markdown([table]).splitlines()
    assert lines[0] == r"**A \*b\***"
    assert lines[2:5] == [r"| r | x\|y (held out) |", "| :-- | --: |", r"| \<b\> | **1** (0 to 2) |"]
    assert lines[6] == "n"


def test_printed_tables_are_plain_where_no_terminal_listens(summary: dict[str, Any]) -> None:
    stream = io.StringIO()
    print_tables(tables(summary), stream)
    text = stream.getvalue()
    assert "\x1b" not in text and text.isascii()
    for shown in ("Scores on diffusion (trained against)", "held out", "warmup to rl", "subject_accuracy", "Gain:"):
        assert shown in text
    table = score_tables(summary)[0]
    cell = table.rows[3][2]
    assert cell.text in text and cell.interval in text
    (best,) = [row for row in table.rows if row[1].best]
    line = next(line for line in text.splitlines() if line.lstrip(" |").startswith(best[0].text))
    assert f" {best[1].text} *" in line and "*: the highest mean of a scorer." in text and "Bold" not in text
    assert "Bold: the highest mean of a scorer." in table.full_note() and "**" in to_markdown([table])
    plain = Table("t", (Column("x"),), ((Cell("1"),),), "n", "the best")
    assert plain.full_note() == "n", "nothing is marked"


def test_what_agreement_and_one_image_are_is_said(summary: dict[str, Any]) -> None:
    changed = summary | {
        "about": summary["about"] | {"images_per_prompt": 1},
        "agreement": {"judge": "truth", "n": 512, "correlation": 0.98, "mean_absolute_error": 0.02},
    }
    made = tables(changed)
    assert ", 1 image each, with 95 %" in made[0].note and ", 2 images each," in tables(summary)[0].note
    (agreement,) = [table for table in made if table.title.startswith("Agreement")]
    assert "The judge compared with the exact truth" in agreement.note


def test_curves_are_read_from_a_run_and_joined(tmp_path: Path) -> None:
    assert read_curves(tmp_path) is None
    log = tmp_path / "rl" / "logs" / "metrics.csv"
    log.parent.mkdir(parents=True)
    log.write_text("step,dev_reward,dev_kl,reward,kl\n-1,1.5,0,,\n0,,,1.6,.01\n9,2.25,0.5,2,.4\n")
    curves = read_curves(tmp_path)
    assert curves == {"iteration": [0.0, 10.0], "reward": [1.5, 2.25], "kl": [0.0, 0.5]}
    both = joined(curves, {"iteration": [10, 5], "truth": [0.7, 0.6]})
    assert both == {
        "iteration": [0.0, 5, 10.0],
        "reward": [1.5, None, 2.25],
        "kl": [0.0, None, 0.5],
        "truth": [None, 0.6, 0.7],
    }
    with pytest.raises(InputError, match="second: expected iteration and series of its length"):
        joined(curves, {"iteration": [1], "truth": []})
    log.write_text("step,loss\n0,1\n")
    with pytest.raises(InputError, match="expected a log of rl, got one without dev_reward, dev_kl"):
        read_curves(tmp_path)
