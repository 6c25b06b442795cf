"""The benchmarks run, and the embedded default holds to what they measure."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PARTI_PROMPTS = ROOT.parent / "shared" / "data" / "PartiPrompts.tsv"


def run(script: str, *arguments: str) -> str:
    command = [sys.executable, str(ROOT / "benchmarks" / script), *arguments]
    process = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert process.returncode == 0, process.stderr
    return process.stdout


def shares(printed: str) -> dict[str, float]:
    """Name of a check to the share of prompts that pass it."""
    lines = re.findall(r"^(.*?) +\d+ of \d+ +([\d.]+)%$", printed, re.M)
    return {name: float(percent) / 100 for name, percent in lines}


def test_the_checks_tell_good_from_bad(tmp_path: Path) -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import parti_prompts as checks
    finally:
        sys.path.pop(0)
    assert checks.is_verbatim("a cat.", "a cat, bokeh") and not checks.is_verbatim("a cat", "A cat, bokeh")
    assert not checks.repeats_nothing("a cat", "a cat, bokeh, 8k, bokeh")
    assert not checks.repeats_nothing("a cat, bokeh", "a cat, bokeh, Bokeh")
    assert checks.repeats_nothing("a cat, bokeh", "a cat, bokeh, 8k")
    assert not checks.names_no_other_subject("a cat", "a cat, a robot") and checks.names_no_other_subject(
        "a cat", "a cat, 8k"
    )
    assert not checks.is_within_budget("a cat", "a cat, " + ", ".join(["bokeh"] * 60))


def test_the_ablations_interval_is_students() -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import ablation
    finally:
        sys.path.pop(0)
    assert ablation.in_words([0.5, 0.6, 0.7]) == "0.600 (0.352 to 0.848)   each 0.500 0.600 0.700"
    assert ablation.in_words([0.5]) == "0.500", "one seed says nothing of others"


@pytest.mark.slow
@pytest.mark.skipif(not PARTI_PROMPTS.is_file(), reason="PartiPrompts.tsv is not beside the checkout")
def test_parti_prompts() -> None:
    found = shares(run("parti_prompts.py", str(PARTI_PROMPTS)))
    assert found["something was added"] > 0.99
    assert found["the user's words verbatim"] == 1
    assert found["no repeated modifier"] == 1
    assert found["within the token budget"] == 1
    assert found["no foreign subject noun"] >= 0.99


@pytest.mark.slow
def test_speed_is_measured() -> None:
    printed = run("refine_speed.py", "--repeats", "20")
    assert re.search(r"one prompt, warm +[\d.]+ ms", printed)
    assert re.search(r"batch of 256 +[\d.]+ prompts/s", printed)
    assert float(re.search(r"cold process +([\d.]+) times", printed).group(1)) <= 1.3


@pytest.mark.slow
def test_ablations_train_what_differs_once_and_print_every_variant(tmp_path: Path) -> None:
    from prip.training.cli import main

    source = tmp_path / "run"
    for stage in ("world", "prepare"):
        assert main([stage, "--config", "smoke", "--run", str(source), "--no_progress"]) == 0
    words = ["ablation.py", "--run", str(source), "--out", str(tmp_path / "out"), "--config", "smoke", "--seeds", "0"]
    printed = run(*words, "--rl", "--rl-steps", "2")
    for variant in ("full", "without preferred images", "without pivot"):
        assert re.search(rf"^{variant} +rl +0\.\d+", printed, re.MULTILINE), printed
        assert re.search(rf"^{variant} +iteration +2 +gain on dev", printed, re.MULTILINE)
        assert variant == "full" or re.search(rf"^full - {variant} +rl +-?0\.\d+", printed, re.MULTILINE), printed
    encoders = sorted(path.name for path in (tmp_path / "out" / "shared").glob("encoder-*"))
    assert encoders == ["encoder-preferred-0", "encoder-random-0"], "shared by the variants that have it in common"
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.safetensors")}
    assert run(*words, "--rl", "--rl-steps", "2") == printed
    assert made and made == {path: path.stat().st_mtime_ns for path in made}, "what is done is not done again"


@pytest.mark.slow
def test_algorithms_are_compared_at_equal_rollouts(tmp_path: Path) -> None:
    from prip.training.cli import main

    source = tmp_path / "run"
    for stage in ("world", "prepare", "encoder", "decoder"):
        assert main([stage, "--config", "smoke", "--run", str(source), "--no_progress"]) == 0
    words = ["algorithms.py", "--run", str(source), "--out", str(tmp_path / "out"), "--config", "smoke"]
    printed = run(*words, "--seeds", "0", "1", "--steps", "2", "--every", "1")
    for algorithm in ("ppo", "grpo", "rloo"):
        rows = re.findall(rf"^{algorithm} +(\d+) +-?[\d.]+ \+- [\d.]+ +-?[\d.]+ \+- [\d.]+$", printed, re.MULTILINE)
        assert rows == ["0", "8", "16"], printed
        assert re.search(rf"^{algorithm} +best reward on dev -?[\d.]+ .* s$", printed, re.MULTILINE)


@pytest.mark.slow
def test_the_papers_costs_are_printed_at_a_small_size(tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    printed = run("paper_scale.py", "--size", "small", "--repeats", "1", "--device", "cpu", "--json", str(path))
    rows = json.loads(path.read_text())["rows"]
    assert list(rows) == ["encoder", "lora", "full", "rl", "refine"]
    for row in ("encoder step", "decoder step, LoRA", "decoder step, full", "RL iteration", "refine"):
        assert re.search(rf"^{row} +\d+ +\d+\.\d+ +\d+\.\d+ +\d+\.\d+", printed, re.MULTILINE), printed
    for phase in ("refine", "draw", "score", "update", "all else"):
        assert re.search(rf"^  {phase} +4 +\d+\.\d+", printed, re.MULTILINE), printed
    parts = [own["seconds"] for own in rows["rl"]["phases"].values()]
    assert sum(parts) == pytest.approx(rows["rl"]["seconds"]) and all(own["flops"] > 0 for own in rows.values())
    assert re.search(r"^  encoder +[\d.e-]+ \(24\)$", printed, re.MULTILINE), printed
