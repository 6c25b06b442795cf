"""What each refiner makes of the user prompts: a table a chunk, made once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from prip.errors import PripError
from prip.protocols import PromptRefiner

from .attempts import one_by_one
from .chunks import Numbered, chunk_file, chunks, write_table
from .kinds import EvaluationPrompt
from .seeds import image_seeds
from .stopwatch import Stopwatch


def refine_chunk(refiner: PromptRefiner, prompts: Numbered, images_per_prompt: int, seed: int) -> pd.DataFrame:
    """Returns prompt_id, image_index, refined_prompt, error: a row for each image of the prompts.

    A prompt that cannot be refined, or becomes an empty text, has an error in place of a refined prompt, and is not
    drawn. Raises PripError where the first ones fail, or all.
    """
    rows = [
        (number, place, prompt.text, image_seed)
        for number, prompt in prompts
        for place, image_seed in enumerate(image_seeds(prompt.text, images_per_prompt, seed))
    ]
    sampled = getattr(refiner, "sampled", True)
    asked = rows if sampled else [row for row in rows if row[1] == 0]

    def refine(some: list[tuple[int, int, str, int]]) -> list[str]:
        made = refiner([text for _, _, text, _ in some], [image_seed for _, _, _, image_seed in some])
        if not all(isinstance(one, str) and one.strip() for one in made):
            raise PripError("wanted texts that are not empty")
        return made

    made, errors = one_by_one(f"refiner {refiner.name!r}", refine, asked)
    if all(errors):
        raise PripError(f"refiner {refiner.name!r}: all of {len(asked)} prompts failed: {errors[0]}")
    repeats = 1 if sampled else images_per_prompt
    return pd.DataFrame(
        {
            "prompt_id": [number for number, _, _, _ in rows],
            "image_index": [place for _, place, _, _ in rows],
            "refined_prompt": [one or "" for one in made for _ in range(repeats)],
            "error": [one for one in errors for _ in range(repeats)],
        }
    )


def refine_all(
    name: str,
    make_refiner: Callable[[], PromptRefiner],
    prompts: Sequence[EvaluationPrompt],
    folder: Path,
    chunk: int,
    images_per_prompt: int,
    seed: int,
    progress: bool,
    stopwatch: Stopwatch,
) -> None:
    """Writes the chunks of FOLDER that are missing; the refiner is made only where there are some."""
    missing = [(number, some) for number, some in chunks(prompts, chunk) if not chunk_file(folder, number).is_file()]
    if not missing:
        return
    refiner = make_refiner()
    with tqdm(
        total=sum(len(some) for _, some in missing), desc=f"refine: {name}", unit=" prompts", disable=not progress
    ) as bar:
        for number, some in missing:
            with stopwatch.on("refine"):
                table = refine_chunk(refiner, some, images_per_prompt, seed)
            write_table(chunk_file(folder, number), table)
            bar.update(len(some))
