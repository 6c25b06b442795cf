"""The command prip-train."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import yaml

from prip.errors import InputError
from prip.training.cli.command import STAGES, _resuming_command, main, parse_settings, preset_files
from prip.training.runs.run_folder import log_held_lines
from prip.training.settings import DecoderSettings, EncoderSettings, RunSettings


def test_help_names_every_stage_and_loads_no_model_library() -> None:
    code = (
        "import sys; from prip.training.cli.command import main\n"
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
    assert "Probability of replacing a word" in text and "--optimizer.lr" in text and "--resume" in text
    assert f"prip-train {stage} --config miniature --run runs/miniature" in text


def shown_help(stage: str, flag: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        main([stage, flag])
    assert stop.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("stage", STAGES)
def test_help_shows_what_matters_first_and_all_of_it_on_request(stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    short, whole, again = (shown_help(stage, flag, capsys) for flag in ("--help", "--help-all", "--help"))
    assert short == again and "--help-all" in short and len(short.splitlines()) < 80
    flags = {
        name: set(re.findall(r"^  --(\w[\w.]*)", text, re.M)) - {"help"}
        for name, text in (("short", short), ("whole", whole))
    }
    assert set(STAGES[stage].first) <= flags["short"] <= flags["whole"]
    groups = {name for name in flags["whole"] if any(other.startswith(f"{name}.") for other in flags["whole"])}
    left_out = len(flags["whole"] - groups - flags["short"])
    assert (f"{left_out} more settings: prip-train {stage} --help-all" in short) == bool(left_out)
    assert len(flags["short"]) <= 16 and "more settings" not in whole and "examples:" in short


def test_the_short_help_of_rl_is_a_dozen_of_sixty(capsys: pytest.CaptureFixture[str]) -> None:
    short, whole = (shown_help("rl", flag, capsys) for flag in ("--help", "--help-all"))
    assert len(short.splitlines()) < 80 < 200 < len(whole.splitlines())
    assert "--rollouts.chunk.refine" in whole and "--rollouts.chunk.refine" not in short and "--ppo.kl" in short


@pytest.mark.parametrize("stage", ["encoder", "decoder"])
def test_printed_configs_come_back_as_they_were(stage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peers = {"encoder": [], "decoder": ["rew-log", "rew-syn"]}[stage]
    assert list(preset_files(stage)) == sorted(
        ["miniature", "modern", "paper", "paper-dry", "smoke", "tinyllama", *peers]
    )
    with pytest.raises(SystemExit):
        parse_settings(stage, ["--config", "miniature", "--run", "runs/x", "--loop.steps", "7", "--print_config"])
    path = tmp_path / "mine.yaml"
    path.write_text(capsys.readouterr().out)
    assert yaml.safe_load(path.read_text())["loop"]["steps"] == 7
    again = parse_settings(stage, [f"--config={path}", "--seed=5"])
    once = parse_settings(stage, ["--config=miniature", "--run=runs/x", "--loop.steps=7", "--seed=5"])
    assert again == once and (again.run, again.seed, again.loop.steps) == (Path("runs/x"), 5, 7)


def test_a_config_is_printed_without_the_required_settings(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["encoder", "--config", "paper", "--print_config"])
    assert stop.value.code == 0 and yaml.safe_load(capsys.readouterr().out)["loop"]["steps"] == 3516


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


@pytest.mark.parametrize("stage", ["encoder", "prepare", "rl"])
@pytest.mark.parametrize("words", [["--progress", "false"], ["--progress=false"], ["--no-progress"], ["--no_progress"]])
def test_a_switch_takes_the_value_that_settings_yaml_shows(stage: str, words: list[str]) -> None:
    settings = parse_settings(stage, ["--run", "r", *words, "--seed", "3"])
    assert isinstance(settings, RunSettings) and (settings.progress, settings.seed) == (False, 3)
    for given in (["--resume"], ["--resume", "true"], ["--resume=True"], ["--no-resume", "--resume"]):
        resumed = parse_settings(stage, ["--run", "r", *given, "--progress"])
        assert isinstance(resumed, RunSettings) and resumed.resume and resumed.progress


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
    with pytest.raises(InputError, match="base.yaml is not valid YAML"):
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
    assert "prip-train encoder: error: loop.steps: expected at least 1, got 0" in capsys.readouterr().err
    assert main(["rl", "--run", str(tmp_path), "--rollouts.chunk.update", "0"]) == 2
    assert "error: rollouts.chunk.update: expected at least 1, got 0" in capsys.readouterr().err
    assert main(["world", "--run", str(tmp_path), "--unet.patch_size", "6"]) == 2
    assert "error: unet.patch_size: expected a power of two, got 6" in capsys.readouterr().err
    for stage, status, message in (
        ("encoder", 1, "prip-train prepare wrote"),
        ("rl", 1, "run `prip-train world` first"),
    ):
        assert main([stage, "--run", str(tmp_path)]) == status
        told = capsys.readouterr().err
        assert message in told and len(told.splitlines()) == 1, "the error alone"
    with pytest.raises(InputError, match=r"config: expected a preset \(miniature, .*\) or a YAML file, got 'minature'"):
        parse_settings("encoder", ["--config", "minature", "--run", "r"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["encoder", "--run", "r", "--images", "best"], "images: expected preferred or random, got 'best'"),
        (["encoder", "--run", "r", "--lop.steps", "3"], "unknown argument --lop.steps; did you mean --loop.steps?"),
        (["encoder", "--run", "r", "--progress", "perhaps"], "progress: expected true or false, got 'perhaps'"),
        (["encoder", "--run", "r", "--loop.steps", "few"], "loop.steps: expected an integer, got 'few'"),
        (["encoder", "--run", "r", "--optimizer.lr", "fast"], "optimizer.lr: expected a number, got 'fast'"),
        (
            ["world", "--run", "r", "--parts", "trunk"],
            "parts: expected a list such as '[\"one\", \"two\"]', got 'trunk'",
        ),
        (
            ["rl", "--offload", "unet"],
            "offload: expected a list of generator, rewards or decoder such as '[\"generator\"]'",
        ),
        (["encoder"], "run: expected a folder, as in --run FOLDER, got none"),
        (
            ["encode"],
            "encoder, decoder, rl, tune or export, got 'encode'; did you mean encoder?",
        ),
        ([], "stage is missing, as in: prip-train world --config miniature"),
    ],
)
def test_what_cannot_be_parsed_is_named(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    told = capsys.readouterr().err
    assert stop.value.code == 2 and message in told
    assert len(told.splitlines()) == 1, "without the usage"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("loop: {stepps: 3}", "unknown setting loop.stepps; did you mean loop.steps?"),
        ("loop: 3", "loop: expected a mapping of settings, got 3"),
        ("- 3", "got list"),
        ("", "got nothing"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    try:
        status = main(["encoder", "--config", str(tmp_path / "mine.yaml"), "--run", "r"])
    except SystemExit as stop:
        status = stop.code
    assert status == 2 and message in capsys.readouterr().err


def test_wrong_settings_are_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    """Neither torch nor transformers is there: what an earlier run holds is seen in its settings.yaml alone."""
    code = (
        "import sys; from prip.training.cli.command import main\n"
        "status = main(sys.argv[1:]); print({'torch', 'transformers'} & set(sys.modules)); sys.exit(status)"
    )
    (tmp_path / "rl").mkdir()
    (tmp_path / "rl" / "settings.yaml").write_text("seed: 7\n")
    run = ["rl", "--run", str(tmp_path)]
    for arguments, message in (
        (["rl", "--config", "nonexistent"], "got 'nonexistent'"),
        (run, "add --resume to continue or"),
        ([*run, "--resume"], "seed was 7, is 0"),
        ([*run, "--loop.steps", "0"], "loop.steps: expected at least 1"),
    ):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
        assert done.returncode == 2 and message in done.stderr and done.stdout == "set()\n", done.stderr


def test_a_stage_begins_with_what_differs_from_its_preset(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="prip")
    (tmp_path / "mine.yaml").write_text("extends: miniature\nword_dropout: 0.25\n")
    flags = ["--run", "runs/x", "--loop.steps", "7", "--resume"]
    for stage, arguments in (
        ("encoder", ["--config", str(tmp_path / "mine.yaml"), *flags]),
        ("encoder", ["--config", "miniature", "--run", "runs/x"]),
        ("rl", ["--run", "runs/x", "--offload", '["generator"]', "--parts.generator", "RUN/g"]),
        ("export", ["--run", "runs/x", "--to", "there", "--private"]),
    ):
        parse_settings(stage, arguments)
        log_held_lines()
    log_held_lines()
    assert caplog.messages == [
        "prip-train encoder, preset miniature, except:\n  loop.steps: 7\n  word_dropout: 0.25\n"
        "all settings: runs/x/encoder/settings.yaml, or --print_config",
        "prip-train encoder, preset miniature\nall settings: runs/x/encoder/settings.yaml, or --print_config",
        'prip-train rl, the defaults, except:\n  offload: ["generator"]\n  parts.generator: RUN/g\n'
        "all settings: runs/x/rl/settings.yaml, or --print_config",
        "prip-train export, the defaults, except:\n  private: true",
    ]


@pytest.mark.parametrize("words", [["--overwrite"], ["--overwrite=true"], ["--overwrite", "True"], ["--resume"]])
def test_the_command_that_continues_has_no_overwrite(words: list[str]) -> None:
    assert _resuming_command(["rl", *words, "--run", "r"]) == "prip-train rl --run r --resume"


def test_an_interrupted_stage_says_how_to_go_on(tmp_path: Path, data: Path) -> None:
    flags = ["--config", "smoke", "--run", str(tmp_path / "a run"), "--data", str(data), "--device", "cpu"]
    arguments = ["encoder", *flags, "--loop.steps", "100000", "--loop.checkpoint_every", "2", "--overwrite"]
    code = "import sys; from prip.training.cli.command import main; sys.exit(main())"
    command = [sys.executable, "-c", code, *arguments]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a job in the background begins deaf to Ctrl-C
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heard) as process:
        try:
            for _ in range(3000):
                if (tmp_path / "a run" / "encoder" / "state" / "last.ckpt").exists() or process.poll() is not None:
                    break
                time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            told = process.communicate(timeout=60)[1]
        finally:
            process.kill()
    assert process.returncode == 130, told
    last = told.splitlines()[-1]
    assert last.startswith("prip-train encoder: interrupted; to continue: prip-train encoder --config smoke --run '")
    assert last.endswith("a run' " + " ".join(arguments[5:-1]) + " --resume") and "Traceback" not in told


def test_a_stage_runs_as_a_command(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["encoder", "--config", "smoke", "--run", str(tmp_path), "--data", str(data), "--loop.steps", "4"]
    code = "import sys; from prip.training.cli.entry import main; sys.exit(main())"
    command = [sys.executable, "-c", code, *arguments, "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "preset smoke, except:" in done.stderr and "  loop.steps: 4\n" in done.stderr
    assert "vocab_size: 300" in (tmp_path / "encoder" / "settings.yaml").read_text()
    assert "vocab_size" not in done.stderr and "best dev_loss" in done.stderr and "Warning" not in done.stderr
    assert "logging interval" not in done.stderr and done.stderr.startswith("prip-train encoder, preset smoke")
    assert (tmp_path / "encoder" / "part" / "model.safetensors").exists()
    assert list((tmp_path / "encoder" / "logs").glob("events.out.tfevents*"))
    assert main(arguments) == 2 and "--resume" in capsys.readouterr().err


def test_without_the_extra_the_command_says_which(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    from prip.training.cli.entry import main as entry

    monkeypatch.setitem(sys.modules, "jsonargparse", None)
    monkeypatch.setattr(sys, "argv", ["prip-train", "rl", "--help"])
    assert entry() == 1
    assert 'prip-train rl: error: jsonargparse is not installed; run in a clone of PRIP: pip install ".[train]"' in (
        capsys.readouterr().err
    )


def test_without_the_extra_the_stages_are_told() -> None:
    code = (
        "import sys\n"
        "for module in ('docstring_parser', 'jsonargparse', 'yaml'): sys.modules[module] = None\n"
        "from prip.training.cli.entry import main; sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and all(stage in done.stdout for stage in STAGES), done.stderr


def test_examples_in_the_help_parse(capsys: pytest.CaptureFixture[str]) -> None:
    for stage in ("export", "rewrites", "stand-ins", "rl"):
        with pytest.raises(SystemExit):
            main([stage, "--help"])
        shown = capsys.readouterr().out.split("examples:\n")[1].splitlines()
        examples = [line.split()[2:] for line in shown if "my.yaml" not in line and line.strip()]
        assert examples
        for words in examples:
            assert str(parse_settings(stage, words).run).startswith("runs/")
