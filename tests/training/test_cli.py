"""The command prip-train."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from prip.errors import InputError
from prip.training.cli import STAGES, main, parse_settings, presets
from prip.training.settings import DecoderSettings, EncoderSettings


def test_help_names_every_stage_and_loads_no_model_library() -> None:
    code = (
        "import sys; from prip.training.cli import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit: print({'torch', 'transformers', 'lightning'} & set(sys.modules))"
    )
    for arguments in (["--help"], ["encoder", "--help"], ["decoder", "--config", "smoke", "--print_config"]):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
        assert done.stdout.splitlines()[-1] == "set()", done.stderr
        if arguments == ["--help"]:
            assert all(stage in done.stdout for stage in STAGES) and "prip-train encoder --config" in done.stdout


@pytest.mark.parametrize("stage", ["encoder", "decoder"])
def test_stage_help_explains_fields_and_gives_examples(stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([stage, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert stop.value.code == 0
    assert "Probability that a word" in text and "--optimizer.lr" in text and "--resume" in text
    assert f"prip-train {stage} --config miniature --run runs/miniature" in text


@pytest.mark.parametrize("stage", ["encoder", "decoder"])
def test_printed_configs_come_back_as_they_were(stage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peers = {"encoder": [], "decoder": ["rew-log", "rew-syn"]}[stage]
    assert presets(stage) == sorted(["miniature", "modern", "paper", "paper-dry", "smoke", "tinyllama", *peers])
    with pytest.raises(SystemExit):
        parse_settings(stage, ["--config", "miniature", "--run", "runs/x", "--loop.steps", "7", "--print_config"])
    path = tmp_path / "mine.yaml"
    path.write_text(capsys.readouterr().out)
    assert yaml.safe_load(path.read_text())["loop"]["steps"] == 7
    again = parse_settings(stage, [f"--config={path}", "--seed=5"])
    once = parse_settings(stage, ["--config=miniature", "--run=runs/x", "--loop.steps=7", "--seed=5"])
    assert again == once and (again.run, again.seed, again.loop.steps) == (Path("runs/x"), 5, 7)


def test_flags_reach_every_kind_of_field() -> None:
    settings = parse_settings(
        "decoder",
        ["--run", "r", "--resume", "--no_progress", "--pivot", "none", "--lora.modules", '["q_proj"]', "--data", "d"],
    )
    assert isinstance(settings, DecoderSettings)
    assert (settings.resume, settings.progress, settings.pivot, settings.data) == (True, False, "none", Path("d"))
    assert tuple(settings.lora.modules) == ("q_proj",)
    assert parse_settings("encoder", ["--run", "r", "--images", "random"]) == EncoderSettings(
        run=Path("r"), images="random"
    )


def test_a_config_extends_another(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("extends: miniature\nword_dropout: 0.25\nloop: {steps: 9}\n")
    (tmp_path / "mine.yaml").write_text("extends: base.yaml\nloop: {batch_size: 3}\n")
    settings = parse_settings("encoder", ["--config", str(tmp_path / "mine.yaml"), "--run", "r", "--seed", "2"])
    miniature = parse_settings("encoder", ["--config", "miniature", "--run", "r"])
    assert (settings.word_dropout, settings.loop.steps, settings.loop.batch_size) == (0.25, 9, 3)
    assert settings.sizes == miniature.sizes and settings.optimizer == miniature.optimizer and settings.seed == 2
    (tmp_path / "base.yaml").write_text("extends: mine.yaml\n")
    with pytest.raises(InputError, match="mine.yaml extends itself"):
        parse_settings("encoder", ["--config", str(tmp_path / "mine.yaml"), "--run", "r"])
    (tmp_path / "base.yaml").write_text("a: [")
    with pytest.raises(InputError, match="base.yaml cannot be read as YAML"):
        parse_settings("encoder", ["--config", str(tmp_path / "base.yaml"), "--run", "r"])


def test_places_in_the_run_are_found_there() -> None:
    arguments = ["--run", "runs/x", "--parts.generator", "RUN/parts/g", "--parts.encoder", "RUN/e"]
    settings = parse_settings("rl", [*arguments, "--parts.rewards", '["image-reward=RUN/parts/r", "other/RUN/"]'])
    assert settings.parts.generator == "runs/x/parts/g" and settings.parts.encoder == Path("runs/x/e")
    assert tuple(settings.parts.rewards) == ("image-reward=runs/x/parts/r", "other/RUN/")


@pytest.mark.parametrize("flag", ["--push_to_hub", "--push-to-hub"])
def test_flags_may_be_spelled_with_dashes(flag: str) -> None:
    for form in ([flag, "some-one/my-refiner"], [f"{flag}=some-one/my-refiner"]):
        assert parse_settings("rl", ["--run", "r", *form]).push_to_hub == "some-one/my-refiner"
        assert parse_settings("export", ["--run", "r", "--to", "t", *form]).push_to_hub == "some-one/my-refiner"


def test_wrong_settings_are_one_line_not_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["encoder", "--run", str(tmp_path), "--loop.steps", "0"]) == 2
    assert "prip-train encoder: error: steps: wanted at least 1, got 0" in capsys.readouterr().err
    assert main(["encoder", "--run", str(tmp_path)]) == 1
    assert "prip-train prepare wrote" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"config: wanted a preset \(miniature, .*\) or a YAML file, got 'minature'"):
        parse_settings("encoder", ["--config", "minature", "--run", "r"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["encoder", "--run", "r", "--images", "best"], "images"),
        (["encoder", "--run", "r", "--lop.steps", "3"], "lop.steps"),
        (["encoder"], "run"),
        (["encode"], "encode"),
        ([], "stage"),
    ],
)
def test_what_cannot_be_parsed_is_named(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_a_stage_runs_as_a_command(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["encoder", "--config", "smoke", "--run", str(tmp_path), "--data", str(data), "--loop.steps", "4"]
    code = "import sys; from prip.training.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, *arguments, "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "vocab_size: 300" in done.stderr and "best dev_loss" in done.stderr and "Warning" not in done.stderr
    assert (tmp_path / "encoder" / "part" / "model.safetensors").exists()
    assert list((tmp_path / "encoder" / "logs").glob("events.out.tfevents*"))
    assert main(arguments) == 2 and "--resume" in capsys.readouterr().err


def test_without_the_extra_the_command_says_which(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    from prip.training.entry import main as entry

    monkeypatch.setitem(sys.modules, "jsonargparse", None)
    assert entry() == 1
    assert 'prip-train: error: jsonargparse is not installed; install it with: pip install "prip[train]"' in (
        capsys.readouterr().err
    )


def test_examples_in_the_help_parse(capsys: pytest.CaptureFixture[str]) -> None:
    for stage in ("export", "rewrites", "stand-ins", "rl"):
        with pytest.raises(SystemExit):
            main([stage, "--help"])
        shown = capsys.readouterr().out.split("examples:\n")[1].splitlines()
        examples = [line.split()[2:] for line in shown if "my.yaml" not in line and line.strip()]
        assert examples
        for words in examples:
            assert str(parse_settings(stage, words).run).startswith("runs/")
