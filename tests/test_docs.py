"""The documents: commands and Python run, flags exist, messages are as shown, links resolve, the site builds."""

from __future__ import annotations

import ast
import doctest
import functools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from documents import DOCUMENTS, NOT_RUN, ROOT, Command, commands, fences, inline_commands
from markdown import Markdown
from mkdocs.config import load_config

import prip
from prip.training.cli.stages import STAGES

OTHER_PROGRAMS = {"python3", ".", "pip", "pytest", "make", "cat", "cp", "curl", "docker", "echo", "export", "head"}
OTHER_PROGRAMS |= {"hf", "ln", "mkdir", "mkdocs", "python"}
SERVERS = re.compile(r"^prip (serve|demo|annotate(?!.*--(summary|export)))\b")
"""Commands that run until they are stopped."""
PYTHON_NOT_RUN = re.compile(r"with_refiner\(pipe\)|owner/name|stable-diffusion|cuda|push_to_hub|OpenAI\(")
OF_A_PIPELINE = "docs/diffusers.md"
"""A page whose Python needs a pipeline; tests/prip/test_docs_diffusers.py gives it one."""
SLOW = {f"docs/{page}.md" for page in ("annotate", "evaluate", "page", "paper", "results", "server", "training")}
"""Pages on which something is trained, drawn or measured."""
PAGES = [
    pytest.param(document, marks=[pytest.mark.slow] if document in SLOW else [])
    for document in DOCUMENTS
    if any(command.runs for command in commands(document))
]


def commands_of(*programs: str) -> list[tuple[str, ...]]:
    """Return every simple command of these programs in the documents, each once."""
    shown = [command for name in DOCUMENTS for command in (*commands(name), *inline_commands(name))]
    words_of = {tuple(words): None for command in shown for words in command.simple}
    return [words for words in words_of if words[0] in programs]


@functools.cache
def help_text(program: str, subcommand: str) -> str:
    script = Path(sys.executable).parent / program
    flag = "--help-all" if program == "prip-train" and subcommand in STAGES else "--help"
    process = subprocess.run([script, subcommand, flag], capture_output=True, text=True)
    assert process.returncode == 0, f"{program} {subcommand} {flag}:\n{process.stdout}\n{process.stderr}"
    return process.stdout


def test_every_command_is_known() -> None:
    programs = {words[0] for name in DOCUMENTS for one in commands(name) for words in one.simple}
    assert programs <= OTHER_PROGRAMS | {"prip", "prip-train"}
    assert {"prip", "prip-train", "make", "pytest"} <= programs


@pytest.mark.parametrize("words", commands_of("prip", "prip-train"), ids=" ".join)
def test_commands_of_ours_accept_the_flags_shown(words: tuple[str, ...]) -> None:
    program, subcommand, *arguments = words
    text = help_text(program, subcommand)
    for flag in (argument.split("=")[0] for argument in arguments if argument.startswith("-")):
        assert re.search(rf"(?<![\w-]){re.escape(flag)}(?![\w-])", text), f"{program} {subcommand} does not know {flag}"


def test_every_reason_not_to_run_a_command_is_used() -> None:
    lines = [command.line for document in DOCUMENTS for command in commands(document)]
    assert [reason for pattern, reason in NOT_RUN.items() if not any(re.search(pattern, line) for line in lines)] == []


