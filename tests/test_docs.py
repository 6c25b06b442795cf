"""README.md and CONTRIBUTING.md: their commands exist and accept the flags shown, and their links lead somewhere."""

from __future__ import annotations

import functools
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ("README.md", "CONTRIBUTING.md")
OTHER_PROGRAMS = {"python3", ".", "pip", "pytest", "make"}


def shell_commands() -> list[tuple[str, ...]]:
    """Every simple command in the ```sh fences of the documents, split into words, each once."""
    commands = {}
    for document in DOCUMENTS:
        for fence in re.findall(r"^```sh\n(.*?)^```", (ROOT / document).read_text(encoding="utf-8"), re.M | re.S):
            for line in fence.splitlines():
                for simple in line.split("&&"):
                    words = tuple(shlex.split(simple, comments=True))
                    if words:
                        commands[words] = None
    return list(commands)


def commands_of(*programs: str) -> list[tuple[str, ...]]:
    return [words for words in shell_commands() if words[0] in programs]


@functools.cache
def help_text(program: str, subcommand: str) -> str:
    script = Path(sys.executable).parent / program
    process = subprocess.run([script, subcommand, "--help"], capture_output=True, text=True)
    assert process.returncode == 0, f"{program} {subcommand} --help:\n{process.stdout}\n{process.stderr}"
    return process.stdout


def test_every_command_is_known() -> None:
    programs = {words[0] for words in shell_commands()}
    assert programs <= OTHER_PROGRAMS | {"prip", "prip-train"}
    assert {"prip", "prip-train", "make", "pytest"} <= programs


@pytest.mark.parametrize("words", commands_of("prip", "prip-train"), ids=" ".join)
def test_commands_of_ours_accept_the_flags_shown(words: tuple[str, ...]) -> None:
    program, subcommand, *arguments = words
    text = help_text(program, subcommand)
    for flag in (argument.split("=")[0] for argument in arguments if argument.startswith("-")):
        assert re.search(rf"(?<![\w-]){re.escape(flag)}(?![\w-])", text), f"{program} {subcommand} does not know {flag}"


def test_the_python_lines_of_the_readme_run() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", readme, re.S)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    assert {target for words in commands_of("make") for target in words[1:]} <= targets


def test_the_makefile_trains_as_the_readme_says() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("$(RUN)", "runs/miniature")
    recipe = makefile.split("\nminiature:")[1].split("\n\n")[0].splitlines()[1:]
    readme = (ROOT / "README.md").read_text(encoding="utf-8").split("## Train the miniature")[1]
    shown = readme.split("```sh\n")[2].split("```")[0].splitlines()
    assert [line.strip() for line in recipe] == shown


def test_relative_links_lead_somewhere() -> None:
    documents = [ROOT / name for name in (*DOCUMENTS, "CHANGELOG.md")] + sorted((ROOT / "docs").rglob("*.md"))
    broken = []
    for document in documents:
        text = document.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"<img[^>]+src=\"([^\"]+)\"", text):
            relative = target.split("#")[0]
            if relative and "://" not in relative and not (document.parent / relative).exists():
                broken.append(f"{document.relative_to(ROOT)}: {target}")
    assert broken == []
