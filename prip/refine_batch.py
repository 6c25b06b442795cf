"""Refine many prompts with the same options, in batches, and report results that fall short of the options."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .control.styles import with_styles
from .decoding.alternatives import ATTEMPTS, Job, find_alternatives
from .options import RefineOptions
from .text.prompts import has_words
from .text.regions import join_regions, split_regions
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
    """Return the texts of each prompt with its own seed; `options.seed` is not read.

    With `options.webui_syntax`, each region of a prompt is refined in a chunk of its own.
    """
    if options.strength == 0:
        return [Refined([prompt]) for prompt in user_prompts]
    if options.webui_syntax and any(len(split_regions(prompt)[0]) > 1 for prompt in user_prompts):
        return _refine_regions(sampler, user_prompts, seeds, options)
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


def _refine_regions(
    sampler: PromptSampler, user_prompts: Sequence[str], seeds: Sequence[int], options: RefineOptions
) -> list[Refined]:
    """Return the texts of prompts, some of which have several regions."""
    single = [len(split_regions(prompt)[0]) == 1 for prompt in user_prompts]
    pairs = list(zip(user_prompts, seeds, strict=True))
    whole = [pair for pair, is_single in zip(pairs, single, strict=True) if is_single]
    results = iter(refine_batch(sampler, [prompt for prompt, _ in whole], [seed for _, seed in whole], options))
    regional = {
        pair: _refine_each_region(sampler, *pair, options) for pair in dict.fromkeys(pairs) if pair not in whole
    }
    return [next(results) if is_single else regional[pair] for pair, is_single in zip(pairs, single, strict=True)]


def _refine_each_region(sampler: PromptSampler, user_prompt: str, seed: int, options: RefineOptions) -> Refined:
    """Return the texts of a prompt with several regions: each gains, and agrees with the others."""
    wanted, texts = options.num_alternatives, list[str]()
    for number in range(ATTEMPTS if wanted > 1 else 1):
        degree = options.temperature if number == 0 else options.temperature or 1.0
        text = _with_each_region(sampler, user_prompt, Job("", seed, number), replace(options, temperature=degree))
        texts += [text] if text not in texts else []
        if len(texts) == wanted:
            break
    return Refined(texts, unchanged=texts[0] == user_prompt, short=len(texts) < wanted)


def _with_each_region(sampler: PromptSampler, user_prompt: str, job: Job, options: RefineOptions) -> str:
    """Return a prompt in which each region with words gains modifiers."""
    regions, separators = split_regions(user_prompt)
    for index, region in enumerate(list(regions)):
        if not has_words(region):
            continue
        styled = with_styles(region, options.styles)
        context = ", ".join(text for number, text in enumerate(regions) if number != index)
        extensible = not ends_in_weight(styled)
        own = job._replace(user_prompt=styled, context=context)
        regions[index] = (_sample(sampler, [own], options)[0] if extensible else None) or styled
        if regions[index] != region and separators[index : index + 1] and separators[index][0].isalpha():
            regions[index] += " "
    return join_regions(regions, separators)


def _sample(sampler: PromptSampler, jobs: Sequence[Job], options: RefineOptions) -> list[str | None]:
    """Return the text of each job, or None if no modifier fits; equal jobs are sampled once."""
    distinct = list(dict.fromkeys(jobs))
    texts: dict[Job, str | None] = {}
    for start in range(0, len(distinct), options.batch_size):
        batch = distinct[start : start + options.batch_size]
        seeds = [(job.seed, job.alternative) for job in batch]
        prompts, contexts = [job.user_prompt for job in batch], [job.context for job in batch]
        sampled = sampler.sample(prompts, seeds, options, contexts=contexts)
        for job, actions in zip(batch, sampled, strict=True):
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
            f"{_returned_unchanged(weighted)}: nothing may follow the weights at its end: {_shown(weighted[0])}"
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
