"""What `prip` says of arguments that it cannot read."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from prip.command_line import Parser
from prip.inference.cli import COMMANDS, main
from prip.inference.commands import evaluate

COMMAND_NAMES = "refine, compare, demo, serve, install, evaluate or annotate"
BAD = {
    (
        "refine",
        "a cat",
        "--strenght",
        "0.5",
    ): "prip refine: error: unknown argument --strenght; did you mean --strength?",
    (
        "refine",
        "a cat",
        "--num_alternatives=3",
    ): "unknown argument --num_alternatives=3; did you mean --num-alternatives?",
    ("refine", "a cat", "--checkpoint", "x"): "unknown argument --checkpoint; did you mean --model?",
    ("refine", "a cat", "--file", "x"): "unknown argument --file (all arguments: prip refine --help)",
    ("compare", "a cat", "-o", "x.png", "--model", "x"): "unknown argument --model; did you mean --checkpoint?",
    ("refine", "a cat", "--qqq"): "prip refine: error: unknown argument --qqq (all arguments: prip refine --help)",
    ("refin", "a cat"): f"prip: error: COMMAND: expected {COMMAND_NAMES}, got 'refin'; did you mean refine?",
    ("help",): "got 'help'; did you mean --help?",
    ("-v",): "prip: error: unknown argument -v; did you mean --version?",
    ("compare", "a cat", "a dog", "-o", "x.png"): "prip compare: error: too many arguments: expected PROMPT, got "
    "'a dog' as well; put quotes around text with spaces",
    ("compare", "a cat"): '-o/--output is missing, as in: prip compare "a cat" -o cat.png',
    ("serve", "now"): "prip serve: error: too many arguments: expected none, got 'now' as well (all",
    ("evaluate", "--out", "x", "--progress", "perhaps"): "--progress: expected true or false, got 'perhaps'",
    ("refine", "a cat", "--seed", "one"): "--seed: expected a whole number, got 'one'",
    ("refine", "a cat", "--strength", "much"): "--strength: expected a number, got 'much'",
    ("refine", "a cat", "-n"): "-n/--num-alternatives: expected a value, got none",
    ("refine", "a cat", "--dtype", "int4"): "--dtype: expected float32, float16, bfloat16 or auto, got 'int4'",
    ("install",): "PROGRAM and FOLDER are missing, as in: prip install comfyui ~/ComfyUI",
    ("install", "comfy", "x"): "PROGRAM: expected comfyui or webui, got 'comfy'; did you mean comfyui?",
    ("evaluate", "--out", "x", "--run", "y", "--checkpoint", "z"): "--checkpoint: not allowed with argument --run",
}


@pytest.mark.parametrize("arguments", BAD, ids=" ".join)
def test_what_cannot_be_read_is_one_line_that_says_what_was_meant(arguments: tuple[str, ...], capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    told = capsys.readouterr().err
    assert stop.value.code == 2 and BAD[arguments] in told
    assert told.startswith("prip") and len(told.splitlines()) == 1


def test_every_command_has_an_example_that_is_shown_where_something_is_missing() -> None:
    for command in COMMANDS:
        name = command.__name__.rpartition(".")[2].removesuffix("_command")
        assert f"\n  prip {name}" in command.EXAMPLES


@pytest.mark.parametrize("command", ["prip.inference.cli --help", "prip.inference.cli refine --strength 0 -", "TRAIN"])
@pytest.mark.parametrize("output", ["left by its reader", "full"])
def test_output_that_nobody_takes_ends_the_command_without_a_traceback(command: str, output: str) -> None:
    train = ["-c", "import sys; from prip.training.cli.entry import main; sys.exit(main())", "--help"]
    words = train if command == "TRAIN" else ["-m", *command.split()]
    with subprocess.Popen(["sleep", "0"], stdin=subprocess.PIPE) as reader, open("/dev/full", "wb") as full:
        reader.wait()
        taken = {"stdout": reader.stdin if output != "full" else full, "stderr": subprocess.PIPE}
        buffered = {**os.environ, "PYTHONUNBUFFERED": ""}
        done = subprocess.run([sys.executable, *words], input=b"a cat\n" * 50_000, env=buffered, **taken)
    expected = (141, 0) if output != "full" else (1, 1)
    assert (done.returncode, len(done.stderr.splitlines())) == expected, done.stderr
    assert output != "full" or b"error: No space left on device" in done.stderr


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--progress", "false"], False),
        (["--progress=false"], False),
        (["--no-progress"], False),
        (["--quiet"], False),
        (["--progress"], True),
        ([], True),
    ],
)
def test_progress_bars_of_an_evaluation_are_switched_as_in_training(words: list[str], shown: bool) -> None:
    parser = Parser(prog="prip")
    evaluate.add_parser(parser.add_subparsers())
    assert parser.parse_args(["evaluate", "--out", "x", *words]).progress is shown
