"""Obedience: does the generator draw what its prompt asks for, as reader A sees it?"""

from __future__ import annotations

from prip.miniature.prompts import combinations, sample_modifiers, system_subject
from prip.miniature.reader import Reader
from prip.miniature.scene import FACTORS, parse
from prip.protocols import Generator
from prip.randomness import random_generator


def held_out_prompts(count: int) -> list[str]:
    """System prompts of test combinations, with two to five attributes each."""
    pairs = combinations("test")
    prompts = []
    for index in range(count):
        generator = random_generator("obedience", index)
        subject, place = pairs[index % len(pairs)]
        prompts.append(", ".join([system_subject(subject, place), *sample_modifiers(generator)]))
    return prompts


def measure_obedience(generator: Generator, reader: Reader, drawings: int) -> dict[str, float]:
    """Share of drawings that show what was asked for, by factor; each prompt counts for the factors that it names."""
    prompts = held_out_prompts(drawings)
    found = [p.argmax(1).tolist() for p in reader.read(generator(prompts, range(drawings)))]
    shares = {}
    for column, factor in enumerate(FACTORS):
        asked = [(row, parse(prompt)[factor]) for row, prompt in enumerate(prompts)]
        right = [found[column][row] == value for row, value in asked if value is not None]
        shares[factor] = sum(right) / max(1, len(right))
    return shares
