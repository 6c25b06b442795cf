"""Refine many prompts with the same options, in batches, and report results that fall short of the options."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .control.styles import with_styles
from .decoding.alternatives import Job, find_alternatives
from .options import RefineOptions
from .text.webui_syntax import ends_in_weight

if TYPE_CHECKING:
    from .decoding.sampler import PromptSampler


@dataclass(frozen=True)
class Refined:
    """The texts of one user prompt."""

    texts: list[str]
    """Distinct texts; the first is the refined prompt, the others are alternatives."""
    unchanged: bool = False
    """Whether no modifier fits: the only text is the user prompt with its styles."""
    short: bool = False
    """Whether there are fewer texts than requested."""


def refine_batch(
    sampler: PromptSampler, user_prompts: Sequence[str], seeds: Sequence[int], options: RefineOptions
) -> list[Refined]:
    """Return the texts of each prompt with its own seed; `options.seed` is not read."""
    if options.strength == 0:
        return [Refined([prompt]) for prompt in user_prompts]
    prompts = [with_styles(prompt, options.styles) for prompt in user_prompts]
    firsts = [Job(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)]

    def sample(jobs: Sequence[Job], temperature: float) -> list[str | None]:
        return _sample(sampler, jobs, replace(options, temperature=temperature))

    extensible = [first for first in firsts if not ends_in_weight(first.user_prompt)]
    sampled = sample(extensible, options.temperature)
    texts = {first: [text] for first, text in zip(extensible, sampled, strict=True) if text is not None}
    wanted = options.num_alternatives
    if wanted > 1:
        first_texts = {first: text for first, (text,) in texts.items()}
        texts = find_alternatives(first_texts, wanted, options.temperature or 1.0, sample)
    return [
        Refined(list(texts[first]), short=len(texts[first]) < wanted)
        if first in texts
        else Refined([first.user_prompt], unchanged=True)
        for first in firsts
    ]


def _sample(sampler: PromptSampler, jobs: Sequence[Job], options: RefineOptions) -> list[str | None]:
    """Return the text of each job, or None if no modifier fits; equal jobs are sampled once."""
    distinct = list(dict.fromkeys(jobs))
    texts: dict[Job, str | None] = {}
    for start in range(0, len(distinct), options.batch_size):
        batch = distinct[start : start + options.batch_size]
        seeds = [(job.seed, job.alternative) for job in batch]
        for job, actions in zip(batch, sampler.sample([job.user_prompt for job in batch], seeds, options), strict=True):
            kept = first_share(actions, options.strength, sampler.separator) if actions else []
            texts[job] = sampler.text(job.user_prompt, kept) if actions else None
    return [texts[job] for job in jobs]


def first_share(actions: Sequence[int], strength: float, separator: int) -> list[int]:
    """Return the actions of the first modifiers: a share `strength` in (0, 1] of them, rounded up to whole ones."""
    ends = [index for index, token in enumerate(actions) if token == separator]
    kept = max(1, math.ceil(strength * (len(ends) + 1) - 1e-9))
    return list(actions) if kept > len(ends) else list(actions[: ends[kept - 1]])


def shortcomings(
    user_prompts: Sequence[str], results: Sequence[Refined], options: RefineOptions, token_limit: int
) -> list[str]:
    """Return a sentence for each way in which results fall short of the options."""
    pairs = list(zip(user_prompts, results, strict=True))
    weighted = [prompt for prompt, _ in pairs if ends_in_weight(prompt)]
    unchanged = [prompt for prompt, result in pairs if result.unchanged and not ends_in_weight(prompt)]
    short = list(dict.fromkeys(prompt for prompt, result in pairs if result.short))
    sentences = []
    if weighted:
        sentences.append(
            f"{_returned_unchanged(weighted)}: nothing may follow the weight at its end: {_shown(weighted[0])}"
        )
    if unchanged:
        limit = f"the generator's limit of {token_limit} tokens"
        budget = limit if options.token_budget is None else f"token_budget={options.token_budget}"
        sentences.append(
            f"{_returned_unchanged(unchanged)}: no modifier fits within {budget} and "
            f"max_new_tokens={options.max_new_tokens}: {_shown(unchanged[0])}"
        )
    if short:
        sentences.append(
            f"{len(short)} of {len(pairs)} prompts have fewer than {options.num_alternatives} alternatives: "
            f"{_shown(short[0])}"
        )
    return sentences


def _returned_unchanged(prompts: Sequence[str]) -> str:
    return "1 prompt was returned unchanged" if len(prompts) == 1 else f"{len(prompts)} prompts were returned unchanged"


def _shown(prompt: str) -> str:
    return repr(prompt if len(prompt) <= 60 else prompt[:57] + "...")
