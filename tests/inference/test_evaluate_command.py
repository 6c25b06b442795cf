"""`prip evaluate` as a user runs it, on the renderer and a checkpoint with random weights."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from prip.inference.cli import main

COMMAND = [sys.executable, "-m", "prip.inference.cli", "evaluate"]


def test_the_command_writes_the_result_and_prints_tables(whole_checkpoint: Path, tmp_path: Path) -> None:
    target, markdown = tmp_path / "new" / "result.json", tmp_path / "result.md"
    options = [
        "--config",
        "smoke",
        "--generators",
        "renderer",
        "--checkpoint",
        str(whole_checkpoint),
        "--device",
        "cpu",
    ]
    command = [*COMMAND, *options, "--json", str(target), "--markdown", str(markdown)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    result = json.loads(target.read_text())
    assert {(r["refiner"], r["generator"], r["judge"]) for r in result["rows"]} == {
        (refiner, "renderer", judge)
        for refiner in ("none", "random", "warmup", "rl", "best")
        for judge in ("truth", "second_reward", "subject_accuracy")
    }
    assert set(result["gap_closed"]) == {"renderer"} and len(result["gap_closed"]["renderer"]) == 3
    assert len(result["steps"]) == 9
    assert result["agreement"]["n"] == 16
    assert (result["about"]["split"], result["about"]["subjects"]) == ("test", 3)
    for example in result["examples"]:
        made = example["refined_prompts"]
        assert made["none"] == example["user_prompt"]
        assert made["rl"] == made["warmup"] and made["rl"].startswith(example["user_prompt"] + ", ")
    assert "renderer, judge truth, 6 prompts" in process.stdout and str(target) in process.stdout
    assert "| random |" in markdown.read_text()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["new", "result.json", "result.md"]


def test_a_run_is_read_where_its_stages_wrote(whole_checkpoint: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole_checkpoint / "readers", run / "parts" / "readers")
    shutil.copytree(whole_checkpoint / "warmup" / "encoder", run / "encoder" / "part")
    shutil.copytree(whole_checkpoint / "refiner" / "decoder", run / "decoder" / "part")
    target = tmp_path / "result.json"
    options = ["--config", "smoke", "--generators", "renderer", "--run", str(run), "--device", "cpu", "--split", "dev"]
    code = main(["evaluate", *options, "--json", str(target), "--refiners", "warmup", "--images-per-prompt", "2"])
    result = json.loads(target.read_text())
    assert code == 0
    assert [r["refiner"] for r in result["rows"] if r["judge"] == "truth"] == ["none", "warmup"]
    assert (result["about"]["checkpoint"], result["about"]["split"]) == (str(run), "dev")
    assert result["about"]["settings"]["images_per_prompt"] == 2

    shutil.copytree(whole_checkpoint / "refiner", run / "rl" / "refiner")
    assert main(["evaluate", *options, "--json", str(target), "--refiners", "rl"]) == 0
    assert json.loads(target.read_text())["rows"][-1]["refiner"] == "rl"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--config", "nothing"], "config 'nothing' is neither a preset"),
        (["--refiners", "none", "worst"], "refiners must be of none, random, warmup, rl, best; worst came"),
        (["--generators", "oracle"], "generators must be of diffusion, renderer; oracle came"),
        (["--seed", "-1"], "seed must be at least 0"),
        (["--images-per-prompt", "0"], "images_per_prompt must be a whole number of at least 1"),
        (["--device", "abacus"], "device 'abacus' cannot be used"),
        (["--checkpoint", "no-such-checkpoint"], "unknown checkpoint 'no-such-checkpoint'"),
        (["--run", "no/such/run"], "run 'no/such/run' is not a folder"),
        (["--revision", "v9"], "revision must be left out for 'prip-mini'"),
        (["--run", ".", "--revision", "v9"], "revision must be left out with --run"),
    ],
)
def test_bad_options_are_named(options: list[str], message: str, tmp_path: Path, capsys) -> None:
    code = main(["evaluate", "--json", str(tmp_path / "x.json"), *options])
    captured = capsys.readouterr()
    assert code == 2 and message in captured.err and len(captured.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_missing_parts_are_named(whole_checkpoint: Path, tiny_checkpoint: Path, tmp_path: Path, capsys) -> None:
    assert main(["evaluate", "--json", str(tmp_path / "x.json"), "--checkpoint", str(tiny_checkpoint)]) == 2
    assert "has no refiner/" in capsys.readouterr().err
    broken = tmp_path / "broken"
    shutil.copytree(whole_checkpoint, broken)
    shutil.rmtree(broken / "warmup")
    options = ["--checkpoint", str(broken), "--generators", "renderer", "--config", "smoke"]
    assert main(["evaluate", "--json", str(tmp_path / "x.json"), *options]) == 2
    assert f"{broken / 'warmup' / 'encoder'} is missing" in capsys.readouterr().err


def test_a_target_that_cannot_be_written_is_known_before_anything_is_drawn(tmp_path: Path, capsys) -> None:
    (tmp_path / "file").write_text("")
    for target in (tmp_path, tmp_path / "file" / "x.json"):
        assert main(["evaluate", "--json", str(target)]) == 2
        assert str(target) in capsys.readouterr().err


def test_help_is_light() -> None:
    code = (
        "import sys; from prip.inference.cli import main\n"
        "for words in (['--help'], ['evaluate', '--help'], ['compare', '--help']):\n"
        "    try: main(words)\n"
        "    except SystemExit as done: assert done.code == 0\n"
        "print(sorted({'torch', 'transformers', 'diffusers', 'numpy', 'PIL', 'yaml'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip().splitlines()[-1] == "[]"
    assert "prip evaluate --config miniature --json evaluation.json" in result.stdout
