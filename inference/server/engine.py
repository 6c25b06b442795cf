"""What answers requests: a refiner, and a generator with rewards where one is loaded, each behind a Batcher."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

from prip.options import RefineOptions
from prip.pictures import as_picture
from prip.protocols import Images
from prip.refiner import Refined, Refiner

from ..comparison.workbench import Workbench
from .batching import Batcher
from .metrics import Metrics
from .settings import ServerSettings

IMAGES_WAITING = 256
"""Twice what one request may ask for."""


@dataclass(frozen=True)
class RefineGroup:
    """Prompts that can share a batch: all their options but the seed are equal."""

    options: RefineOptions
    for_generator: bool


@dataclass(frozen=True)
class Drawing:
    """One image to draw: from a text, to be scored for the user prompt."""

    user_prompt: str
    text: str
    seed: int


@dataclass(frozen=True)
class Drawn:
    """One image: a PNG file in base64, and its score by each reward."""

    png: str
    scores: dict[str, float]


class Engine:
    """Refines and draws in threads of its own; a result depends on its prompt, options and seed alone."""

    def __init__(
        self,
        refiner: Refiner,
        model: str,
        settings: ServerSettings,
        metrics: Metrics,
        bench: Workbench | None = None,
    ) -> None:
        """model: the name under which clients know the refiner. bench: with a generator, what /v1/images uses."""
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
        """Return the future of what `refine` makes of the prompts; the budget is counted by the generator if
        `for_generator`. Raises QueueFull."""
        group = RefineGroup(replace(options, seed=0, batch_size=self._max_batch), for_generator)
        return self._refining.submit(group, [(prompt, options.seed) for prompt in user_prompts])

    def shortcomings(
        self,
        user_prompts: Sequence[str],
        results: Sequence[Refined],
        options: RefineOptions,
        for_generator: bool = False,
    ) -> list[str]:
        """Return what `refine` would warn of."""
        return self._refiner_for(for_generator).shortcomings(user_prompts, results, options)

    def count_tokens(self, user_prompts: Sequence[str], results: Sequence[Refined]) -> tuple[int, int]:
        """Return how many of the decoder's tokens it read of the prompts, and how many there are in what was added."""
        processor, added = self._refiner.processor, []
        for prompt, result in zip(user_prompts, results, strict=True):
            start = len(processor.prefix(prompt))
            added += [] if result.unchanged else [text[start:] for text in result.texts]
        encode = processor.decoder_tokenizer.encode
        read = sum(len(processor.prefix_ids(prompt)) for prompt in user_prompts)
        return read, sum(len(encode(text, add_special_tokens=False, verbose=False)) for text in added)

    def draw(self, drawings: Sequence[Drawing], time_s: float) -> Future[list[Drawn]]:
        """Return the future of the images, which are drawn within time_s or not at all. Raises Refused, as the future
        may."""
        assert self._drawing is not None, "no generator is loaded"
        return self._drawing.submit(None, drawings, time_s)

    @property
    def works(self) -> bool:
        """Whether the threads that refine and draw are there."""
        return all(batcher is None or batcher.failure is None for batcher in (self._refining, self._drawing))

    def close(self) -> None:
        """Finish all that waits, and end the threads."""
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
            Drawn(_png(image), {name: values[place] for name, values in scores.items()})
            for place, image in enumerate(images)
        ]


def _png(image: Images) -> str:
    """Return an image, uint8 `(3, height, width)`, as a PNG file in base64."""
    buffer = io.BytesIO()
    as_picture(image).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
