"""The commands and Python of the documents, page by page and in reading order."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
DOCUMENTS = tuple(sorted(str(path.relative_to(ROOT)) for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"))))

IN_PLACE_OF = (
    (r"--config miniature\b", "--config smoke"),
    (r"--config precision\b", "--config smoke"),
)
"""Replacements in a shown command before it runs: the same command at its smallest settings."""

NOT_RUN = {
    r"python3 -m venv|pip install": "installs packages: .ci/run does so as README.md says",
    r"^(make|pytest|pre-commit|mkdocs)\b": "runs the tests themselves, or trains at full size",
    r"owner/name|owner/miniature|hf auth|hf download|huggingface": "needs the Hub",
    r"--config (paper|hpsv2|tinyllama|modern)\b": "needs published weights",
    r"--device cuda": "needs a GPU",
    r"rew-syn|prip-train tune|--config composition": "continues a trained run: tests/training does so on small ones",
    r"annotate evaluation --(summary|export)": "needs people's answers: test_annotate_page.py gives some",
    r"my-checkpoint|my-refiner": "the reader's own checkpoint",
    r"prip-train prior|real-prompts:": "needs files of real prompts: test_prior.py and test_additions.py write some",
    r"^docker\b": "needs a container engine",
    r"-m benchmarks\.(?!refine_speed)": "takes minutes to hours: tests/test_benchmarks.py runs them at small sizes",
}
"""Patterns of commands that are not run, each with its reason. Their flags are checked all the same."""


@dataclass(frozen=True)
class Command:
    """One line of a document's shell fence, or one inline command."""

    document: str
    line: str

    @property
    def simple(self) -> list[list[str]]:
        """The commands joined by `&&` and pipes, split into words."""
        parts = re.split(r"&&|\|(?!\|)", self.line)
        return [words for part in parts if (words := shlex.split(part, comments=True))]

    @property
    def runs(self) -> str | None:
        """The line that is run in its place, or None if it is not run."""
        if any(re.search(pattern, self.line) for pattern in NOT_RUN):
            return None
        line = self.line
        for shown, run in IN_PLACE_OF:
            line = re.sub(shown, run, line)
        return line


def fences(document: str, language: str) -> list[str]:
    """Return the contents of a document's code fences in a language."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def commands(document: str) -> list[Command]:
    """Return the lines of a document's shell fences, without comments; a line that ends in \\ is continued."""
    lines = []
    for fence in fences(document, "sh"):
        for line in fence.replace("\\\n", " ").splitlines():
            if shlex.split(line, comments=True):
                lines.append(Command(document, line))
    return lines


def inline_commands(document: str) -> list[Command]:
    """Return the commands of ours that a document's prose and tables show in backticks, with their arguments."""
    text = (ROOT / document).read_text(encoding="utf-8")
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    spans = re.findall(r"`(prip(?:-train)? [a-z]+ [^`|]+)`", prose)
    return [Command(document, span) for span in spans]
