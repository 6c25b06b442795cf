"""Random numbers that depend only on an image's seed, whatever batch it is drawn in."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from ..errors import InputError
from ..randomness import random_generator

_PREPARING = ("prepare_latents", "prepare_intermediate_images")
"""Pipeline methods that draw the initial noise."""

STREAMS = ("latents", "steps")
"""Streams of an image's random numbers: the initial noise, and all later noise."""
UPSCALER_STREAMS = ("upscaler latents", "upscaler steps")
"""Those of a second stage; the noise on the small image is later noise."""


@contextmanager
def seeded(pipeline: Any, seeds: Sequence[int], streams: tuple[str, str] = STREAMS) -> Iterator[list[torch.Generator]]:
    """Yield one torch generator per image, for a call of the pipeline inside the context.

    The initial noise is drawn in float32 on the CPU, so that it is the same for every dtype and device, in the shape
    that the pipeline asks for. Samplers that add noise draw it from the second of the two streams.
    """
    initial, later = streams
    generators = [random_generator(initial, seed) for seed in seeds]
    name = next((name for name in _PREPARING if hasattr(pipeline, name)), None)
    if name is None:
        yield generators
        return
    prepare = getattr(pipeline, name)
    signature = inspect.signature(prepare)

    def prepared(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        dtype = bound.arguments["dtype"]
        bound.arguments["dtype"] = torch.float32
        noise = prepare(*bound.args, **bound.kwargs)
        for generator, seed in zip(generators, seeds, strict=True):
            generator.set_state(random_generator(later, seed).get_state())
        return tuple(tensor.to(dtype) for tensor in noise) if isinstance(noise, tuple) else noise.to(dtype)

    setattr(pipeline, name, prepared)
    try:
        yield generators
    finally:
        delattr(pipeline, name)


@contextmanager
def no_other_randomness(device: torch.device, user: str) -> Iterator[None]:
    """Raise InputError, naming `user`, if torch's global random numbers are used inside."""
    before = _global_states(device)
    yield
    if any(not torch.equal(old, new) for old, new in zip(before, _global_states(device), strict=True)):
        raise InputError(f"{user} draws random numbers that do not depend on an image's seed; choose another scheduler")


def _global_states(device: torch.device) -> list[torch.Tensor]:
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return states
