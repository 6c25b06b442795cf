"""Text that people bring: with a byte order mark, with every end of line, and in other encodings."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from prip.config_files import read_config_chain
from prip.errors import CheckpointError, InputError
from prip.text_files import decode_text, lines_of, read_lines, read_text, stream_of

MARK = b"\xef\xbb\xbf"
PROMPTS = ["a cat\u2028on a\x0bmat\x0c, blue\x85sky", "a dog", "\ufeffan owl"]
"""Characters at which `str.splitlines` splits too, and a mark that does not begin the file."""
CONTENT = MARK + "\r\n".join(PROMPTS[:2]).encode() + b"\r" + PROMPTS[2].encode() + b"\n"

Reader = Callable[[Path, pytest.MonkeyPatch], list[str]]


def from_stdin(path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    from prip.inference.commands.refine import read_lines

    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))
    return read_lines()


def from_prompt_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    from prip.inference.evaluation.kinds.prompt_files import read_prompt_lines

    return [line.prompt for line in read_prompt_lines(path)]


def from_json_lines(path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    from prip.inference.evaluation.kinds.prompt_files import read_json_lines

    lines = [json.dumps({"prompt": line, "tag": ""}, ensure_ascii=False) for line in read_lines(path)]
    path.write_bytes(MARK + "\r\n".join(lines).encode())
    return [line.prompt for line in read_json_lines(path, "prompt", "tag")]


def from_evaluation_set(path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    from prip.training.data.evaluation_sets import read_evaluation_prompts

    return read_evaluation_prompts(path, "prompt")


def from_evaluation_table(path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    table = path.with_suffix(".tsv")
    table.write_bytes(path.read_bytes().replace(MARK, MARK + b"prompt\r", 1))
    return from_evaluation_set(table, monkeypatch)


@pytest.mark.parametrize(
    "reader", [from_stdin, from_prompt_file, from_json_lines, from_evaluation_set, from_evaluation_table]
)
def test_every_reader_finds_the_same_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: Reader) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes(CONTENT)
    assert reader(path, monkeypatch) == PROMPTS


@pytest.mark.parametrize(
    ("reader", "error"),
    [(from_stdin, InputError), (from_prompt_file, InputError), (from_evaluation_set, CheckpointError)],
)
def test_every_reader_names_the_line_and_the_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: Reader, error: type[Exception]
) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes(MARK + "é\r\nb\rc\nd".encode() + b"\xffe\n")
    with pytest.raises(error, match=r"(prompts\.txt|standard input), line 4: expected UTF-8, got byte 0xff$"):
        reader(path, monkeypatch)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", []),
        ("\n", [""]),
        ("a", ["a"]),
        ("a\n", ["a"]),
        ("a\n\r\n\rb\r", ["a", "", "", "b"]),
        ("\u2029a\x1c\x1d\x1e", ["\u2029a\x1c\x1d\x1e"]),
    ],
)
def test_lines_end_at_line_breaks_alone(text: str, lines: list[str]) -> None:
    assert lines_of(text) == lines
    assert [row[0] if row else "" for row in csv.reader(stream_of(text))] == lines


def test_line_breaks_stay_within_quoted_fields() -> None:
    assert list(csv.reader(stream_of('a,"b\r\nc\rd"\re,f'))) == [["a", "b\r\nc\rd"], ["e", "f"]]


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere cannot be read: No such file or directory$"):
        read_text(tmp_path / "nowhere")
    with pytest.raises(InputError, match="^prompts cannot be read: Is a directory$"):
        read_text(tmp_path, "prompts")
    with pytest.raises(InputError, match="^key, line 1: expected UTF-8, got byte 0xfe$"):
        decode_text("a cat".encode("utf-16-be").join([b"\xfe\xff", b""]), "key")


def test_a_config_in_another_encoding_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(MARK + b"a: 1\r\nb: 2\n")
    assert read_config_chain(str(path), {}) == {path: {"a": 1, "b": 2}}
    path.write_bytes(b"a: 1\nb: caf\xe9\n")
    with pytest.raises(InputError, match=r"config: .*config\.yaml, line 2: expected UTF-8, got byte 0xe9$"):
        read_config_chain(str(path), {})


def test_the_reader_is_light() -> None:
    code = "import sys, prip.text_files; print({'torch', 'numpy', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr
