"""One call of `refine`: its prompts as jobs, done in batches, each once, with what has to be told of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .alternatives import Job, Made, find_alternatives
from .control.styles import with_styles
from .errors import warn
from .options import RefineOptions
from .processing import check_user_prompts

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
class Refining:
    """A refiner and what is asked of it."""

    refiner: Refiner
    options: RefineOptions

    def refined(self, user_prompts: Sequence[str]) -> list[Any]:
        """Return the text of each prompt, or where alternatives are asked for the list of them."""
        return self.texts(user_prompts) if self.options.num_alternatives == 1 else self.alternatives(user_prompts)

    def texts(self, user_prompts: Sequence[str]) -> list[str]:
        """Return the text of each prompt, with a warning where there is no room."""
        prompts = [with_styles(one, self.options.styles) for one in user_prompts]
        made = self._make([Job(one) for one in prompts], self.options.temperature)
        self._warn_unchanged([one for one, own in zip(prompts, made, strict=True) if own is None])
        return [one if own is None else own.text for one, own in zip(prompts, made, strict=True)]

    def alternatives(self, user_prompts: Sequence[str]) -> list[list[str]]:
        """Return the distinct texts of each prompt, the greedy one first, with warnings where there are too few."""
        prompts = [with_styles(one, self.options.styles) for one in user_prompts]
        greedy = self._make([Job(one) for one in prompts], 0.0)
        firsts = {one: own for one, own in zip(prompts, greedy, strict=True) if own is not None}
        self._warn_unchanged([one for one in prompts if one not in firsts])
        found, short = find_alternatives(firsts, self.options.num_alternatives, self.options.temperature, self._make)
        if short:
            warn(
                f"{len(short)} of {len(prompts)} prompts have fewer than {self.options.num_alternatives} alternatives: "
                f"{_shown(short[0])}"
            )
        return [list(found.get(one, [one])) for one in prompts]

    def _make(self, jobs: Sequence[Job], temperature: float) -> list[Made | None]:
        """Return what comes of each job, None where there was no room; equal jobs are done once."""
        distinct = list(dict.fromkeys(jobs))
        options, made = self.options, dict[Job, Made | None]()
        for start in range(0, len(distinct), options.batch_size):
            batch = distinct[start : start + options.batch_size]
            added = self.refiner.actions(
                [job.user_prompt for job in batch],
                [(options.seed, job.alternative) for job in batch],
                temperature,
                options.max_new_tokens,
                self._token_budget,
                tuple(options.banned_terms),
                options.keep_attributes,
                options.no_artists,
                [job.avoided for job in batch],
            )
            for job, actions in zip(batch, added, strict=True):
                made[job] = self._made(job.user_prompt, actions) if actions else None
        return [made[job] for job in jobs]

    def _made(self, user_prompt: str, actions: list[int]) -> Made:
        whole = self.refiner.text(user_prompt, actions)
        first = first_share(actions, self.options.strength, self.refiner.constraints.table.separator)
        return Made(whole if len(first) == len(actions) else self.refiner.text(user_prompt, first), whole)

    @property
    def _token_budget(self) -> int:
        return self.refiner.token_limit if self.options.token_budget is None else self.options.token_budget

    def _warn_unchanged(self, prompts: list[str]) -> None:
        if prompts:
            many = "a prompt returns" if len(prompts) == 1 else f"{len(prompts)} prompts return"
            warn(
                f"{many} unchanged, no modifier that may be added has room within token_budget={self._token_budget} "
                f"and max_new_tokens={self.options.max_new_tokens}: {_shown(prompts[0])}"
            )


def _shown(prompt: str) -> str:
    return repr(prompt if len(prompt) <= 60 else prompt[:57] + "...")
