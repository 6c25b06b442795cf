"""`prip evaluate` as a user runs it, on the renderer and a checkpoint with random weights."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from prip.inference.cli import main

COMMAND = [sys.executable, "-m", "prip.inference.cli", "evaluate"]
SMALL = ["--config", "smoke", "--generators", "renderer", "--device", "cpu", "--quiet"]
REFINERS = ["none", "random", "warmup", "rl", "best"]


@pytest.fixture(scope="module")
def finished(whole_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of an evaluation, and what the command printed."""
    out = tmp_path_factory.mktemp("evaluation") / "new" / "folder"
    command = [*COMMAND, *SMALL, "--checkpoint", str(whole_checkpoint), "--out", str(out)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    return out, process.stdout


def test_the_command_fills_the_folder_and_prints_the_headline(finished: tuple[Path, str]) -> None:
    out, printed = finished
    summary = json.loads((out / "summary.json").read_text())
    scorers = ("truth", "second_reward", "mini-reward", "mini-hps", "subject_accuracy")
    assert {(row["refiner"], row["generator"], row["scorer"]) for row in summary["rows"]} == {
        (refiner, "renderer", scorer) for refiner in REFINERS for scorer in scorers
    }
    assert set(summary["gap_closed"]) == {"renderer"} and summary["agreement"]["n"] == 16
    assert summary["about"]["clusters"] == 3 and summary["about"]["failed_images"] == 0
    results = pd.read_parquet(out / "results.parquet")
    assert len(results) == summary["about"]["images"] == 6 * len(REFINERS) and "vector" not in results
    plain = results[results["refiner"] == "none"]
    assert (plain["refined_prompt"] == plain["user_prompt"]).all()
    texts = {name: list(results.loc[results["refiner"] == name, "refined_prompt"]) for name in REFINERS}
    assert texts["rl"] == texts["warmup"] and texts["rl"] != texts["none"]
    assert "according to truth" in printed and str(out / "report.html") in printed.splitlines()[-1]
    assert len(printed.splitlines()) < 20 and "held out" not in printed
    assert (out / "report.html").is_file() and "| random" in (out / "tables.md").read_text()
    assert {path.stem for path in (out / "images").rglob("*.png")} == set(results["image"])


def test_the_same_command_does_nothing_twice_and_another_one_is_refused(
    finished: tuple[Path, str], whole_checkpoint: Path, capsys: pytest.CaptureFixture
) -> None:
    out, _ = finished
    own = [*SMALL, "--checkpoint", str(whole_checkpoint), "--out", str(out)]
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*/*") if path.is_file()}
    results = pd.read_parquet(out / "results.parquet")
    assert main(["evaluate", *own, "--tables"]) == 0
    assert "held out" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before
    pd.testing.assert_frame_equal(pd.read_parquet(out / "results.parquet"), results)
    capsys.readouterr()
    assert main(["evaluate", *own, "--seed", "1"]) == 2
    error = capsys.readouterr().err
    assert "made with other seed" in error and "--overwrite" in error
    assert main(["evaluate", *own, "--images-per-prompt", "2"]) == 2
    assert "with other images_per_prompt;" in capsys.readouterr().err


def test_images_are_shared_and_another_evaluation_replaces_the_first(whole_checkpoint: Path, tmp_path: Path) -> None:
    own = [*SMALL, "--checkpoint", str(whole_checkpoint), "--images", str(tmp_path / "images")]
    one = ["evaluate", *own, "--refiners", "random", "--out", str(tmp_path / "one")]
    assert main(one) == 0
    drawn = {path: path.stat().st_mtime_ns for path in (tmp_path / "images").rglob("*.png")}
    assert main(["evaluate", *own, "--refiners", "random", "rl", "--out", str(tmp_path / "two")]) == 0
    assert {path: path.stat().st_mtime_ns for path in drawn} == drawn
    assert len(list((tmp_path / "images").rglob("*.png"))) > len(drawn)
    assert main([*one, "--overwrite", "--images-per-prompt", "2"]) == 0
    assert json.loads((tmp_path / "one" / "summary.json").read_text())["about"]["images"] == 2 * 2 * 6


def test_the_bars_say_what_is_being_done_before_the_first_step(
    whole_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = [option for option in SMALL if option != "--quiet"]
    own = ["--checkpoint", str(whole_checkpoint), "--refiners", "rl", "--out", str(tmp_path / "out")]
    assert main(["evaluate", *shown, *own]) == 0
    told = capsys.readouterr().err.partition("refine: rl:")[2]
    steps = [
        "loading refiner rl",
        "refining 6 prompts",
        "loading generator renderer",
        "loading scorer truth",
        "drawing images 1 to ",
        "truth, images 1 to ",
    ]
    places = [told.index(step) for step in steps]
    assert places == sorted(places)
    for step in steps:
        line = told[: told.index(step)].rpartition("\r")[2]
        assert "  0%|" in line, f"{step}: not said before the first step"


def test_an_interrupted_evaluation_says_how_to_continue(
    whole_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from prip.inference.evaluation.work.measuring import Measurer

    def interrupt(*_: object, **options: object) -> None:
        raise KeyboardInterrupt

    own = ["--checkpoint", str(whole_checkpoint), "--refiners", "rl", "--out", str(tmp_path / "out")]
    with monkeypatch.context() as patch:
        patch.setattr(Measurer, "measure", interrupt)
        assert main(["evaluate", *SMALL, *own]) == 130
    told = capsys.readouterr().err
    assert told.splitlines()[-1] == "prip evaluate: interrupted; run the same command to continue"
    assert "Traceback" not in told and list((tmp_path / "out").glob("refined/rl/*.parquet"))
    assert main(["evaluate", *SMALL, *own]) == 0


def test_a_run_is_read_where_its_stages_wrote(whole_checkpoint: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for part in ("readers", "rewards", "pivot_encoder"):
        shutil.copytree(whole_checkpoint / part, run / "parts" / part)
    shutil.copytree(whole_checkpoint / "warmup" / "encoder", run / "encoder" / "part")
    shutil.copytree(whole_checkpoint / "refiner" / "decoder", run / "decoder" / "part")
    out = tmp_path / "out"
    chosen = ["--refiners", "warmup", "--images-per-prompt", "2", "--refiner", "house=suffix:golden hour"]
    assert main(["evaluate", *SMALL, "--run", str(run), "--out", str(out), *chosen]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert list(summary["about"]["refiners"]) == ["none", "warmup", "house"]
    assert {(one["from"], one["to"]) for one in summary["comparisons"]} == {("none", "warmup")}
    results = pd.read_parquet(out / "results.parquet")
    assert results.loc[results["refiner"] == "house", "refined_prompt"].str.endswith(", golden hour").all()
    assert results["within_distance"].notna().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--config", "nowhere"], "config: expected a preset"),
        (["--refiners", "oracle"], "refiners: expected none, random, warmup, rl or best, got 'oracle'"),
        (["--generators", "camera"], "generators: expected diffusion or renderer, got 'camera'"),
        (["--images-per-prompt", "0"], "images_per_prompt: expected a whole number of at least 1, got 0"),
        (["--seed", "-1"], "seed: expected at least 0, got -1"),
        (["--checkpoint", "nowhere"], "nowhere"),
        (["--run", "nowhere"], "run: expected a folder, got 'nowhere'"),
        (["--device", "cuda:99"], "device: expected one of cpu"),
        (["--run", ".", "--revision", "main"], "revision: expected none with --run, got 'main'"),
        (["--prompts", "nowhere.txt"], "prompts: expected KIND or KIND:PLACE"),
    ],
)
def test_bad_options_are_named(options: list[str], message: str, tmp_path: Path, capsys) -> None:
    assert main(["evaluate", "--config", "smoke", "--out", str(tmp_path / "out"), *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_missing_parts_are_named(whole_checkpoint: Path, tiny_checkpoint: Path, tmp_path: Path, capsys) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(whole_checkpoint, broken)
    shutil.rmtree(broken / "readers")
    for checkpoint, message in ((broken, "readers is missing"), (tiny_checkpoint, "warmup/encoder is missing")):
        own = ["--checkpoint", str(checkpoint), "--out", str(tmp_path / checkpoint.name)]
        assert main(["evaluate", *SMALL, *own]) == 2
        assert message in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_told(whole_checkpoint: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "file").write_text("")
    own = ["--checkpoint", str(whole_checkpoint), "--out", str(tmp_path / "file" / "out")]
    assert main(["evaluate", *SMALL, *own]) == 2
    assert "cannot be written" in capsys.readouterr().err
