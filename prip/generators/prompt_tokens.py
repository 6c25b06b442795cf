"""What a pipeline's text encoders read of a prompt: the tokens of its conversion, cleaning and templates included."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .families import Family, family_named

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TASKS = ("Img2Img", "Inpaint", "ControlNet")
"""Parts of the class names of a family's pipelines for other tasks, which read prompts as the family does."""

_PAIRS = (("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2"))
_BESIDE = "a"
"""A word that no cleaning changes. Parts of a prompt are counted between two of them: cleaning strips marks at the ends
of a text only."""


class PipelineTokens:
    """Counts what a pipeline's text encoder with the longest input reads.

    If CLIP and a T5 read the same prompt (Stable Diffusion 3, Flux), that is the T5, which still reads what CLIP
    truncates. Of two CLIPs (Stable Diffusion XL), the one that makes more tokens of a text counts: they may know
    different textual inversions.
    """

    def __init__(self, pipeline: Any, clean_caption: bool | None = None) -> None:
        """Find the tokenizers.

        Args:
            pipeline: A pipeline of diffusers.
            clean_caption: As the pipeline's own argument; None is its default.

        Raises:
            InputError: The pipeline has no tokenizer.
        """
        self._pipeline = pipeline
        self.tokenizers, length = _reading_tokenizers(pipeline)
        parameters = inspect.signature(type(pipeline).__call__).parameters
        default = {name: parameters[name].default for name in _READ if name in parameters}
        self.frame = max(tokenizer.num_special_tokens_to_add() for tokenizer in self.tokenizers)
        """Number of tokens that are read besides those of the prompt: start, end, and what joins a template."""
        self.frame += bool(default.get("complex_human_instruction"))
        if isinstance(system_prompt := getattr(pipeline, "system_prompt", None), str):  # Lumina 2
            self.frame += _length(self.tokenizers[0], f"{system_prompt} <Prompt Start> ")
        self.token_limit = length - self.frame
        """Tokens of a prompt that are read at most."""
        shorter = default.get("max_sequence_length")
        self.default_limit = min(length, shorter) - self.frame if isinstance(shorter, int) else self.token_limit
        """Tokens of a prompt that are read unless a call gives another max_sequence_length."""
        wanted = default.get("clean_caption", False) if clean_caption is None else clean_caption
        self._clean_caption = bool(wanted) and _can_clean()

    def count_tokens(self, text: str) -> int:
        """Count the tokens of a text as a part of a prompt, without start and end tokens."""
        return max(self._count(text, tokenizer) for tokenizer in self.tokenizers)

    def _count(self, text: str, tokenizer: PreTrainedTokenizerBase) -> int:
        if hasattr(self._pipeline, "maybe_convert_prompt"):
            text = self._pipeline.maybe_convert_prompt(text, tokenizer)
        if not hasattr(self._pipeline, "_text_preprocessing"):
            return _length(tokenizer, text)
        between = self._prepared(f"{_BESIDE} {text} {_BESIDE}")
        return max(0, _length(tokenizer, between) - 2 * _length(tokenizer, _BESIDE))

    def _prepared(self, text: str) -> str:
        """Return a text in lower case or cleaned, as the pipeline's encoder gets it."""
        (prepared,) = self._pipeline._text_preprocessing(text, clean_caption=self._clean_caption)
        return prepared


_READ = ("max_sequence_length", "complex_human_instruction", "clean_caption")
"""Arguments of pipelines that decide what is read."""


def _length(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    return len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _can_clean() -> bool:
    """Return whether diffusers can clean captions; without these packages it only lowers their case."""
    from diffusers.utils import is_bs4_available, is_ftfy_available

    return is_bs4_available() and is_ftfy_available()


def _reading_tokenizers(pipeline: Any) -> tuple[list[PreTrainedTokenizerBase], int]:
    """Return the tokenizers of the text encoders with the longest input, and that length."""
    family = _reading_family(pipeline)
    if family and family.length and getattr(pipeline, family.encoder, None) is not None:
        longest = getattr(pipeline, family.tokenizer, None)
        if longest is not None:
            return [longest], family.length
    pairs = [(getattr(pipeline, tokenizer, None), getattr(pipeline, encoder, None)) for tokenizer, encoder in _PAIRS]
    if family is None:
        pairs = pairs[:1]
    found = [tokenizer for tokenizer, encoder in pairs if tokenizer is not None and encoder is not None]
    found = found or [tokenizer for tokenizer, _ in pairs if tokenizer is not None]
    if not found:
        raise InputError(f"pipeline: expected one with a tokenizer, got {type(pipeline).__name__}")
    return found, min(tokenizer.model_max_length for tokenizer in found)


def _reading_family(pipeline: Any) -> Family | None:
    """Return the family whose encoders a pipeline has, also if it is for another task, such as inpainting."""
    names = [kind.__name__ for kind in type(pipeline).__mro__]
    for task in TASKS:
        names += [name.replace(task, "") for name in names if task in name]
    return family_named(names)
