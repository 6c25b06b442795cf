"""The models behind the server: a refiner, and optionally a generator with rewards, each behind a Batcher."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from prip.options import RefineOptions
from prip.pictures import as_picture
from prip.protocols import Images
from prip.refiner import Refined, Refiner

from ..comparison.workbench import Workbench
from .batching import Batcher
from .metrics import Metrics
from .settings import ServerSettings

IMAGES_WAITING = 256
"""Most images in the queue: twice the most of one request."""

Result = TypeVar("Result")


class TimedOut(Exception):
    """There was no answer in time."""


class ClientGone(Exception):
    """The client disconnected before its answer was ready."""


@dataclass(frozen=True)
class RefineGroup:
    """What prompts must have in common to share a batch: all options except the seed."""

    options: RefineOptions
    for_generator: bool


@dataclass(frozen=True)
class Drawing:
    """An image to draw from `text` and to score for `user_prompt`."""

    user_prompt: str
    text: str
    seed: int


@dataclass(frozen=True)
class Drawn:
    """A drawn image: a PNG file in base64, and its score by each reward."""

    png: str
    scores: dict[str, float]


class Engine:
    """Refines and draws in its own threads. A result depends only on its prompt, options and seed.

    Args:
        model: Name of the refiner for clients.
        bench: Loads the generator and rewards of /v1/images; None without images.
    """

    def __init__(
        self, refiner: Refiner, model: str, settings: ServerSettings, metrics: Metrics, bench: Workbench | None = None
    ) -> None:
        self.model = model
        self.generator = None if bench is None else bench.generator
        self._refiner = refiner
        self._bench = bench
        self._max_batch = settings.max_batch
        self._refining = Batcher(
            self._refine,
            settings.max_batch,
            settings.max_wait_ms,
            settings.queue_size,
            weight=lambda group: group.options.num_alternatives,
            on_batch=metrics.refine_batch.observe,
        )
        metrics.follow_queue("refine", lambda: self._refining.waiting)
        self._drawing: Batcher[None, Drawing, Drawn] | None = None
        if self.generator is not None:
            drawing = Batcher(
                self._draw,
                settings.max_draw_batch,
                settings.max_wait_ms,
                IMAGES_WAITING,
                on_batch=metrics.draw_batch.observe,
            )
            self._drawing = drawing
            metrics.follow_queue("draw", lambda: drawing.waiting)

    def refine(
        self, user_prompts: Sequence[str], options: RefineOptions, for_generator: bool = False
    ) -> Future[list[Refined]]:
        """Return the future of the refined prompts; `for_generator` counts the token budget as the generator does.

        Raises:
            QueueFull: The prompts do not fit into the queue.
        """
        group = RefineGroup(replace(options, seed=0, batch_size=self._max_batch), for_generator)
        return self._refining.submit(group, [(prompt, options.seed) for prompt in user_prompts])

    def shortcomings(
        self,
        user_prompts: Sequence[str],
        results: Sequence[Refined],
        options: RefineOptions,
        for_generator: bool = False,
    ) -> list[str]:
        """Return the warnings that `prip.refine` would give."""
        return self._refiner_for(for_generator).shortcomings(user_prompts, results, options)

    def count_tokens(self, user_prompts: Sequence[str], results: Sequence[Refined]) -> tuple[int, int]:
        """Return the number of prompt tokens and of added tokens, both counted by the prompt decoder's tokenizer."""
        processor, added = self._refiner.processor, []
        for prompt, result in zip(user_prompts, results, strict=True):
            start = len(processor.prefix(prompt))
            added += [] if result.unchanged else [text[start:] for text in result.texts]
        encode = processor.decoder_tokenizer.encode
        read = sum(len(processor.prefix_ids(prompt)) for prompt in user_prompts)
        return read, sum(len(encode(text, add_special_tokens=False, verbose=False)) for text in added)

    def draw(self, drawings: Sequence[Drawing], time_s: float) -> Future[list[Drawn]]:
        """Return the future of the images, drawn within `time_s` seconds or not at all.

        Raises:
            Refused: There is no room or no time. The future may raise it too.
        """
        assert self._drawing is not None, "no generator is loaded"
        return self._drawing.submit(None, drawings, time_s)

    @property
    def works(self) -> bool:
        """Whether the refining and drawing threads are alive."""
        return all(batcher is None or batcher.failure is None for batcher in (self._refining, self._drawing))

    def close(self) -> None:
        """Finish all waiting work, then end the threads."""
        self._refining.close()
        if self._drawing is not None:
            self._drawing.close()

    def _refiner_for(self, for_generator: bool) -> Refiner:
        return self._bench.refiner if for_generator and self._bench is not None else self._refiner

    def _refine(self, group: RefineGroup, jobs: Sequence[tuple[str, int]]) -> list[Refined]:
        prompts, seeds = zip(*jobs, strict=True)
        return self._refiner_for(group.for_generator).refine_each(prompts, seeds, group.options)

    def _draw(self, _group: None, jobs: Sequence[Drawing]) -> list[Drawn]:
        assert self._bench is not None
        user_prompts, texts = [job.user_prompt for job in jobs], [job.text for job in jobs]
        images, scores = self._bench.draw(user_prompts, texts, [job.seed for job in jobs])
        return [
            Drawn(_png(image), {name: values[index] for name, values in scores.items()})
            for index, image in enumerate(images)
        ]


def _png(image: Images) -> str:
    """Return an image, uint8 `(3, height, width)`, as a PNG file in base64."""
    buffer = io.BytesIO()
    as_picture(image).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


async def answer_of(
    future: Future[Result], receive: Callable[[], Awaitable[Any]], deadline: float, timeout_s: float
) -> Result:
    """Wait for a future's result; cancel it, and so take its work out of the queue, if the wait ends without one.

    Args:
        receive: The request's ASGI channel, with the body already read.
        deadline: On the event loop's clock.
        timeout_s: The time limit that set the deadline, for the error message.

    Raises:
        TimedOut: The deadline has passed.
        ClientGone: The client disconnected.
    """
    waiting: asyncio.Future[Result] = asyncio.wrap_future(future)
    gone: asyncio.Future[None] = asyncio.ensure_future(_disconnect(receive))
    try:
        left = max(0.0, deadline - asyncio.get_running_loop().time())
        watched: set[asyncio.Future[Any]] = {waiting, gone}
        await asyncio.wait(watched, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            return waiting.result()
        if gone.done():
            raise ClientGone
        raise TimedOut(f"no answer within {timeout_s:g} seconds")
    finally:
        waiting.cancel()
        gone.cancel()


async def _disconnect(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
