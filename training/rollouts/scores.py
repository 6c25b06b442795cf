"""Rewards of rollouts: refined images against plain ones drawn with the same seeds, and the files that keep them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from torch import Tensor

from prip.files import replace_file
from prip.rewards import StandardisedSum

from .image_scorer import ImageScorer
from .policy import Refinement


@dataclass(frozen=True)
class Scores:
    """What refinements earned: raw scores by reward, each the mean over a refinement's images, float32 (batch,)."""

    refined: dict[str, Tensor]
    plain: dict[str, Tensor]
    gain: Tensor
    """(batch,): mean over images of the standardised sum of the refined image less that of the plain one"""
    drawn_refined: int
    """Images of refined prompts that were drawn for it: equal ones once"""
    drawn_plain: int
    """Images of plain prompts that the cache lacked"""

    def raw_gain(self, name: str) -> Tensor:
        """Returns what the reward `name` gives the refined prompts more than the plain ones, (batch,)."""
        return self.refined[name] - self.plain[name]


def score_refinements(
    scorer: ImageScorer,
    total: StandardisedSum,
    refinements: Sequence[Refinement],
    seeds: Sequence[Sequence[int]],
    moment: str = "",
) -> Scores:
    """Draws each refinement with each of its seeds, and compares it with its plain prompt drawn with the same.

    moment: to which point of the run the plain images are counted that are drawn. A run that goes on after it was
    killed counts those too that it drew there before.
    """
    jobs = [(one, seed) for one, own in zip(refinements, seeds, strict=True) for seed in own]
    owners, flat = [one.user_prompt for one, _ in jobs], [seed for _, seed in jobs]
    prompts = [one.refined_prompt for one, _ in jobs]
    plain = scorer.score_plain(owners, flat, moment)
    refined = scorer.score(owners, prompts, flat)
    gain = total.combine(refined) - total.combine(plain)

    def per_refinement(values: Tensor) -> Tensor:
        return values.view(len(refinements), -1).mean(dim=1)

    means = [{name: per_refinement(values) for name, values in scores.items()} for scores in (refined, plain)]
    return Scores(
        refined=means[0],
        plain=means[1],
        gain=per_refinement(gain),
        drawn_refined=len(set(zip(owners, prompts, flat, strict=True))),
        drawn_plain=scorer.cache.added_at(moment, zip(owners, flat, strict=True)),
    )


def write_rollouts(
    folder: Path,
    iteration: int,
    refinements: Sequence[Refinement],
    seeds: Sequence[Sequence[int]],
    scores: Scores,
    log_probabilities: Tensor,
    process: int = 0,
    processes: int = 1,
) -> None:
    """Writes the rollouts of an iteration as one file of the parquet dataset `folder`, in place of an earlier one.

    log_probabilities: (batch,), of the whole continuation. Of several processes each writes its own file; the first
    removes what another number of processes wrote of this iteration.
    """
    table = pd.DataFrame(
        {
            "iteration": iteration,
            "user_prompt": [one.user_prompt for one in refinements],
            "refined_prompt": [one.refined_prompt for one in refinements],
            "tokens": [len(one.actions) for one in refinements],
            "log_probability": log_probabilities.tolist(),
            "reward": scores.gain.tolist(),
            **{name: values.tolist() for name, values in scores.refined.items()},
            **{f"{name}_plain": values.tolist() for name, values in scores.plain.items()},
            "seeds": [list(own) for own in seeds],
        }
    )
    stem = f"iteration-{iteration:06}"
    names = [stem if processes == 1 else f"{stem}-{place + 1}-of-{processes}" for place in range(processes)]
    replace_file(folder / f"{names[process]}.parquet", lambda path: table.to_parquet(path, index=False))
    if process == 0:
        for path in folder.glob(f"{stem}*.parquet"):
            if path.stem not in names:
                path.unlink()