@pytest.fixture
def room(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Return a reader's environment: our commands first on the path, a home with two hosts' folders, no network."""
    for host in ("ComfyUI/custom_nodes", "stable-diffusion-webui/extensions"):
        (tmp_path / "home" / host).mkdir(parents=True)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    yield {**os.environ, "PATH": path, "HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}


@pytest.mark.parametrize("document", PAGES)
def test_the_commands_of_a_page_run_one_after_the_other(document: str, room: dict[str, str], tmp_path: Path) -> None:
    place = tmp_path / "work"
    place.mkdir()
    servers: list[subprocess.Popen[str]] = []
    try:
        for command in commands(document):
            if command.runs is None:
                continue
            if SERVERS.match(command.line):
                stop(servers)
                servers.append(serve(command, room, place))
            else:
                process = subprocess.run(
                    ["bash", "-o", "pipefail", "-c", command.runs],
                    cwd=place,
                    env=room,
                    capture_output=True,
                    text=True,
                    stdin=subprocess.DEVNULL,
                )
                assert process.returncode == 0, f"{command.runs}\n{process.stdout[-3000:]}\n{process.stderr[-3000:]}"
    finally:
        stop(servers)


def serve(command: Command, room: dict[str, str], place: Path) -> subprocess.Popen[str]:
    """Start a server as it is shown, and wait until it prints its address."""
    assert command.runs is not None
    quiet = command.runs + (" --no-open" if command.line.startswith("prip demo") else "")
    log = place / f"server-{len(list(place.glob('server-*')))}.log"
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {quiet}"], cwd=place, env=room, stdout=stream, stderr=subprocess.STDOUT, text=True
        )
    for _ in range(600):
        if "http://" in log.read_text(encoding="utf-8"):
            return process
        assert process.poll() is None, log.read_text(encoding="utf-8")
        time.sleep(0.2)
    process.kill()
    raise AssertionError(f"{command.line} printed no address within two minutes: {log.read_text(encoding='utf-8')}")


def stop(servers: list[subprocess.Popen[str]]) -> None:
    """Stop the servers that are still running, as Ctrl-C does."""
    while servers:
        process = servers.pop()
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


@pytest.mark.parametrize("document", [name for name in DOCUMENTS if fences(name, "python") and name != OF_A_PIPELINE])
def test_the_python_lines_of_a_page_run(document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in fences(document, "python"):
        if not PYTHON_NOT_RUN.search(block):
            exec(compile(block, document, "exec"), names)


@pytest.mark.parametrize("document", [name for name in DOCUMENTS if fences(name, "pycon")])
def test_the_python_sessions_of_a_page_print_what_they_show(document: str) -> None:
    session = "\n".join(fences(document, "pycon"))
    test = doctest.DocTestParser().get_doctest(session, {}, document, document, 0)
    assert test.examples
    results = doctest.DocTestRunner().run(test)
    assert results.failed == 0


def test_the_readme_is_short_and_has_the_marked_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.encode()) <= 9_000
    assert re.findall(r"^<!-- \.ci/run: (\w+) -->\n```sh\npython3 -m venv", text, re.M) == ["try", "tests"]


def shown_failures(document: str) -> list[tuple[str, str]]:
    """Return the commands of a page's console fences, each with the message below it."""
    return [tuple(fence.removeprefix("$ ").strip().split("\n", 1)) for fence in fences(document, "console")]


@pytest.mark.parametrize(("line", "message"), shown_failures("docs/troubleshooting.md"))
def test_what_goes_wrong_says_what_the_page_says(line: str, message: str, room: dict[str, str], tmp_path: Path) -> None:
    process = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=room, capture_output=True, text=True)
    assert message.strip() in process.stderr.splitlines()
    assert "Traceback" not in process.stderr
    assert (process.returncode == 0) == ("warning: " in message)


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets, variables = (set(re.findall(pattern, makefile, re.M)) for pattern in (r"^([\w-]+):", r"^(\w+) \?="))
    arguments = {argument for words in commands_of("make") for argument in words[1:]}
    assert {argument for argument in arguments if "=" not in argument} <= targets
    assert {argument.split("=")[0] for argument in arguments if "=" in argument} <= variables


def test_the_makefile_trains_as_the_page_says() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("$(RUN)", "runs/miniature")
    makefile = makefile.replace("$(CONFIG)", "miniature")
    recipe = makefile.split("\nminiature:")[1].split("\n\n")[0].splitlines()[1:]
    shown = fences("docs/training.md", "sh")[1].splitlines()
    assert [line.strip() for line in recipe] == shown


def test_the_architecture_shows_what_is_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    walks = [re.findall(r"^\d+\. \[([\w/.]+)\]", section, re.M) for section in text.split("\n## ")]
    walks = [files for files in walks if files]
    assert len(walks) == 2 and all(len(files) == len(set(files)) for files in walks), "no file twice on a walk"
    assert [path for files in walks for path in files if not (ROOT / path).is_file()] == []
    (tree,) = re.findall(r"^```\n(prip/ .*?)^```", text, re.M | re.S)
    package, missing = "", []
    for line in tree.splitlines():
        name = line.split()[0]
        package = package if line.startswith(" ") else name
        path = ROOT / (package + name if line.startswith(" ") else name)
        missing += [str(path)] if not path.exists() else []
    assert missing == []
    shown = {name.rstrip("/") for name in re.findall(r"^  (\w+/) ", tree, re.M)}
    packages = [ROOT / name for name in ("prip", "training", "inference")]
    rooms = {path.parent.name for package in packages for path in package.glob("*/__init__.py")}
    assert rooms - shown == set(), "folders that the tree lacks"


def test_relative_links_lead_somewhere() -> None:
    broken = []
    for document in DOCUMENTS:
        text = (ROOT / document).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"(?:src|srcset)=\"([^\"]+)\"", text):
            relative = target.split("#")[0]
            if relative and "://" not in relative and not ((ROOT / document).parent / relative).exists():
                broken.append(f"{document}: {target}")
    assert broken == []


def text_outside_tables_and_code(html: str) -> list[str]:
    """Return the lines of a rendered page that are in no table, code or attribute."""
    rest = re.sub(r"<(pre|code|table)\b.*?</\1>", "", html, flags=re.DOTALL)
    return [line.strip() for line in re.sub(r"<[^>]+>", "", rest).splitlines() if line.strip()]


