"""What each refiner makes of the user prompts: a table a chunk, made once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from prip.errors import PripError
from prip.protocols import PromptRefiner

from .chunks import Numbered, chunk_file, chunks, write_table
from .kinds import EvaluationPrompt
from .seeds import image_seeds
from .stopwatch import Stopwatch


def refine_chunk(refiner: PromptRefiner, prompts: Numbered, images_per_prompt: int, seed: int) -> pd.DataFrame:
    """Returns prompt_id, image_index, refined_prompt: a row for each image of the prompts.

    Raises PripError where the refiner returns too few or too many texts, or an empty one.
    """
    rows = [
        (number, place, prompt.text, image_seed)
        for number, prompt in prompts
        for place, image_seed in enumerate(image_seeds(prompt.text, images_per_prompt, seed))
    ]
    asked = rows if getattr(refiner, "sampled", True) else [row for row in rows if row[1] == 0]
    made = refiner([text for _, _, text, _ in asked], [image_seed for _, _, _, image_seed in asked])
    if len(made) != len(asked) or not all(isinstance(one, str) and one.strip() for one in made):
        raise PripError(f"refiner {refiner.name!r}: wanted {len(asked)} texts that are not empty, got {len(made)}")
    if len(asked) < len(rows):
        made = [one for one in made for _ in range(images_per_prompt)]
    return pd.DataFrame(
        {
            "prompt_id": [number for number, _, _, _ in rows],
            "image_index": [place for _, place, _, _ in rows],
            "refined_prompt": made,
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
