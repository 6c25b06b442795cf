"""Rewards of rollouts: the gain of refined images over plain ones with the same seeds, and the files of rollouts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from prip.errors import CheckpointError
from prip.files import replace_file
from prip.rewards import StandardisedSum

from .image_scorer import ImageScorer
from .policy import Refinement

_TOKEN_COLUMNS = {"actions": pa.list_(pa.int32()), "reference_log_probability": pa.list_(pa.float32())}
"""Columns with one entry per action"""


@dataclass(frozen=True)
class Scores:
    """Scores of refinements: raw ones by reward, each the mean over a refinement's images, float32 (batch,)."""

    refined: dict[str, Tensor]
    plain: dict[str, Tensor]
    gain: Tensor
    """(batch,): mean over the images of f(i, u) - f(i', u), where f is the standardised sum of the rewards"""
    drawn_refined: int
    """Images of refined prompts drawn; equal images are drawn once"""
    drawn_plain: int
    """Images of plain prompts drawn because the cache lacked them"""
    blackened: Tensor
    """bool (batch,): refinements without a score, NaN, because a safety checker blackened all of their images or the
    plain ones of the same seeds"""
    left_out: int = 0
    """Images left out of the means because a safety checker blackened them, or the plain ones of the same seeds"""

    def raw_gain(self, name: str) -> Tensor:
        """Return the gain of the refined prompts over the plain ones in the reward `name`, (batch,)."""
        return self.refined[name] - self.plain[name]


@dataclass(frozen=True)
class GainScorer:
    """Scores refinements by their gain over the plain prompt: the reward of end-to-end training (Section 3.4)."""

    images: ImageScorer
    total: StandardisedSum

    def score(
        self, refinements: Sequence[Refinement], image_seeds: Sequence[Sequence[int]], moment: str = ""
    ) -> Scores:
        """Draw each refinement with each of its seeds, and compare it with the plain image of the same seed.

        Args:
            refinements: The refinements, n of them.
            image_seeds: Seeds of each refinement's images: n rows of equal length.
            moment: Point of the run to which newly drawn plain images are attributed; a resumed run also counts those
                drawn there before the interruption.
        """
        jobs = [
            (refinement, seed) for refinement, seeds in zip(refinements, image_seeds, strict=True) for seed in seeds
        ]
        user_prompts, seeds = [refinement.user_prompt for refinement, _ in jobs], [seed for _, seed in jobs]
        prompts = [refinement.refined_prompt for refinement, _ in jobs]
        plain = self.images.score_plain(user_prompts, seeds, moment)
        refined = self.images.score(user_prompts, prompts, seeds)
        gain = self.total.combine(refined) - self.total.combine(plain)
        shown = ~(refined.blackened | plain.blackened).view(len(refinements), -1)

        def per_refinement(values: Tensor) -> Tensor:
            return torch.where(shown, values.view_as(shown), 0).sum(dim=1) / shown.sum(dim=1)  # 0 / 0 is NaN

        return Scores(
            refined={name: per_refinement(values) for name, values in refined.items()},
            plain={name: per_refinement(values) for name, values in plain.items()},
            gain=per_refinement(gain),
            drawn_refined=len(set(zip(user_prompts, prompts, seeds, strict=True))),
            drawn_plain=self.images.cache.added_at(moment, zip(user_prompts, seeds, strict=True)),
            blackened=~shown.any(dim=1),
            left_out=int((~shown).sum()),
        )


def rollout_table(
    refinements: Sequence[Refinement],
    scores: Scores,
    *,
    image_seeds: Sequence[Sequence[int]],
    log_probabilities: Tensor,
    reference: Tensor,
) -> pd.DataFrame:
    """Return rollouts as rows.

    Args:
        refinements: The sampled refinements.
        scores: Their scores.
        image_seeds: Seeds of each refinement's images.
        log_probabilities: float (batch, length): of each action when it was sampled, 0 past the last one.
        reference: The same under the warmed-up model.

    Returns:
        user_prompt, refined_prompt, tokens (number of actions), log_probability (of the whole continuation), reward
        (the gain), a column per reward and one with the suffix `_plain`, seeds, actions (token ids) and
        reference_log_probability (one per action).
    """
    lengths = [len(refinement.actions) for refinement in refinements]
    return pd.DataFrame(
        {
            "user_prompt": [refinement.user_prompt for refinement in refinements],
            "refined_prompt": [refinement.refined_prompt for refinement in refinements],
            "tokens": lengths,
            "log_probability": log_probabilities.sum(dim=1).tolist(),
            "reward": scores.gain.tolist(),
            **{name: values.tolist() for name, values in scores.refined.items()},
            **{f"{name}_plain": values.tolist() for name, values in scores.plain.items()},
            "seeds": [list(seeds) for seeds in image_seeds],
            "actions": [refinement.actions for refinement in refinements],
            "reference_log_probability": [
                row[:length] for row, length in zip(reference.float().tolist(), lengths, strict=True)
            ],
        }
    )


def write_rollouts(folder: Path, iteration: int, table: pd.DataFrame, process: int = 0, processes: int = 1) -> None:
    """Write the rollouts of an iteration as one file of the parquet dataset `folder`, replacing an earlier one.

    Each process writes a file of its own; the first removes files that a different number of processes wrote for this
    iteration.
    """
    rows = pa.Table.from_pandas(table.assign(iteration=iteration)[["iteration", *table]], preserve_index=False)
    for name, kind in _TOKEN_COLUMNS.items():
        rows = rows.set_column(rows.column_names.index(name), name, rows[name].cast(kind))
    stem = f"iteration-{iteration:06}"
    names = [stem if processes == 1 else f"{stem}-{number + 1}-of-{processes}" for number in range(processes)]
    replace_file(folder / f"{names[process]}.parquet", lambda path: pq.write_table(rows, path))
    if process == 0:
        for path in folder.glob(f"{stem}*.parquet"):
            if path.stem not in names:
                path.unlink()


def read_rollouts(folder: Path) -> pd.DataFrame:
    """Return all rollouts of a run with their actions and reference log-probabilities, in the order of iterations.

    Raises:
        CheckpointError: There are no rollouts, or some were written before these columns existed.
    """
    paths = sorted(folder.glob("iteration-*.parquet"))
    if not paths:
        raise CheckpointError(f"{folder}: expected rollouts, got no file iteration-*.parquet")
    for path in paths:
        missing = [name for name in _TOKEN_COLUMNS if name not in pq.read_schema(path).names]
        if missing:
            raise CheckpointError(
                f"{path}: expected the columns {', '.join(_TOKEN_COLUMNS)}, got none of {', '.join(missing)}; it was "
                "written by an earlier version: train again"
            )
    return pd.concat([pd.read_parquet(path) for path in paths], ignore_index=True)
