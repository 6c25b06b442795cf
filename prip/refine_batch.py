"""Prompts refined under the same options: as jobs, done in batches, each once, with what has to be told of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .control.styles import with_styles
from .decoding.alternatives import Job, find_alternatives
from .options import RefineOptions
from .processing import check_user_prompts
from .text.webui_syntax import ends_in_weight

if TYPE_CHECKING:
    from .refiner import Refiner


def unrefined(prompt: str | Sequence[str], options: RefineOptions) -> Any:
    """Return what `refine` returns when nothing is to be added: the prompts as they are, and no other alternatives.

    Raises InputError for a prompt that could not be refined.
    """
    prompts = check_user_prompts(prompt)
    found: list[Any] = prompts if options.num_alternatives == 1 else [[one] for one in prompts]
    return found[0] if isinstance(prompt, str) else found


def first_share(actions: Sequence[int], strength: float, separator: int) -> list[int]:
    """Return the actions of the first modifiers, `strength` of all rounded up: as if the decoder had ended there.

    `actions` begin within a modifier and `separator` stands between two of them; strength is above 0, up to 1.
    """
    ends = [place for place, token in enumerate(actions) if token == separator]
    kept = max(1, math.ceil(strength * (len(ends) + 1) - 1e-9))
    return list(actions) if kept > len(ends) else list(actions[: ends[kept - 1]])


@dataclass(frozen=True)
class Refined:
    """What came of one user prompt: its distinct texts, first the one that comes alone."""

    texts: list[str]
    unchanged: bool = False
    """There was no room for a modifier: the only text is the user prompt, with its styles."""
    short: bool = False
    """There are fewer texts than were asked for."""


@dataclass(frozen=True)
class Refining:
    """A refiner and what is asked of it; `options.seed` is not read."""

    refiner: Refiner
    options: RefineOptions

    def results(self, user_prompts: Sequence[str], seeds: Sequence[int]) -> list[Refined]:
        """Return what comes of each prompt with its seed."""
        prompts = [with_styles(one, self.options.styles) for one in user_prompts]
        firsts = [Job(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)]
        wanted = self.options.num_alternatives
        open_ended = [first for first in firsts if not ends_in_weight(first.user_prompt)]
        made = self._make(open_ended, self.options.temperature)
        ready = {first: text for first, text in zip(open_ended, made, strict=True) if text is not None}
        if wanted == 1:
            found = {first: [text] for first, text in ready.items()}
        else:
            found = find_alternatives(ready, wanted, self.options.temperature or 1.0, self._make)
        return [
            Refined(list(found[first]), short=len(found[first]) < wanted)
            if first in found
            else Refined([first.user_prompt], unchanged=True)
            for first in firsts
        ]

    def shortcomings(self, results: Sequence[Refined], user_prompts: Sequence[str]) -> list[str]:
        """Return a sentence for each way in which results are less than was asked for; none when all is well."""
        pairs = list(zip(user_prompts, results, strict=True))
        weighted = [prompt for prompt, _ in pairs if ends_in_weight(prompt)]
        unchanged = [prompt for prompt, result in pairs if result.unchanged and not ends_in_weight(prompt)]
        short = list(dict.fromkeys(prompt for prompt, result in pairs if result.short))
        sentences = []
        if weighted:
            sentences.append(
                f"{_many(weighted)} unchanged, nothing may follow the weight at the end of parts that AND joins: "
                f"{_shown(weighted[0])}"
            )
        if unchanged:
            sentences.append(
                f"{_many(unchanged)} unchanged, no modifier that may be added has room within {self._budget_in_words} "
                f"and max_new_tokens={self.options.max_new_tokens}: {_shown(unchanged[0])}"
            )
        if short:
            sentences.append(
                f"{len(short)} of {len(pairs)} prompts have fewer than {self.options.num_alternatives} alternatives: "
                f"{_shown(short[0])}"
            )
        return sentences

    def _make(self, jobs: Sequence[Job], temperature: float) -> list[str | None]:
        """Return what comes of each job, None where there was no room; equal jobs are done once."""
        distinct = list(dict.fromkeys(jobs))
        options, made = self.options, dict[Job, str | None]()
        for start in range(0, len(distinct), options.batch_size):
            batch = distinct[start : start + options.batch_size]
            added = self.refiner.actions(
                [job.user_prompt for job in batch],
                [(job.seed, job.alternative) for job in batch],
                temperature,
                options.max_new_tokens,
                self._token_budget,
                tuple(options.banned_terms),
                options.keep_attributes,
                options.no_artists,
                options.allow_faults,
                options.top_p,
            )
            for job, actions in zip(batch, added, strict=True):
                made[job] = self._text(job.user_prompt, actions) if actions else None
        return [made[job] for job in jobs]

    def _text(self, user_prompt: str, actions: list[int]) -> str:
        some = first_share(actions, self.options.strength, self.refiner.constraints.table.separator)
        return self.refiner.text(user_prompt, some)

    @property
    def _budget_in_words(self) -> str:
        if self.options.token_budget is None:
            return f"the {self._token_budget} tokens that the generator reads"
        return f"token_budget={self._token_budget}"

    @property
    def _token_budget(self) -> int:
        return self.refiner.token_limit if self.options.token_budget is None else self.options.token_budget


def _many(prompts: Sequence[str]) -> str:
    return "a prompt returns" if len(prompts) == 1 else f"{len(prompts)} prompts return"


def _shown(prompt: str) -> str:
    return repr(prompt if len(prompt) <= 60 else prompt[:57] + "...")
