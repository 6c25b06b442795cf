"""The benchmarks run, and the embedded default holds to what they measure."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent


def run(name: str, *arguments: str) -> str:
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    process = subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT)
    assert process.returncode == 0, process.stderr
    return process.stdout


def shares(printed: str) -> dict[str, float]:
    """Name of a check to the share of prompts that pass it."""
    lines = re.findall(r"^(.*?) +\d+ of \d+ +([\d.]+)%$", printed, re.M)
    return {name: float(percent) / 100 for name, percent in lines}


def imported(name: str):
    """A module of benchmarks/."""
    sys.path.insert(0, str(ROOT))
    try:
        return importlib.import_module(f"benchmarks.{name}")
    finally:
        sys.path.pop(0)


def test_the_checks_tell_good_from_bad(tmp_path: Path) -> None:
    checks = imported("parti_prompts")
    assert checks.is_verbatim("a cat.", "a cat, bokeh") and not checks.is_verbatim("a cat", "A cat, bokeh")
    assert not checks.repeats_nothing("a cat", "a cat, bokeh, 8k, bokeh")
    assert not checks.repeats_nothing("a cat, bokeh", "a cat, bokeh, Bokeh")
    assert checks.repeats_nothing("a cat, bokeh", "a cat, bokeh, 8k")
    assert not checks.names_no_other_subject("a cat", "a cat, a robot") and checks.names_no_other_subject(
        "a cat", "a cat, 8k"
    )
    assert not checks.is_within_budget("a cat", "a cat, " + ", ".join(["bokeh"] * 60))


def test_noise_as_reward_hardly_moves_the_policy_of_the_preset_paper() -> None:
    """Adafactor at 1e-3 with steps that are not relative, the earlier optimizer, moves it by more than .05 nats."""
    step_size = imported("step_size")
    refiner = step_size.mini()
    paper, unscaled = (step_size.measure(preset, refiner, 32, 8) for preset in ("paper", "unscaled"))
    assert (paper.steps, unscaled.steps) == (4, 4)
    assert 0 < paper.kl < 0.05 and paper.clipped < 0.2 and 0 < paper.change < 0.002
    assert unscaled.kl > 0.05 and unscaled.change > 0.01


def test_the_ablations_interval_is_students() -> None:
    tables = imported("ablation.tables")
    assert tables.in_words([0.5, 0.6, 0.7]) == "0.600 (0.352 to 0.848); 0.500 0.600 0.700"
    assert tables.in_words([0.5]) == "0.500", "one seed says nothing of others"


def test_the_ablations_tables_compare_seed_by_seed() -> None:
    tables = imported("ablation.tables")
    means = {
        "none": 0.1,
        **{tables.refiner_name("full", stage, seed): 0.5 + seed / 10 for stage in tables.BOTH for seed in (0, 1)},
        tables.refiner_name("rew-syn", "RL", 0): 0.4,
        tables.refiner_name("rew-syn", "RL", 1): 0.6,
    }
    place = {"generator": "diffusion", "scorer": "truth", "category": "all"}
    rows = [{"refiner": name, "mean": mean, **place} for name, mean in means.items()]
    comparison = {"to": "full, RL, 0", "generator": "diffusion", "scorer": "truth", "win": 0.75}
    summary = {
        "about": {"scorers": {"truth": {"role": "held out"}}},
        "rows": rows,
        "comparisons": [
            {**comparison, "from": "rew-syn, RL, 0", "difference": 0.1, "p_bootstrap": 0.002},
            {**comparison, "from": "rew-syn, RL, 1", "difference": 0.2, "p_bootstrap": 0.004},
            {**comparison, "from": "none", "difference": 0.4, "p_bootstrap": 0.001},
        ],
    }
    printed = "\n".join(tables.score_lines(summary, ["full", "rew-syn"], [0, 1], "diffusion", "truth"))
    assert "| none | 0.100 |" in printed
    assert "| full | 0.550 (-0.085 to 1.185); 0.500 0.600 | 0.550" in printed
    assert re.search(r"^\| rew-syn \|  \| 0.500 .* 0.400 0.600 \|  \| 0.050 .*; 0.100 0.000 \|$", printed, re.M), (
        printed
    )
    tests = "\n".join(tables.test_lines(summary))
    assert "| rew-syn, RL | diffusion | truth | +0.150 (-0.485 to +0.785) | +0.100 +0.200 | 0.004 | 0.75 |" in tests
    assert "| none | diffusion | truth | +0.400 | +0.400 | 0.001 | 0.75 |" in tests


def test_the_ablations_pooled_tests_are_paired_by_seed_and_cluster() -> None:
    pooled, tables, results = (
        imported("ablation.pooled"),
        imported("ablation.tables"),
        importlib.import_module("prip.inference.evaluation.analysis.results"),
    )
    texts, clusters = ["a", "b", "c", "d"], ["x", "x", "y", "z"]
    prompts = results.Prompts(np.arange(4), texts, [""] * 4, texts, clusters)

    def cell(*scores: float):
        return results.Measured({"truth": np.array(scores)}, np.zeros(4), 4, 0, 1.0, 0.0)

    cells = {
        "none": cell(0.0, 0.2, 0.1, 0.3),
        tables.refiner_name("full", "RL", 0): cell(0.5, 0.7, 0.6, 0.9),
        tables.refiner_name("full", "RL", 1): cell(0.7, 0.9, 0.8, np.nan),
        tables.refiner_name("rew-syn", "RL", 0): cell(0.4, 0.4, 0.6, 0.8),
        tables.refiner_name("rew-syn", "RL", 1): cell(0.8, 0.8, 0.7, 0.8),
    }
    found = results.Results(prompts, {("diffusion", name): own for name, own in cells.items()})
    own = pooled.differences(found, "diffusion", "truth", "rew-syn", "RL", [0, 1])
    np.testing.assert_allclose(own, [[0.2, 0.0, 0.1], [0.0, 0.1, np.nan]], rtol=0, atol=1e-12)
    plain = pooled.differences(found, "diffusion", "truth", "none", "", [0, 1])
    np.testing.assert_allclose(plain, [[0.5, 0.5, 0.6], [0.7, 0.7, np.nan]], rtol=0, atol=1e-12)
    others = [("none", ""), ("rew-syn", "RL"), ("without pivot", "RL")]
    none, syn = pooled.pooled_tests(found, others, ["diffusion"], ["truth"], [0, 1], 999)
    assert none.found.value == pytest.approx(0.6) and (none.found.low, none.found.high) == pytest.approx((0.5, 0.7))
    assert none.found.p_value == 0.002 and none.p_holm == 0.004, "no resample is at 0 or below"
    assert syn.found.value == pytest.approx(0.075) and syn.p_holm == syn.found.p_value > 0.05
    printed = "\n".join(pooled.pooled_lines([none, syn], 2, 999))
    assert "| none | diffusion | truth | +0.600 (+0.500 to +0.700) | 0.002 | 0.004 |" in printed


def test_a_finished_rl_of_other_iterations_is_refused(tmp_path: Path) -> None:
    rows = imported("ablation.rows")
    rows.check_steps(tmp_path, 50)
    (tmp_path / "rl").mkdir()
    (tmp_path / "rl" / "settings.yaml").write_text("loop: {steps: 50}\n")
    rows.check_steps(tmp_path, 50)
    with pytest.raises(SystemExit, match="was trained with 50 iterations, 200 are wanted: .* --rl-steps 50"):
        rows.check_steps(tmp_path, 200)


@pytest.mark.parametrize("stage", ["encoder", "decoder", "rl"])
def test_every_rows_flags_are_those_of_its_stage(stage: str, tmp_path: Path) -> None:
    from prip.training.cli.command import parse_settings

    rows, run = imported("ablation.rows").ROWS, ["--config", "smoke", "--run", str(tmp_path)]
    made = {
        name: parse_settings(stage, [*run, *flags])
        for name, row in rows.items()
        if (flags := getattr(row, stage) or ())
    }
    plain = parse_settings(stage, run)
    assert made and all(own != plain for own in made.values())
    assert stage != "decoder" or not made["prefix not learned"].learn_prefix


def test_each_zeroth_encoder_is_none(tmp_path: Path) -> None:
    words = ["reward_hacking", "--run", str(tmp_path), "--out", str(tmp_path), "--every", "0"]
    command = [sys.executable, "-m", f"benchmarks.{words[0]}", *words[1:]]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert process.returncode == 2 and "--every: expected a whole number of at least 1, got '0'" in process.stderr


@pytest.mark.slow
def test_parti_prompts(real_data: Callable[[str], Path]) -> None:
    found = shares(run("parti_prompts", str(real_data("PartiPrompts.tsv"))))
    assert found["something was added"] > 0.99
    assert found["the user's words verbatim"] == 1
    assert found["no repeated modifier"] == 1
    assert found["within the token budget"] == 1
    assert found["no foreign subject noun"] >= 0.99


@pytest.mark.slow
def test_speed_is_measured() -> None:
    printed = run("refine_speed", "--repeats", "20")
    assert re.search(r"one prompt, warm +[\d.]+ ms", printed)
    assert re.search(r"batch of 256 +[\d.]+ prompts/s", printed)
    assert re.search(r"which name attributes +[\d.]+ prompts/s", printed)
    whole, classes = (
        float(re.search(rf"{row} +([\d.]+) times `import torch`", printed).group(1))
        for row in ("cold process", "transformers' classes")
    )
    assert whole <= 1.5 * classes, "PRIP itself adds little to the imports"
    assert whole <= 5


@pytest.mark.slow
def test_bans_and_budgets_spoil_no_modifier() -> None:
    printed = run("whole_modifiers", "--prompts-per-combination", "1")
    rows = re.findall(r"^(.*?) +(dropped whole|by masks alone) +([\d.]+)", printed, re.M)
    spoiled = {(case, how): float(share) for case, how, share in rows}
    assert len(spoiled) == 12
    assert all(share == 0 for (_, how), share in spoiled.items() if how == "dropped whole")
    assert max(spoiled.values()) > 0.1, "by masks alone some are"


def test_every_benchmark_is_run_by_a_test() -> None:
    files = [path for path in (ROOT / "benchmarks").rglob("*.py") if '"__main__"' in path.read_text("utf-8")]
    programs = {path.parent.name if path.stem == "__main__" else path.stem for path in files}
    tests = "".join(
        (ROOT / "tests" / name).read_text("utf-8") for name in ("test_benchmarks.py", "test_paper_scale.py")
    )
    by_another = {"rows"}
    assert {name for name in programs - by_another if f'"{name}"' not in tests} == set()


@pytest.mark.slow
def test_the_peer_adds_as_many_tokens_to_each_prompt_of_a_batch() -> None:
    peer = imported("expander_peer")
    assert peer.even_batches({"a": 3, "b": 2, "c": 3, "d": 2, "e": 2, "f": 9}, 2) == [["b", "d"], ["a", "c"]]
    printed = run("expander_peer", "--threads", "1", "--rounds", "1", "--batch", "4")
    rows = re.findall(r"^\| (\d+) \| (\d+)\.0 \| [\d.]+ \| [\d.]+ \| ([\d.]+) \|$", printed, re.MULTILINE)
    assert [int(size) for size, _, _ in rows] == [1, 4] and all(float(ratio) > 1 for _, _, ratio in rows), printed


@pytest.mark.slow
def test_sampling_is_measured() -> None:
    """At a vocabulary small enough for a test, near the token budget already many times faster than before."""
    small = ("--vocabularies", "4000", "--rows", "4", "--hidden", "256", "--rounds", "1")
    (row,) = [line for line in run("sampling_speed", *small).splitlines() if line.startswith("| 4,000")]
    *_, before, now = re.findall(r"([\d.]+) s ", row)
    assert float(before) > 4 * float(now)


def test_keeping_masks_is_measured() -> None:
    """Beyond 1,024 tokens that continue a word, a replay also allows fewer tokens than sampling did."""
    printed = run("mask_replay", "--vocabularies", "6000", "--rows", "4")
    (row,) = [line for line in printed.splitlines() if line.startswith("| 6,000")]
    ratio, narrower = re.findall(r"([\d.]+)%? \|", row)[-2:]
    assert float(ratio) > 2 and float(narrower) > 0


@pytest.mark.slow
def test_preparing_is_measured() -> None:
    printed = run("prepare_scale", "--images", "64", "--workers", "0", "--batch-size", "16")
    images, workers, *measured = printed.splitlines()[2].split()
    scored, ratio, pivots, _, _, whole, cpu_seconds, peak_mib, _, _ = map(float, measured)
    assert (images, workers, ratio) == ("64", "0", 1.0) and scored > whole > 0 and pivots > 0, printed
    assert cpu_seconds > 1 and peak_mib > 100, printed


@pytest.mark.slow
def test_fewer_bits_are_measured() -> None:
    printed = run("precision", "--threads", "1", "--rounds", "1", "--prompts", "4", "--sizes", "mini")
    assert precision_rows(printed)["float32"] == (6.2, 1.0, 1.0, 100)
    assert precision_rows(printed)["float32, int8"][0] < 3


def precision_rows(printed: str) -> dict[str, tuple[float, ...]]:
    """Name of a precision to MiB, speed alone, speed in batches and percent of the texts."""
    rows = re.findall(r"^\| (.*) \| ([\d.,]+) \| ([\d.]+) \| ([\d.]+) \| (\d+) % \|$", printed, re.MULTILINE)
    assert len(rows) == 5, printed
    return {name: tuple(float(value.replace(",", "")) for value in values) for name, *values in rows}


@pytest.mark.slow
def test_a_server_is_measured_under_load() -> None:
    words = ["serve_load", "--seconds", "1", "--rounds", "1", "--clients", "8", "--threads", "1"]
    printed = run(*words)
    rows = {line.split()[0]: line.split()[1:] for line in printed.splitlines()[1:3]}
    assert list(rows) == ["batching", "without"] and all(row[1] == "0" for row in rows.values()), printed
    assert float(rows["batching"][5]) > 1.5 and rows["without"][5] == "1.0", "prompts a batch"
    assert float(re.search(r"^ratio ([\d.]+)", printed, re.MULTILINE).group(1)) > 1


@pytest.mark.slow
def test_alternatives_are_compared() -> None:
    printed = run("alternatives", "--prompts", "6", "--alternatives", "3", "--images-per-prompt", "1")
    rows = [line.split() for line in printed.splitlines()[3:]]
    assert [row[:2] for row in rows[-2:]] == [["0.7", "allowed"], ["0.9", "none"]]
    assert float(rows[0][3]) < float(rows[4][3]), "a larger nucleus shares less"
    assert float(rows[-1][5]) <= float(rows[2][5]), "without faults less is harmful"


@pytest.mark.slow
def test_ablations_train_what_differs_once_and_print_every_row(tmp_path: Path) -> None:
    from prip.training.cli.command import main

    source, out = tmp_path / "run", tmp_path / "out"
    for stage in ("world", "prepare"):
        assert main([stage, "--config", "smoke", "--run", str(source), "--no_progress"]) == 0
    rows = ["full", "without preferred images", "without pivot"]
    words = [
        "ablation",
        "--run",
        str(source),
        "--out",
        str(out),
        "--config",
        "smoke",
        "--seeds",
        "0",
        "--rows",
        *rows,
    ]
    words += ["--rl-steps", "2", "--per-combination", "1", "--images-per-prompt", "1"]
    run(*words, "--train-only")
    weights = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    printed = run(*words)
    assert weights and weights == {path: path.stat().st_mtime_ns for path in weights}, "what is done is not done again"
    for row in rows:
        assert re.search(rf"^\| {row} \| 0\.\d+ \| 0\.\d+ \|", printed, re.MULTILINE), printed
        assert row == "full" or re.search(rf"^\| {row}, RL \| renderer \| truth \| [+-]", printed, re.MULTILINE)
    assert re.search(r"^\| 2 \| [+-]\d", printed, re.MULTILINE), "learning curves"
    assert (out / "without-pivot-0" / "encoder").is_symlink() and not (out / "without-pivot-0" / "decoder").is_symlink()
    assert (out / "evaluation" / "report.html").is_file()


@pytest.mark.slow
def test_judges_are_asked_over_the_whole_of_rl(tmp_path: Path) -> None:
    from prip.training.cli.command import main

    source = tmp_path / "run"
    stages = {stage: [] for stage in ("world", "prepare", "encoder", "decoder")} | {"rl": ["--loop.keep_parts", "true"]}
    for stage, flags in stages.items():
        assert main([stage, "--config", "smoke", "--run", str(source), "--no_progress", *flags]) == 0
    words = ["reward_hacking", "--run", str(source), "--out", str(tmp_path / "out"), "--per-combination", "1"]
    printed = run(*words, "--images-per-prompt", "2")
    judged = json.loads((source / "rl" / "judged.json").read_text())
    assert judged["iteration"][0] == 0 and len(judged["truth"]) == len(judged["iteration"]) >= 2
    assert {"truth", "second_reward", "mini-reward", "within_prompt", "across_prompts"} <= set(judged)
    assert re.search(r"^truth: largest after iteration \d+$", printed, re.MULTILINE)


@pytest.mark.slow
def test_the_evaluators_own_cost_is_measured() -> None:
    printed = run("evaluate_scale", "--prompts", "60", "240", "--overhead-prompts", "8")
    assert re.search(r"^the evaluator adds \d+\.\d+ s, \d+\.\d%$", printed, re.MULTILINE), printed
    peaks = [float(factor) for factor in re.findall(r" x (\d\.\d+)$", printed, re.MULTILINE)]
    assert len(peaks) == 2 and peaks[1] < 1.2


@pytest.mark.slow
def test_algorithms_are_compared_at_equal_rollouts(tmp_path: Path) -> None:
    from prip.training.cli.command import main

    source = tmp_path / "run"
    for stage in ("world", "prepare", "encoder", "decoder"):
        assert main([stage, "--config", "smoke", "--run", str(source), "--no_progress"]) == 0
    words = ["algorithms", "--run", str(source), "--out", str(tmp_path / "out"), "--config", "smoke"]
    printed = run(*words, "--seeds", "0", "1", "--steps", "2", "--every", "1")
    for algorithm in ("ppo", "grpo", "rloo"):
        rows = re.findall(rf"^{algorithm} +(\d+) +-?[\d.]+ \+- [\d.]+ +-?[\d.]+ \+- [\d.]+$", printed, re.MULTILINE)
        assert rows == ["0", "8", "16"], printed
        assert re.search(rf"^{algorithm} +best reward on dev -?[\d.]+ .* s$", printed, re.MULTILINE)


@pytest.mark.slow
def test_the_papers_costs_are_printed_at_a_small_size(tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    printed = run("paper_scale", "--size", "small", "--repeats", "1", "--device", "cpu", "--json", str(path))
    rows = json.loads(path.read_text())["rows"]
    assert list(rows) == ["encoder", "lora", "full", "rl", "refine"]
    for row in ("encoder step", "decoder step, LoRA", "decoder step, full", "RL iteration", "refine"):
        assert re.search(rf"^{row} +\d+ +\d+\.\d+ +\d+\.\d+ +\d+\.\d+", printed, re.MULTILINE), printed
    for phase in ("refine", "draw", "score", "update", "all else"):
        assert re.search(rf"^  {phase} +4 +\d+\.\d+", printed, re.MULTILINE), printed
    parts = [own["seconds"] for own in rows["rl"]["phases"].values()]
    assert sum(parts) == pytest.approx(rows["rl"]["seconds"]) and all(own["flops"] > 0 for own in rows.values())
    assert re.search(r"^  encoder +[\d.e-]+ \(24\)$", printed, re.MULTILINE), printed
