"""What each refiner makes of the user prompts: a table a chunk, made once, in which only what failed is asked again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from prip.errors import PripError
from prip.protocols import PromptRefiner

from ..kinds.registry import EvaluationPrompt
from ..kinds.seeds import image_seeds
from .attempts import each, one_by_one
from .chunks import Numbered, chunk_file, chunks, read_table, write_table
from .stopwatch import Stopwatch

_Asked = tuple[int, int, str, int]
"""Prompt number, image index, user prompt, seed."""


def refine_chunk(
    refiner: PromptRefiner,
    prompts: Numbered,
    images_per_prompt: int,
    seed: int,
    before: pd.DataFrame | None = None,
    proven: bool = False,
) -> pd.DataFrame:
    """Returns prompt_id, image_index, refined_prompt, error: a row for each image of the prompts.

    A prompt that cannot be refined, or becomes an empty text, has an error in place of a refined prompt, and is not
    drawn. before: the same table of an earlier run, of which only the failed prompts are asked again. proven: whether
    the refiner has refined any prompt. Raises PripError where it has not, and the first ones fail.
    """
    rows = [
        (number, place, prompt.text, image_seed)
        for number, prompt in prompts
        for place, image_seed in enumerate(image_seeds(prompt.text, images_per_prompt, seed))
    ]
    made = [""] * len(rows) if before is None else before["refined_prompt"].tolist()
    errors = ["not asked"] * len(rows) if before is None else before["error"].tolist()
    sampled = getattr(refiner, "sampled", True)
    asked = [line for line, row in enumerate(rows) if errors[line] and (sampled or row[1] == 0)]
    texts, reasons = _ask(refiner, [rows[line] for line in asked], proven)
    for line, text, reason in zip(asked, texts, reasons, strict=True):
        for same in range(line, line + (1 if sampled else images_per_prompt)):
            made[same], errors[same] = text, reason
    return pd.DataFrame(
        {
            "prompt_id": [number for number, _, _, _ in rows],
            "image_index": [place for _, place, _, _ in rows],
            "refined_prompt": made,
            "error": errors,
        }
    )


def _ask(refiner: PromptRefiner, rows: list[_Asked], proven: bool) -> tuple[list[str], list[str]]:
    """Returns the refined prompts, "" where there is none, and why there is none."""

    def columns(some: list[_Asked]) -> tuple[list[str], list[int]]:
        return [text for _, _, text, _ in some], [image_seed for _, _, _, image_seed in some]

    what, attempt = f"refiner {refiner.name!r}", getattr(refiner, "attempt", None)
    if attempt is None:
        made, reasons = one_by_one(what, lambda some: refiner(*columns(some)), rows, proven)
    else:
        made, reasons = each(what, lambda some: attempt(*columns(some)), rows, proven)
    for line, text in enumerate(made):
        if not reasons[line] and not (isinstance(text, str) and text.strip()):
            reasons[line] = f"wanted a text that is not empty, got {text!r}"
    return ["" if reason else text for text, reason in zip(made, reasons, strict=True)], reasons


class Refinements:
    """The tables of one refiner, FOLDER/00000.parquet and so on."""

    def __init__(self, name: str, folder: Path, images_per_prompt: int, seed: int) -> None:
        self.name, self.folder, self.images_per_prompt, self.seed = name, folder, images_per_prompt, seed
        self.proven, self._reason = False, ""

    def lacks(self, number: int) -> bool:
        """Whether a chunk has not been refined, or any of its prompts failed."""
        table = self.table(number)
        if table is None:
            return True
        self._look_at(table)
        return bool((table["error"] != "").any())

    def table(self, number: int) -> pd.DataFrame | None:
        """Returns a chunk's table, None where there is none yet."""
        return read_table(chunk_file(self.folder, number))

    def make(self, refiner: PromptRefiner, number: int, prompts: Numbered) -> pd.DataFrame:
        """Writes and returns what a chunk lacks, with what it has."""
        table = refine_chunk(refiner, prompts, self.images_per_prompt, self.seed, self.table(number), self.proven)
        self._look_at(table)
        write_table(chunk_file(self.folder, number), table)
        return table

    def check(self) -> None:
        """Raises PripError where every prompt has failed."""
        if not self.proven:
            raise PripError(f"refiner {self.name!r}: all prompts failed: {self._reason}")

    def _look_at(self, table: pd.DataFrame) -> None:
        errors = table["error"]
        self.proven = self.proven or bool((errors == "").any())
        self._reason = self._reason or errors.iloc[0]


def refine_all(
    made: Refinements,
    make_refiner: Callable[[], PromptRefiner],
    prompts: Sequence[EvaluationPrompt],
    chunk: int,
    progress: bool,
    stopwatch: Stopwatch,
) -> None:
    """Writes the chunks that are missing and asks for the prompts that failed; the refiner is made only where there
    are some. Raises PripError where every prompt fails."""
    missing = [(number, some) for number, some in chunks(prompts, chunk) if made.lacks(number)]
    if not missing:
        return
    refiner = make_refiner()
    total = sum(len(some) for _, some in missing)
    with tqdm(total=total, desc=f"refine: {made.name}", unit=" prompts", disable=not progress) as bar:
        for number, some in missing:
            with stopwatch.on("refine"):
                made.make(refiner, number, some)
            bar.update(len(some))
    made.check()
