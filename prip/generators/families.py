"""How each family of diffusers pipelines encodes a prompt, and how many of its tokens it reads."""

from __future__ import annotations

import inspect
import logging
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .sur_adapter import SurAdapter

if TYPE_CHECKING:
    from diffusers.models.modeling_utils import ModelMixin

_TWO = ("prompt_embeds", "negative_prompt_embeds")
_FOUR = (*_TWO, "pooled_prompt_embeds", "negative_pooled_prompt_embeds")


@dataclass(frozen=True)
class Family:
    """How a family of pipelines encodes prompts."""

    encoded: tuple[str | None, ...]
    """Pipeline arguments for the values that `encode_prompt` returns, in order; None for a value that is dropped."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further arguments of `encode_prompt`, so that it encodes as the pipeline itself does."""
    tokenizer: str = "tokenizer"
    """Attribute of the tokenizer whose text encoder has the longest input."""
    encoder: str = "text_encoder"
    """Attribute of that text encoder; without it, a pipeline reads as much as its first one."""
    length: int | None = None
    """Longest input in tokens, start and end tokens included; None is the tokenizer's own maximum."""


FAMILIES = {
    "StableDiffusionPipeline": Family(_TWO),
    "StableDiffusionXLPipeline": Family(_FOUR),
    "StableDiffusion3Pipeline": Family(
        _FOUR, {"prompt_2": None, "prompt_3": None}, "tokenizer_3", "text_encoder_3", 256
    ),
    "FluxPipeline": Family(("prompt_embeds", "pooled_prompt_embeds", None), {}, "tokenizer_2", "text_encoder_2", 512),
    "IFPipeline": Family(_TWO, {"clean_caption": False}, length=77),
}
"""By the pipeline's class. Other pipelines encode their prompts themselves."""

TRUNCATION_MESSAGES = ("Token indices sequence length is longer", "The following part of your input was truncated")
"""How transformers and diffusers begin the messages that they log for a truncated prompt."""


def family_of(pipeline: Any) -> Family | None:
    """Return the family of a pipeline, by its class or a base class."""
    return family_named(kind.__name__ for kind in type(pipeline).__mro__)


def family_named(names: Iterable[str]) -> Family | None:
    """Return the family of the first class name that has one."""
    return next((FAMILIES[name] for name in names if name in FAMILIES), None)


def native_size(pipeline: Any) -> tuple[int, int]:
    """Return the (height, width) that a pipeline draws by default."""
    config: Any = denoiser(pipeline).config
    sample = getattr(pipeline, "default_sample_size", None) or config.sample_size
    height, width = (sample, sample) if isinstance(sample, int) else sample
    scale = getattr(pipeline, "vae_scale_factor", 1)
    return height * scale, width * scale


def denoiser(pipeline: Any) -> ModelMixin:
    """Return the denoising network: the UNet or the transformer."""
    unet = getattr(pipeline, "unet", None)
    return unet if unet is not None else pipeline.transformer


class PromptEncodings:
    """The text encoders' output by prompt, in a cache that drops the least recently used.

    Each prompt is encoded alone, so that its embedding depends neither on the batch nor on earlier ones.
    """

    def __init__(self, pipeline: Any, family: Family, capacity: int, adapter: SurAdapter | None = None) -> None:
        """Cache up to `capacity` prompts, whose embeddings `adapter` transforms if there is one."""
        self.pipeline = pipeline
        self.family = family
        self.capacity = capacity
        self.adapter = adapter
        self._kept: OrderedDict[tuple[str, bool], dict[str, Tensor]] = OrderedDict()
        self._negative: dict[str, Tensor] | None = None

    def __len__(self) -> int:
        return len(self._kept)

    def __call__(self, prompts: Sequence[str], guided: bool) -> dict[str, Tensor]:
        """Return the pipeline's arguments for these prompts, each `(batch, ...)`, with negative ones if guided."""
        adapted = self.adapter is not None
        rows = [self._row(prompt, guided and adapted) for prompt in prompts]
        arguments = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
        if guided and not adapted:
            for name, value in self._without_prompt().items():
                arguments[name] = value.expand(len(prompts), *value.shape[1:])
        return arguments

    def to(self, device: torch.device) -> None:
        """Move the cached embeddings and the adapter."""
        if self.adapter is not None:
            self.adapter.to(device)
        for row in (*self._kept.values(), self._negative or {}):
            row.update({name: value.to(device) for name, value in row.items()})

    def _row(self, prompt: str, with_negative: bool) -> dict[str, Tensor]:
        """Return one prompt's embeddings; an adapter makes the negative one depend on the prompt too."""
        row = self._kept.pop((prompt, with_negative), None)
        if row is None:
            row = self._encode(prompt, guided=False)
            if self.adapter is not None:
                row = self._adapted(row["prompt_embeds"], with_negative)
        self._kept[prompt, with_negative] = row
        if len(self._kept) > self.capacity:
            self._kept.popitem(last=False)
        return row

    def _adapted(self, embedding: Tensor, with_negative: bool) -> dict[str, Tensor]:
        assert self.adapter is not None
        negative = self._without_prompt()["negative_prompt_embeds"] if with_negative else None
        adapted = zip(_TWO, self.adapter.condition(embedding, negative), strict=True)
        return {name: value for name, value in adapted if value is not None}

    def _without_prompt(self) -> dict[str, Tensor]:
        if self._negative is None:
            encoded = self._encode("", guided=True)
            self._negative = {name: value for name, value in encoded.items() if name.startswith("negative")}
        return self._negative

    def _encode(self, prompt: str, guided: bool) -> dict[str, Tensor]:
        encode = self.pipeline.encode_prompt
        options: dict[str, Any] = {"device": self.pipeline.device, "num_images_per_prompt": 1, **self.family.options}
        if "do_classifier_free_guidance" in inspect.signature(encode).parameters:
            options["do_classifier_free_guidance"] = guided
        encoded = zip(self.family.encoded, encode(prompt=[prompt], **options), strict=True)
        return {name: value for name, value in encoded if name is not None and value is not None}


@contextmanager
def unlogged_truncation(pipelines: Iterable[Any]) -> Iterator[None]:
    """Suppress the messages that tokenizers and these pipelines log, at length, for each truncated prompt.

    `token_limit` and `count_tokens` of a generator tell how much is read.
    """
    modules = {kind.__module__ for pipeline in pipelines for kind in type(pipeline).__mro__}
    names = ["transformers.tokenization_utils_base", *(name for name in modules if name.startswith("diffusers."))]
    loggers = [logging.getLogger(name) for name in names]
    log_filter = _TruncationFilter()  # one per call: several may run at once
    for logger in loggers:
        logger.addFilter(log_filter)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(log_filter)


class _TruncationFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith(TRUNCATION_MESSAGES)
