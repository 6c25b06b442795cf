"""What differs between families of diffusers pipelines: how a prompt is encoded, and how much of it is read."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from .sur_adapter import SurAdapter

_TWO = ("prompt_embeds", "negative_prompt_embeds")
_FOUR = (*_TWO, "pooled_prompt_embeds", "negative_pooled_prompt_embeds")


@dataclass(frozen=True)
class Family:
    """A family of pipelines."""

    encoded: tuple[str | None, ...]
    """The arguments of the pipeline that take what its `encode_prompt` returns, in that order; None: not an argument"""
    options: dict[str, Any] = field(default_factory=dict)
    """What `encode_prompt` is called with besides, so that it encodes as the pipeline itself does"""
    tokenizer: str = "tokenizer"
    """The tokenizer of the text encoder that reads furthest"""
    encoder: str = "text_encoder"
    """That text encoder; a pipeline without it reads as far as its first one"""
    length: int | None = None
    """Tokens that it reads, those that frame a text included; None is the tokenizer's own maximum"""


FAMILIES = {
    "StableDiffusionPipeline": Family(_TWO),
    "StableDiffusionXLPipeline": Family(_FOUR),
    "StableDiffusion3Pipeline": Family(
        _FOUR, {"prompt_2": None, "prompt_3": None}, "tokenizer_3", "text_encoder_3", 256
    ),
    "FluxPipeline": Family(("prompt_embeds", "pooled_prompt_embeds", None), {}, "tokenizer_2", "text_encoder_2", 512),
    "IFPipeline": Family(_TWO, {"clean_caption": False}, length=77),
}
"""By the pipeline's class. Any other pipeline encodes its prompts itself, and is counted by its first tokenizer."""


TASKS = ("Img2Img", "Inpaint", "ControlNet")
"""What the names of a family's pipelines for other tasks have besides: those read a prompt as its own class does."""


def family_of(pipeline: Any) -> Family | None:
    """Returns the family of a pipeline, by its class or one that it inherits from."""
    names = [kind.__name__ for kind in type(pipeline).__mro__]
    return next((FAMILIES[name] for name in names if name in FAMILIES), None)


class PipelineTokens:
    """How a pipeline reads a prompt: by the tokenizer of its text encoder that reads furthest.

    Where CLIP and a T5 read the same prompt (Stable Diffusion 3, Flux), that is the T5: what CLIP cuts off, the T5
    still reads. Two CLIPs (Stable Diffusion XL) read equally far, by the same tokens.
    """

    def __init__(self, pipeline: Any) -> None:
        """Raises InputError for a pipeline that has no tokenizer."""
        family = _reading_family(pipeline)
        reads = family is not None and getattr(pipeline, family.encoder, None) is not None
        named = getattr(pipeline, family.tokenizer, None) if family and reads else None
        self.tokenizer: Any = named if named is not None else getattr(pipeline, "tokenizer", None)
        if self.tokenizer is None:
            raise InputError(f"pipeline: wanted one with a tokenizer, a {type(pipeline).__name__} came")
        length = family.length if family and named is not None and family.length else self.tokenizer.model_max_length
        self.frame = self.tokenizer.num_special_tokens_to_add()
        """Tokens that frame every text"""
        self.token_limit = length - self.frame
        """Tokens of a text that are read"""

    def count_tokens(self, text: str) -> int:
        """Returns how many tokens a text has, without those that frame it."""
        return len(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _reading_family(pipeline: Any) -> Family | None:
    """Returns the family by whose encoders a pipeline reads: of its own class, or of the class that it varies."""
    names = [kind.__name__ for kind in type(pipeline).__mro__]
    for task in TASKS:
        names += [name.replace(task, "") for name in names if task in name]
    return next((FAMILIES[name] for name in names if name in FAMILIES), None)


def native_size(pipeline: Any) -> tuple[int, int]:
    """Returns (height, width) that a pipeline draws when it is not told."""
    sample = getattr(pipeline, "default_sample_size", None) or denoiser(pipeline).config.sample_size
    height, width = (sample, sample) if isinstance(sample, int) else sample
    scale = getattr(pipeline, "vae_scale_factor", 1)
    return height * scale, width * scale


def denoiser(pipeline: Any) -> Any:
    """Returns the network that denoises: the UNet or the transformer."""
    unet = getattr(pipeline, "unet", None)
    return unet if unet is not None else pipeline.transformer


class PromptEncodings:
    """The text encoders' output by prompt, each computed once and kept while there is room.

    A prompt is encoded by itself, so that its embedding is a function of the prompt alone: not of the batch, nor of
    what was drawn before.
    """

    def __init__(self, pipeline: Any, family: Family, capacity: int, adapter: SurAdapter | None = None) -> None:
        """capacity: prompts that are kept. adapter: what their embeddings go through."""
        self.pipeline = pipeline
        self.family = family
        self.capacity = capacity
        self.adapter = adapter
        self._kept: OrderedDict[tuple[str, bool], dict[str, Tensor]] = OrderedDict()
        self._negative: dict[str, Tensor] | None = None

    def __len__(self) -> int:
        return len(self._kept)

    def __call__(self, prompts: Sequence[str], guided: bool) -> dict[str, Tensor]:
        """Returns the pipeline's arguments for these prompts, each (batch, ...); with the negative ones if guided."""
        adapted = self.adapter is not None
        rows = [self._row(prompt, guided and adapted) for prompt in prompts]
        arguments = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
        if guided and not adapted:
            for name, value in self._without_prompt().items():
                arguments[name] = value.expand(len(prompts), *value.shape[1:])
        return arguments

    def to(self, device: torch.device) -> None:
        """Moves what is kept, and the adapter."""
        if self.adapter is not None:
            self.adapter.to(device)
        for row in (*self._kept.values(), self._negative or {}):
            row.update({name: value.to(device) for name, value in row.items()})

    def _row(self, prompt: str, with_negative: bool) -> dict[str, Tensor]:
        """with_negative: whether the negative embedding, which an adapter makes a function of the prompt, is wanted."""
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
