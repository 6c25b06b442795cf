"""The kinds that need no image: real prompts whose writers' additions are known, and the prior as a refiner."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from prip.errors import InputError
from prip.prior.concepts import distinct_prompts
from prip.prior.preference_prior import PreferencePrior, embedded_prior
from prip.prior.series import position_of, series_of
from prip.prior.suggest import SuggestOptions, suggest_from
from prip.text_files import read_lines

from .refiners import with_modifiers
from .registry import Context, EvaluationPrompt


def make_real_prompts(
    name: str, context: Context, *, place: str, test_share: float = 0.1, split_seed: int = 0
) -> list[EvaluationPrompt]:
    """The kind `real-prompts`: what real prompts show, one per series, with the concepts that their writers added.

    Only series that the prior was not fitted on are measured, if the files and the last two options are those of its
    fit, and only prompts with an addition.

    place: a text file with one system prompt per line, or a folder of such files, read in the order of their names.
    test_share: share of the series that are measured. split_seed: seed of the split.
    """
    path = Path(place).expanduser()
    paths = sorted(path.glob("*.txt")) if path.is_dir() else [path]
    if not paths:
        raise InputError(f"place: expected text files in the folder, got none in {place!r}")
    if not 0 < test_share <= 1:
        raise InputError(f"test_share: expected a number above 0 and at most 1, got {test_share!r}")
    texts = distinct_prompts(line for path in paths for line in read_lines(path))
    distinct = list(texts)
    chosen: dict[str, EvaluationPrompt] = {}
    for text, series in zip(distinct, series_of(distinct), strict=True):
        prompt = texts[text]
        if prompt.added and series not in chosen and position_of(series, split_seed) >= 1 - test_share:
            chosen[series] = EvaluationPrompt(prompt.head, references=frozenset(prompt.added))
    if not chosen:
        raise InputError(f"prompts: expected a held-out series with additions in {place!r}, got none; see test_share")
    return list(chosen.values())


class PriorRefiner:
    """Adds the concepts that the preference prior suggests; no image and no network of PRIP is involved."""

    sampled = False

    def __init__(self, name: str, prior: PreferencePrior, options: SuggestOptions, conditional: bool = True) -> None:
        """conditional: False suggests for every prompt what is likely for any prompt, by the same rules."""
        self.name, self.prior, self.options, self.conditional = name, prior, options, conditional

    def __call__(self, user_prompts: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """Return each user prompt followed by the concepts; `seeds` are not used."""
        if self.conditional:
            probabilities = self.prior(user_prompts)
        else:
            probabilities = np.tile(self.prior.base, (len(user_prompts), 1))
        suggested = suggest_from(probabilities, self.prior, user_prompts, self.options)
        return [with_modifiers(prompt, concepts) for prompt, concepts in zip(user_prompts, suggested, strict=True)]


def make_prior_only(
    name: str, context: Context, *, options: SuggestOptions, place: str | None = None, conditional: bool = True
) -> PriorRefiner:
    """The kind `prior-only`: the preference prior alone.

    place: folder of a prior that `prip-train prior` wrote (RUN/prior/part); None is the embedded one. conditional:
    false ignores what the prompt shows, a baseline under the same rules.
    """
    prior = embedded_prior() if place is None else PreferencePrior.load(Path(place).expanduser())
    return PriorRefiner(name, prior, options, conditional)
