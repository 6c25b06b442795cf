"""The documents as a reader follows them: their commands and their Python, page by page, in the order of each."""

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
"""What is run in place of what is shown: the same command at its smallest settings."""

NOT_RUN = {
    r"python3 -m venv|pip install": "installs: .ci/run does as README.md says",
    r"^(make|pytest|pre-commit|mkdocs)\b": "the tests themselves, and training at full size",
    r"owner/name|owner/miniature|hf auth|hf download|huggingface": "wants the Hub",
    r"--config (paper|hpsv2|tinyllama|modern)\b": "wants published weights",
    r"--device cuda": "wants a GPU",
    r"rew-syn|prip-train tune|--config composition": "goes on from a trained run: tests/training does, on small ones",
    r"annotate evaluation --(summary|export)": "wants people's answers: test_annotate_page.py gives some",
    r"my-checkpoint|my-refiner": "the reader's own checkpoint",
    r"^docker\b": "wants a container engine",
    r"-m benchmarks\.(?!refine_speed)": "minutes to hours: tests/test_benchmarks.py runs them small",
}
"""Commands that are not run, by what they hold, and why. Their flags are checked all the same."""


@dataclass(frozen=True)
class Command:
    """One line of a document's shell fence."""

    document: str
    line: str

    @property
    def simple(self) -> list[list[str]]:
        """The commands that `&&` and pipes join, split into words."""
        parts = re.split(r"&&|\|(?!\|)", self.line)
        return [words for part in parts if (words := shlex.split(part, comments=True))]

    @property
    def runs(self) -> str | None:
        """What is run in its place; None for what is not run."""
        if any(re.search(pattern, self.line) for pattern in NOT_RUN):
            return None
        line = self.line
        for shown, run in IN_PLACE_OF:
            line = re.sub(shown, run, line)
        return line


def fences(document: str, language: str) -> list[str]:
    """Returns the contents of a document's code fences in a language."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def commands(document: str) -> list[Command]:
    """Returns the lines of a document's shell fences that are not only a comment; one that ends in \\ is continued."""
    lines = []
    for fence in fences(document, "sh"):
        for line in fence.replace("\\\n", " ").splitlines():
            if shlex.split(line, comments=True):
                lines.append(Command(document, line))
    return lines
