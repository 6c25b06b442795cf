"""Refines the user prompts: one table per refiner and chunk, in which only failed prompts are asked again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from prip.errors import PripError
from prip.protocols import PromptRefiner

from ..kinds.registry import EvaluationPrompt
from ..kinds.seeds import image_seeds
from .attempts import each, one_by_one
from .chunks import Numbered, chunk_file, chunks, read_table, write_table
from .stopwatch import Stopwatch

_Question = tuple[int, int, str, int]
"""Prompt number, image index, user prompt, seed."""


def refine_chunk(
    refiner: PromptRefiner,
    prompts: Numbered,
    images_per_prompt: int,
    seed: int,
    *,
    before: pd.DataFrame | None = None,
    proven: bool = False,
) -> pd.DataFrame:
    """Return prompt_id, image_index, refined_prompt, error: one row for each image of the prompts.

    A prompt that cannot be refined, or becomes empty, has an error instead of a refined prompt and is not drawn.

    Args:
        before: The same table of an earlier run, of which only the failed prompts are asked again.
        proven: Whether the refiner has refined any prompt yet.

    Raises:
        PripError: The refiner is not proven and the first prompts fail.
    """
    questions = [
        (number, index, prompt.text, image_seed)
        for number, prompt in prompts
        for index, image_seed in enumerate(image_seeds(prompt.text, images_per_prompt, seed))
    ]
    texts = [""] * len(questions) if before is None else before["refined_prompt"].tolist()
    errors = ["not asked"] * len(questions) if before is None else before["error"].tolist()
    sampled = getattr(refiner, "sampled", True)
    asked = [row for row, question in enumerate(questions) if errors[row] and (sampled or question[1] == 0)]
    answers = zip(asked, *_ask(refiner, [questions[row] for row in asked], proven), strict=True)
    for first, text, error in answers:
        for row in range(first, first + (1 if sampled else images_per_prompt)):
            texts[row], errors[row] = text, error
    return pd.DataFrame(
        {
            "prompt_id": [number for number, _, _, _ in questions],
            "image_index": [index for _, index, _, _ in questions],
            "refined_prompt": texts,
            "error": errors,
        }
    )


def _ask(refiner: PromptRefiner, questions: list[_Question], proven: bool) -> tuple[list[str], list[str]]:
    """Return the refined prompts, "" where there is none, and the reasons of failures."""

    def columns(batch: list[_Question]) -> tuple[list[str], list[int]]:
        return [text for _, _, text, _ in batch], [image_seed for _, _, _, image_seed in batch]

    label, attempt = f"refiner {refiner.name!r}", getattr(refiner, "attempt", None)
    if attempt is None:
        texts, reasons = one_by_one(label, lambda batch: refiner(*columns(batch)), questions, proven=proven)
    else:
        texts, reasons = each(label, lambda batch: attempt(*columns(batch)), questions, proven=proven)
    for row, text in enumerate(texts):
        if not reasons[row] and not (isinstance(text, str) and text.strip()):
            reasons[row] = f"expected a text that is not empty, got {text!r}"
    return ["" if reason else text for text, reason in zip(texts, reasons, strict=True)], reasons


class Refinements:
    """The saved tables of one refiner, one file per chunk."""

    def __init__(self, name: str, folder: Path, images_per_prompt: int, seed: int) -> None:
        self.name, self.folder, self.images_per_prompt, self.seed = name, folder, images_per_prompt, seed
        self.proven, self._reason = False, ""

    def lacks(self, number: int) -> bool:
        """Return whether a chunk has not been refined, or any of its prompts failed."""
        table = self.table(number)
        if table is None:
            return True
        self._note_success(table)
        return bool((table["error"] != "").any())

    def table(self, number: int) -> pd.DataFrame | None:
        """Return a chunk's table, or None when it does not exist yet."""
        return read_table(chunk_file(self.folder, number))

    def refine(self, refiner: PromptRefiner, number: int, prompts: Numbered) -> None:
        """Refine what a chunk lacks, and save its table."""
        before = self.table(number)
        table = refine_chunk(refiner, prompts, self.images_per_prompt, self.seed, before=before, proven=self.proven)
        self._note_success(table)
        write_table(chunk_file(self.folder, number), table)

    def check(self) -> None:
        """Raise PripError when every prompt has failed."""
        if not self.proven:
            raise PripError(f"refiner {self.name!r}: all prompts failed: {self._reason}")

    def _note_success(self, table: pd.DataFrame) -> None:
        errors = table["error"]
        self.proven = self.proven or bool((errors == "").any())
        self._reason = self._reason or errors.iloc[0]


def refine_all(
    refinements: Refinements,
    make_refiner: Callable[[], PromptRefiner],
    prompts: Sequence[EvaluationPrompt],
    *,
    chunk: int,
    progress: bool,
    stopwatch: Stopwatch,
) -> None:
    """Refine the missing chunks and the failed prompts; the refiner is loaded only when there are any.

    Raises PripError when every prompt fails.
    """
    missing = [(number, batch) for number, batch in chunks(prompts, chunk) if refinements.lacks(number)]
    if not missing:
        return
    total = sum(len(batch) for _, batch in missing)
    with stopwatch.bar(f"refine: {refinements.name}", total, progress) as advance:
        refiner = make_refiner()
        for number, batch in missing:
            with stopwatch.on("refine", f"refining {len(batch)} prompts"):
                refinements.refine(refiner, number, batch)
            advance(len(batch))
    refinements.check()