def tables_in_source(markdown: str) -> int:
    """Return the number of tables of a page: rows of dashes between bars, wherever they are indented."""
    prose = re.sub(r"^```.*?^```", "", markdown, flags=re.MULTILINE | re.DOTALL)
    return len(re.findall(r"^[ \t>]*\|(?: *:?-+:? *\|)+[ \t]*$", prose, re.MULTILINE))


def rendered(markdown: str) -> str:
    """Return a page as the site renders it."""
    config = load_config(str(ROOT / "mkdocs.yml"))
    return Markdown(extensions=config.markdown_extensions, extension_configs=config.mdx_configs).convert(markdown)


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.stem)
def test_no_table_of_a_page_is_left_as_text(page: Path) -> None:
    markdown = page.read_text(encoding="utf-8")
    html = rendered(markdown)
    assert html.count("<table>") == tables_in_source(markdown)
    assert [line for line in text_outside_tables_and_code(html) if line.startswith("|") or line.endswith("|")] == []


@pytest.mark.parametrize(
    "markdown",
    [
        "**Result.**\n\n    | a | b |\n    | --- | --- |\n    | 1 | 2 |\n",
        "**Result.** Shares:\n| a | b |\n| --- | --- |\n| 1 | 2 |\n",
    ],
    ids=["indented as code", "after a paragraph"],
)
def test_a_table_left_as_text_would_be_found(markdown: str) -> None:
    html = rendered(markdown)
    lines = [line for line in text_outside_tables_and_code(html) if line.startswith("|")]
    assert html.count("<table>") != tables_in_source(markdown) or lines


def test_the_first_page_has_an_install_line_a_picture_and_an_output() -> None:
    html = rendered((ROOT / "docs" / "index.md").read_text(encoding="utf-8"))
    assert "<img" in html and any("pip install ." in fence for fence in fences("docs/index.md", "sh"))
    assert fences("docs/index.md", "pycon"), "a session whose output the tests compare"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site as `make site` does, without a warning."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert {line.split()[0] for line in process.stderr.splitlines()} == {"INFO"}, process.stderr
    return folder


def test_the_site_has_every_page_with_its_pictures_and_fetches_nothing(site: Path) -> None:
    for page in (ROOT / "docs").glob("*.md"):
        built = (site / page.name).with_suffix(".html").read_text(encoding="utf-8")
        assert "<math" in built or page.stem != "method"
        pictures = [one for one in re.findall(r"<(?:img|source)[^>]+src(?:set)?=\"([^\"]+)\"", built)]
        pictures = [one for one in pictures if not one.startswith("data:")]
        assert [one for one in pictures if not (site / one).is_file()] == [], page.name
    pages = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.html"))
    assert not re.findall(r"(?:src|href)=\"https?://[^\"]+\.(?:js|css|woff2?)\"", pages)


def test_the_first_page_leads_to_every_other() -> None:
    first = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert {path.name for path in (ROOT / "docs").glob("*.md")} == {"index.md", *re.findall(r"\]\((\w+\.md)\)", first)}


def test_the_reference_has_every_public_name(site: Path) -> None:
    anchors = set(re.findall(r" id=\"(prip[\w.]*)\"", (site / "reference.html").read_text(encoding="utf-8")))
    wanted = {f"prip.{name}" for name in prip.__all__ if not isinstance(getattr(prip, name), ModuleType)}
    for document in DOCUMENTS:
        for block in fences(document, "python"):
            wanted |= {name for name in imported(block) if not name.startswith(("prip.training", "prip.inference"))}
        for session in fences(document, "pycon"):
            wanted |= imported("\n".join(re.findall(r"^>>> (from .*)", session, re.M)))
        named = re.findall(r"`(prip(?:\.\w+)+)", (ROOT / document).read_text(encoding="utf-8"))
        wanted |= {name for name in named if name.split(".")[1] not in ("training", "inference", "checkpoints")}
    assert {"prip.diffusers.with_refiner", "prip.text.prompts.modifiers_added"} <= wanted
    assert sorted(name for name in wanted - anchors if name != "prip.errors") == []
    for public in ("control", "options.RefineOptions", "text.webui_syntax", "protocols", "modeling.quantization"):
        assert any(anchor.startswith(f"prip.{public}") for anchor in anchors), public


def imported(code: str) -> set[str]:
    """Return the public names that Python code imports from this project."""
    statements = [one for one in ast.walk(ast.parse(code)) if isinstance(one, ast.ImportFrom)]
    ours = [one for one in statements if one.module is not None and one.module.split(".")[0] == "prip"]
    return {f"{one.module}.{name.name}" for one in ours for name in one.names}
