"""Every random number of an image from its own seed, whatever batch it is drawn in."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from ..errors import InputError
from ..randomness import random_generator

_PREPARING = ("prepare_latents", "prepare_intermediate_images")
"""The pipelines' methods that draw the initial noise."""


STREAMS = ("latents", "steps")
"""Of an image's random numbers: the initial noise, and all that comes later."""


@contextmanager
def seeded(pipeline: Any, seeds: Sequence[int], streams: tuple[str, str] = STREAMS) -> Iterator[list[torch.Generator]]:
    """Yields the generators, one an image, with which the pipeline is to be called. streams: as in STREAMS.

    The initial noise is drawn in float32 on the CPU, so that it is the same at every dtype and on every device, in the
    shape that the pipeline itself asks for. Samplers that add noise draw it from a stream of its own.
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
        given = signature.bind(*args, **kwargs)
        dtype = given.arguments["dtype"]
        given.arguments["dtype"] = torch.float32
        noise = prepare(*given.args, **given.kwargs)
        for generator, seed in zip(generators, seeds, strict=True):
            generator.set_state(random_generator(later, seed).get_state())
        return tuple(one.to(dtype) for one in noise) if isinstance(noise, tuple) else noise.to(dtype)

    setattr(pipeline, name, prepared)
    try:
        yield generators
    finally:
        delattr(pipeline, name)


@contextmanager
def no_other_randomness(device: torch.device, what: str) -> Iterator[None]:
    """Raises InputError when torch's global random numbers are used inside: `what` then depends on more than seeds."""
    before = _global_states(device)
    yield
    if any(not torch.equal(old, new) for old, new in zip(before, _global_states(device), strict=True)):
        raise InputError(f"{what} draws random numbers that do not come from an image's seed; choose another scheduler")


def _global_states(device: torch.device) -> list[torch.Tensor]:
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return states
