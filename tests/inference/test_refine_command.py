"""`prip refine` as a user runs it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import prip
from prip.inference.cli import build_parser, main
from prip.options import RefineOptions
from prip.refiner import Refiner

COMMAND = [sys.executable, "-m", "prip.inference.cli", "refine"]


def run(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess:
    """Run the command in a process of its own."""
    return subprocess.run([*COMMAND, *arguments], input=stdin, capture_output=True, timeout=120)


def test_one_prompt(tiny_checkpoint: Path) -> None:
    result = run("a cat", "--model", str(tiny_checkpoint), "--device", "cpu")
    assert result.returncode == 0, result.stderr
    wanted = Refiner.from_pretrained(tiny_checkpoint, device="cpu").refine("a cat")
    assert result.stdout.decode() == wanted + "\n"
    assert result.stderr == b""


BAD = {
    "prompt 1: expected at least one word, got an empty string": [""],
    "num_alternatives: expected a whole number of at least 1, got 0": ["a cat", "-n", "0"],
    "temperature: expected a number of at least 0": ["a cat", "--temperature", "nan"],
    "token_budget: expected a whole number of at least 1, got -3": ["a cat", "--token-budget", "-3"],
    "banned_terms: expected strings": ["a cat", "--banned-term", " "],
    "styles[0]: expected at least one word": ["a cat", "--style", ""],
    "strength: expected a number from 0 to 1, got -0.5": ["a cat", "--strength", "-0.5"],
    "unknown checkpoint 'nowhere'": ["a cat", "--model", "nowhere"],
    "revision: expected None for 'prip-mini'": ["a cat", "--revision", "v1"],
}


def test_bad_input_is_refused_before_anything_heavy_is_loaded() -> None:
    code = (
        "import sys; from prip.inference.cli import main; "
        f"print([main(['refine', *one]) for one in {[*BAD.values()]}]); "
        "heavy = {'torch', 'transformers', 'lightning', 'pandas', 'diffusers', 'numpy'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == [str([2] * len(BAD)), "[]"]
    for message, line in zip(BAD, result.stderr.splitlines(), strict=True):
        assert line.startswith(f"prip refine: error: {message}")


def test_refining_imports_nothing_superfluous(tiny_checkpoint: Path) -> None:
    code = (
        "import sys; from prip.inference.cli import main; "
        f"main(['refine', 'a cat', '--model', {str(tiny_checkpoint)!r}]); "
        "print(sorted({'lightning', 'pandas', 'diffusers', 'peft', 'jsonargparse'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip().splitlines()[-1] == "[]"


def invoke(capsys: pytest.CaptureFixture, *arguments: str) -> tuple[int, str, str]:
    """Run the command within this process."""
    code = main(["refine", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_several_prompts_and_options(tiny_checkpoint: Path, capsys) -> None:
    options = ["--seed", "3", "--temperature", "0.9", "--max-new-tokens", "9", "--token-budget", "40"]
    code, out, _ = invoke(
        capsys,
        "a cat",
        "a dog",
        "--model",
        str(tiny_checkpoint),
        *options,
        "--banned-term",
        "hour",
        "--banned-term",
        "golden",
        "--batch-size",
        "1",
        "--dtype",
        "float32",
        "--device",
        "cpu",
    )
    refiner = Refiner.from_pretrained(tiny_checkpoint, device="cpu")
    wanted = refiner.refine(
        ["a cat", "a dog"], seed=3, temperature=0.9, max_new_tokens=9, token_budget=40, banned_terms=["hour", "golden"]
    )
    assert (code, out.splitlines()) == (0, wanted)


def test_control(tiny_checkpoint: Path, capsys) -> None:
    given = ["--style", "golden hour", "--style", "ink", "--no-keep-attributes", "--no-artists", "--strength", "0.5"]
    _, out, _ = invoke(capsys, "a cat", "--model", str(tiny_checkpoint), "--device", "cpu", *given)
    refiner = Refiner.from_pretrained(tiny_checkpoint, device="cpu")
    options = {"keep_attributes": False, "no_artists": True, "strength": 0.5}
    assert out == refiner.refine("a cat", styles=["golden hour", "ink"], **options) + "\n"


def test_strength_0_turns_refinement_off_without_loading(capsys) -> None:
    code = (
        "import sys; from prip.inference.cli import main; "
        "main(['refine', 'a cat. ', '--strength', '0', '-n', '2']); print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("a cat. \nFalse\n", "")


def test_json_and_alternatives(tiny_checkpoint: Path, capsys) -> None:
    code, out, _ = invoke(capsys, "猫", "a dog", "--model", str(tiny_checkpoint), "-n", "3", "--json")
    records = json.loads(out)
    assert code == 0
    assert [record["user_prompt"] for record in records] == ["猫", "a dog"]
    assert [len(set(record["refined_prompts"])) for record in records] == [3, 3]
    assert all(text.startswith("猫, ") for text in records[0]["refined_prompts"])


def test_negative_prompts_follow_their_texts(tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["refine", "a cat", "no hats, a dog", "-n", "2", "--model", str(tiny_checkpoint), "--with-negative"]
    assert main(arguments) == 0
    for block in capsys.readouterr().out.rstrip("\n").split("\n\n"):
        lines = block.splitlines()
        for text, negative in zip(lines[::2], lines[1::2], strict=True):
            assert negative == f"Negative prompt: {prip.negative_prompt(text)}"
    assert main([*arguments, "--json"]) == 0
    for record in json.loads(capsys.readouterr().out):
        assert record["negative_prompts"] == [prip.negative_prompt(text) for text in record["refined_prompts"]]
    assert record["negative_prompts"][0].startswith("hats, ")


def test_alternatives_as_text_stand_apart(tiny_checkpoint: Path, capsys) -> None:
    _, out, _ = invoke(capsys, "a cat", "a dog", "--model", str(tiny_checkpoint), "-n", "2")
    lines = out.splitlines()
    assert [line.split(",")[0] for line in lines] == ["a cat", "a cat", "", "a dog", "a dog"]


@pytest.mark.parametrize("given", [[], ["-"]])
def test_lines_of_standard_input(tiny_checkpoint: Path, given: list[str]) -> None:
    result = run(*given, "--model", str(tiny_checkpoint), stdin="a cat\r\nein Hund über dem Fluß\n".encode())
    lines = result.stdout.decode().splitlines()
    assert result.returncode == 0, result.stderr
    assert lines[0].startswith("a cat, ")
    assert lines[1].startswith("ein Hund über dem Fluß, ")
    assert len(lines) == 2


@pytest.mark.parametrize("options", [[], ["--json"], ["-n", "2"]])
def test_a_blank_line_comes_back_where_it_stood(tiny_checkpoint: Path, options: list[str], monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\na cat\n \t\r\na dog\n\n")))
    code, out, err = invoke(capsys, *options, "--model", str(tiny_checkpoint), "--device", "cpu")
    number = 2 if "-n" in options else 1
    one, two = Refiner.from_pretrained(tiny_checkpoint, device="cpu").refine(
        ["a cat", "a dog"], num_alternatives=number
    )
    assert (code, err) == (0, "")
    if options == ["--json"]:
        wanted = {"": "", "a cat": one, " \t": " \t", "a dog": two}
        records = [
            {"user_prompt": line, "refined_prompts": [wanted[line]]} for line in ("", "a cat", " \t", "a dog", "")
        ]
        assert json.loads(out) == records
    elif number == 1:
        assert out == f"\n{one}\n \t\n{two}\n\n", "line for line"
    else:
        assert out.split("\n\n") == ["", "\n".join(one), " \t", "\n".join(two), "\n"]


@pytest.mark.parametrize(
    ("stdin", "message"),
    [
        (b"", "expected at least one prompt"),
        (b"\n \n", "expected at least one prompt"),
        (b"a cat\n\n,.\n", "line 3: "),
        (b"\xff\xfe", "expected UTF-8"),
    ],
)
def test_bad_standard_input(stdin: bytes, message: str) -> None:
    result = run(stdin=stdin)
    assert result.returncode == 2
    assert result.stdout == b""
    assert message in result.stderr.decode()
    assert result.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a\x07cat"], "control character"),
        (["a cat", "--temperature", "-1"], "temperature: expected a number of at least 0"),
        (["a cat", "--model", "no-such-model"], "unknown checkpoint 'no-such-model'"),
        (["a cat", "--model", "nobody/no-such-model"], "could not be reached"),
        (["a cat", "--device", "cuda:99"], "device: expected one of cpu"),
    ],
)
def test_errors_are_one_line_and_code_2(arguments: list[str], message: str, tiny_checkpoint: Path, capsys) -> None:
    if "--model" not in arguments:
        arguments = [*arguments, "--model", str(tiny_checkpoint)]
    code, out, err = invoke(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("prip refine: error: ")
    assert err.count("\n") == 1
    assert message in err


def test_a_full_prompt_warns_and_passes(tiny_checkpoint: Path, capsys) -> None:
    code, out, err = invoke(capsys, "a cat on a mat", "--model", str(tiny_checkpoint), "--token-budget", "6")
    assert (code, out) == (0, "a cat on a mat\n")
    assert err.startswith("prip refine: warning: 1 prompt was returned unchanged")


def test_a_file_in_place_of_a_prompt_is_noted(tiny_checkpoint: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my cats.txt").write_text("a cat\n")
    code, out, err = invoke(capsys, "my cats.txt", "a cat", "--model", str(tiny_checkpoint), "--device", "cpu")
    assert code == 0 and out.startswith("my cats.txt, ")
    assert err == "prip refine: note: my cats.txt is a file; its lines are refined by: prip refine < 'my cats.txt'\n"


def test_words_without_quotes_are_noted(capsys) -> None:
    code, out, err = invoke(capsys, "a", "cat", "--strength", "0")
    assert (code, out) == (0, "a\ncat\n")
    assert err == "prip refine: note: each word is a prompt of its own; as one prompt: prip refine 'a cat'\n"
    assert invoke(capsys, "a cat", "dog", "--strength", "0")[2] == ""


def test_prompts_are_utf_8_whatever_the_locale() -> None:
    """Python reads arguments by the locale: in that of LANG=C, where it is kept from taking another, as ASCII."""
    ascii_locale = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for given, status in (("\u732b".encode(), 0), (b"caf\xe9", 2)):
        command = [*COMMAND, given, "--strength", "0"]
        result = subprocess.run(command, env=ascii_locale, capture_output=True, timeout=120)
        assert result.returncode == status, result.stderr
        if status == 0:
            assert result.stdout == given + b"\n"
        else:
            assert b"PROMPT: expected UTF-8, got 'caf\\udce9'; set terminal and locale to UTF-8" in result.stderr


def test_what_is_no_checkpoint_and_no_device_is_told_before_torch_is_loaded(tmp_path: Path) -> None:
    bad = [["a cat", "--model", str(tmp_path)], ["a cat", "--device", "gpu"]]
    code = (
        "import sys; from prip.inference.cli import main\n"
        f"for one in {bad}:\n"
        "    try: print(main(['refine', *one]))\n"
        "    except SystemExit as stop: print(stop.code)\n"
        "print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["2", "2", "False"]
    first, second = result.stderr.splitlines()
    assert first == f"prip refine: error: {tmp_path} is not a PRIP checkpoint: {tmp_path / 'config.json'} is missing"
    wanted = "--device: expected cpu, cuda, cuda:1, mps or another torch device, got 'gpu'; did you mean cuda?"
    assert second.startswith(f"prip refine: error: {wanted}")


def test_help_shows_examples_and_every_option(capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["refine", "--help"])
    out = capsys.readouterr().out
    assert caught.value.code == 0
    assert 'prip refine "a cat" -n 4' in out
    options = ["--json", "--num-alternatives", "--seed", "--temperature", "--max-new-tokens", "--token-budget"]
    options += ["--style", "--no-keep-attributes", "--no-artists", "--strength"]
    for option in [*options, "--banned-term", "--model", "--revision", "--device", "--dtype", "--batch-size"]:
        assert option in out


def test_no_command_prints_help(capsys) -> None:
    assert main([]) == 2
    assert "prip refine" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("prip ")


def test_defaults_are_those_of_refine() -> None:
    parsed = vars(build_parser().parse_args(["refine", "a cat"]))
    options = vars(RefineOptions())
    for name in ("banned_terms", "styles"):
        assert tuple(parsed.pop(name)) == options.pop(name)
    assert {name: parsed[name] for name in options} == options
