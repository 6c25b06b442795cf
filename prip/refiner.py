"""Refiner: turns user prompts into system prompts (preference encoder, then prompt decoder)."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, Unpack, overload

import torch

from .decoding.sampler import PromptSampler
from .devices import as_device, as_dtype
from .errors import CheckpointError, InputError, warn
from .loading.folders import EMBEDDED, RefinerFolder
from .loading.untrusted import read_json
from .modeling import PripModel
from .modeling.quantization import check_quantization, is_quantized, quantize
from .options import OneTextOptionsDict, RefineOptions, RefineOptionsDict, lists_options, with_seeds
from .processing import PripProcessor
from .refine_batch import Refined, refine_batch, shortcomings
from .text.prompts import check_user_prompts
from .text.token_counter import TokenCounter

if TYPE_CHECKING:
    from .protocols import CountsTokens

Model: TypeAlias = "str | os.PathLike[str]"
Several = Literal[2, 3, 4, 5, 6, 7, 8]
"""Values of num_alternatives for which type checkers know that each prompt gives a list."""

RECORD_FILE = "training.json"
"""Record of a checkpoint's training, beside its parts."""


class Refiner:
    """Refines prompts with one loaded model; as a `PromptRefiner` it is called with user prompts and seeds."""

    def __init__(
        self,
        model: PripModel,
        processor: PripProcessor,
        name: str = "prip",
        record: dict[str, Any] | None = None,
        counter: TokenCounter | None = None,
    ) -> None:
        """Create a refiner from a model and its tokenizers.

        Args:
            model: Preference encoder and prompt decoder, which are put into evaluation mode.
            processor: Their tokenizers.
            name: The refiner's name in tables.
            record: Record of its training, as in training.json.
            counter: Counts the token budget, and sets its default. None counts CLIP's tokens.

        Raises:
            CheckpointError: A part of the model has no tokenizer, or a smaller vocabulary than its tokenizer.
        """
        self.model = model.eval()
        self.processor = processor
        self.name = name
        self.record = record
        self.sampler = PromptSampler(model, processor, counter)

    def __repr__(self) -> str:
        """Return the refiner's name, size, device, dtype and token limit."""
        weights = [*self.model.parameters()]
        size = f"{sum(weight.numel() for weight in weights) / 1e6:.1f}M parameters"
        return f"Refiner({self.name!r}, {size}, {self.device}, {weights[0].dtype}, token_limit={self.token_limit})"

    @classmethod
    def from_pretrained(
        cls,
        model: str | os.PathLike[str] | RefinerFolder = "prip-mini",
        revision: str | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        quantization: str | None = None,
        compile: bool = False,
    ) -> Refiner:
        """Load a refiner, alone or from a whole checkpoint.

        Args:
            model: An embedded checkpoint, a folder, or "owner/name" on the Hub.
            revision: Branch, tag or commit on the Hub.
            device: None is a GPU if there is one.
            dtype: A dtype, its name, or "auto" for the checkpoint's own. None is float32 on the CPU, else "auto".
            quantization: "int8" stores the weights of linear layers in 8 bits (extra `quantize`).
            compile: Compile both models with torch.compile; the first prompts then take minutes.

        Raises:
            CheckpointError: The checkpoint is unknown, damaged or foreign.
            InputError: The device, the dtype or the quantization cannot be used.
            MissingExtraError: The extra `quantize` is needed and not installed.
        """
        check_quantization(quantization)
        target = as_device(device)
        folder = RefinerFolder.open(model, revision)
        if dtype is None:
            dtype = "float32" if target.type == "cpu" else "auto"
        loaded = PripModel.from_pretrained(folder, dtype=dtype)
        try:
            record_file = folder.path / RECORD_FILE
            record = read_json(record_file) if record_file.is_file() else None
            refiner = cls(loaded.to(target), PripProcessor.from_pretrained(folder), record=record)
        except InputError as error:
            raise CheckpointError(f"{folder.path}: {error}") from error
        if quantization is not None:
            quantize(loaded, quantization)
        if compile:
            loaded.compile_parts()
        return refiner

    def save_pretrained(self, save_directory: str | os.PathLike[str], max_shard_size: str = "5GB") -> None:
        """Save the models (in shards of `max_shard_size`), the tokenizers, and training.json if there is a record."""
        folder = Path(save_directory)
        self.model.save_pretrained(folder, max_shard_size=max_shard_size)
        self.processor.save_pretrained(folder)
        if self.record is not None:
            text = json.dumps(self.record, indent=2, ensure_ascii=False)
            (folder / RECORD_FILE).write_text(text + "\n", encoding="utf-8")

    def push_to_hub(
        self,
        repo_id: str,
        private: bool | None = None,
        revision: str | None = None,
        commit_message: str | None = None,
        license: str | None = None,
    ) -> str:
        """Publish this refiner on the Hub with a model card.

        Args:
            repo_id: "owner/name".
            private: True creates a private repository and refuses a public one; None is the account's default.
            revision: Branch to publish to, created if it does not exist.
            commit_message: Message of the commit.
            license: The Hub's identifier of a license.

        Returns:
            The hash of the commit.

        Raises:
            CheckpointError: The Hub refuses the upload or cannot be reached.
        """
        from .hub.model_card import refiner_card
        from .hub.publish import publish

        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            card = refiner_card(repo_id, self.record, license)
            (Path(folder) / "README.md").write_text(card, encoding="utf-8")
            return publish(folder, repo_id, private, revision, commit_message)

    @property
    def device(self) -> torch.device:
        """Device of the models."""
        return self.model.device

    def to(self, device: str | torch.device, dtype: str | torch.dtype | None = None) -> Refiner:
        """Move the models, which are shared with refiners from `counted_by`, and return this refiner.

        Args:
            device: Device to move to. A compiled model is compiled again there.
            dtype: Dtype to convert to; None keeps the current one, even half precision on the CPU.

        Raises:
            InputError: The device cannot be used, or `dtype` is given for a quantized refiner.
        """
        if dtype is not None and is_quantized(self.model):
            raise InputError(f"dtype: expected None for a quantized refiner, got {dtype!r}")
        self.model.to(as_device(device), None if dtype is None else as_dtype(dtype))
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle the parts, without resolving or loading the checkpoint again."""
        return Refiner, (self.model, self.processor, self.name, self.record, self.sampler.counter)

    @property
    def token_limit(self) -> int:
        """Default token budget: all that the generator's text encoder reads."""
        return self.sampler.token_limit

    def counted_by(self, generator: CountsTokens) -> Refiner:
        """Return a refiner with the same models that counts, and by default limits, tokens as a generator does."""
        return Refiner(self.model, self.processor, self.name, self.record, TokenCounter.of(generator))

    @overload
    def refine(  # type: ignore[overload-overlap]
        self, prompt: str, options: None = None, **changes: Unpack[OneTextOptionsDict]
    ) -> str: ...
    @overload
    def refine(
        self, prompt: Sequence[str], options: None = None, **changes: Unpack[OneTextOptionsDict]
    ) -> list[str]: ...
    @overload
    def refine(  # type: ignore[overload-overlap]
        self,
        prompt: str,
        options: RefineOptions | None = None,
        *,
        num_alternatives: Several,
        **changes: Unpack[OneTextOptionsDict],
    ) -> list[str]: ...
    @overload
    def refine(
        self,
        prompt: Sequence[str],
        options: RefineOptions | None = None,
        *,
        num_alternatives: Several,
        **changes: Unpack[OneTextOptionsDict],
    ) -> list[list[str]]: ...
    @overload
    def refine(
        self, prompt: str | Sequence[str], options: RefineOptions | None = None, **changes: Unpack[RefineOptionsDict]
    ) -> str | list[str] | list[list[str]]: ...
    @lists_options
    def refine(
        self, prompt: str | Sequence[str], options: RefineOptions | None = None, **changes: Unpack[RefineOptionsDict]
    ) -> str | list[str] | list[list[str]]:
        """Refine a prompt, or a list of prompts.

        Each prompt keeps its own words at the start, without trailing periods and commas, followed by modifiers that
        fit the token budget, repeat none of its words, and respect the options. The result depends only on the prompt
        and the options, not on the rest of the batch, except rarely in float16, bfloat16 or int8. A prompt without
        room for a modifier is returned unchanged, with a PripWarning.

        Args:
            prompt: One prompt, or several.
            options: Options to start from; None stands for the defaults.
            **changes: Single options, which override `options`; `seed` may be a list with one for each prompt:

        Returns:
            The refined prompt for a string, a list of them for a list. With `num_alternatives` of 2 or more, each
            refined prompt is a list of that many distinct texts; fewer, with a PripWarning, if no more are found.

        Raises:
            InputError: A prompt cannot be refined, or an option is invalid.
        """
        user_prompts = check_user_prompts(prompt)
        options, seeds = with_seeds(options, changes, len(user_prompts))
        results = self._refine_with_warnings(user_prompts, seeds, options)
        return as_asked(prompt, [result.texts for result in results], options)

    def __call__(
        self,
        user_prompts: str | Sequence[str],
        seeds: Sequence[int] | None = None,
        options: RefineOptions | None = None,
    ) -> list[str]:
        """Return the refined prompt of each (user prompt, seed), as a `PromptRefiner`; seeds None is `options.seed`.

        `options` None is the defaults with `allow_faults`, so that evaluations see the model's own texts.
        """
        options, prompts = options or RefineOptions(allow_faults=True), check_user_prompts(user_prompts)
        seeds = [options.seed] * len(prompts) if seeds is None else seeds
        results = self._refine_with_warnings(prompts, seeds, options)
        return [result.texts[0] for result in results]

    def refine_each(self, user_prompts: Sequence[str], seeds: Sequence[int], options: RefineOptions) -> list[Refined]:
        """Refine each prompt with its own seed (`options.seed` is not read), without the warnings of `shortcomings`.

        Raises:
            InputError: A prompt cannot be refined, or the numbers of prompts and seeds differ.
        """
        prompts = check_user_prompts(user_prompts)
        if len(seeds) != len(prompts):
            raise InputError(f"seeds: expected one for each of the {len(prompts)} user prompts, got {len(seeds)}")
        return refine_batch(self.sampler, prompts, seeds, options)

    def shortcomings(
        self, user_prompts: Sequence[str], results: Sequence[Refined], options: RefineOptions
    ) -> list[str]:
        """Return a sentence for each way in which results fall short of the options; `refine` warns with these."""
        sentences = shortcomings(user_prompts, results, options, self.token_limit)
        if self.sampler.counter is not None and (options.token_budget or 0) > self.token_limit:
            sentences.append(
                f"token_budget={options.token_budget} is above the generator's limit: it reads {self.token_limit} "
                f"tokens and ignores the rest"
            )
        return sentences

    def _refine_with_warnings(
        self, user_prompts: Sequence[str], seeds: Sequence[int], options: RefineOptions
    ) -> list[Refined]:
        results = self.refine_each(user_prompts, seeds, options)
        for sentence in self.shortcomings(user_prompts, results, options):
            warn(sentence)
        return results


def as_asked(
    prompt: str | Sequence[str], texts: list[list[str]], options: RefineOptions
) -> str | list[str] | list[list[str]]:
    """Return the texts of each prompt in the form that `refine` returns."""
    if options.num_alternatives > 1:
        return texts[0] if isinstance(prompt, str) else texts
    return texts[0][0] if isinstance(prompt, str) else [alternatives[0] for alternatives in texts]


class LoadingDict(TypedDict, total=False):
    """Keyword arguments of `Refiner.from_pretrained`."""

    device: str | None
    revision: str | None
    dtype: str | None
    quantization: str | None
    compile: bool


class _OneText(LoadingDict, OneTextOptionsDict, total=False):
    pass


class _AllOptions(LoadingDict, RefineOptionsDict, total=False):
    pass


@overload
def refine(  # type: ignore[overload-overlap]
    prompt: str, model: Model = ..., *, options: None = None, **changes: Unpack[_OneText]
) -> str: ...
@overload
def refine(
    prompt: Sequence[str], model: Model = ..., *, options: None = None, **changes: Unpack[_OneText]
) -> list[str]: ...
@overload
def refine(  # type: ignore[overload-overlap]
    prompt: str,
    model: Model = ...,
    *,
    options: RefineOptions | None = None,
    num_alternatives: Several,
    **changes: Unpack[_OneText],
) -> list[str]: ...
@overload
def refine(
    prompt: Sequence[str],
    model: Model = ...,
    *,
    options: RefineOptions | None = None,
    num_alternatives: Several,
    **changes: Unpack[_OneText],
) -> list[list[str]]: ...
@overload
def refine(
    prompt: str | Sequence[str],
    model: Model = ...,
    *,
    options: RefineOptions | None = None,
    **changes: Unpack[_AllOptions],
) -> str | list[str] | list[list[str]]: ...
@lists_options
def refine(
    prompt: str | Sequence[str],
    model: Model = "prip-mini",
    *,
    device: str | None = None,
    revision: str | None = None,
    dtype: str | None = None,
    quantization: str | None = None,
    compile: bool = False,
    options: RefineOptions | None = None,
    **changes: Unpack[RefineOptionsDict],
) -> str | list[str] | list[list[str]]:
    """Refine a prompt, or a list of prompts, with a model that is loaded once and kept.

    ```python
    refine("a cat")  # "a cat, golden hour, balanced composition, painted on paper, warm sunlight, highly detailed"
    ```

    Args:
        prompt: One prompt, or several.
        model: An embedded checkpoint, a folder, or "owner/name" on the Hub. It is not loaded if `strength` is 0.
        device: Device of the model; None is a GPU if there is one.
        revision: Branch, tag or commit on the Hub.
        dtype: "float32", "float16", "bfloat16" or "auto" (the checkpoint's own); None is float32 on the CPU, else auto.
        quantization: "int8" stores the weights of linear layers in 8 bits (extra `quantize`).
        compile: Compile the model with torch.compile; the first prompts then take minutes.
        options: Options to start from; None stands for the defaults.
        **changes: Single options, which override `options`; `seed` may be a list with one for each prompt:

    Returns:
        The refined prompt for a string, a list of them for a list. With `num_alternatives` of 2 or more, each refined
        prompt is a list of distinct texts.

    Raises:
        InputError: A prompt cannot be refined, or an option is invalid.
        CheckpointError: The checkpoint cannot be loaded.
    """
    user_prompts = check_user_prompts(prompt)
    options, seeds = with_seeds(options, changes, len(user_prompts))
    if options.strength == 0:
        return as_asked(prompt, [[user_prompt] for user_prompt in user_prompts], options)
    return loaded(model, device, revision, dtype, quantization, compile).refine(prompt, options, seed=seeds)


def loaded(
    model: str | os.PathLike[str] = "prip-mini",
    device: str | None = None,
    revision: str | None = None,
    dtype: str | None = None,
    quantization: str | None = None,
    compile: bool = False,
) -> Refiner:
    """Return a refiner loaded by `Refiner.from_pretrained`, from a cache unless the checkpoint's folder has changed."""
    with _LOADING:
        return _loaded(str(model), last_change(model), revision, device, dtype, quantization, compile)


_LOADING = Lock()
"""Makes concurrent threads load a refiner only once."""


@lru_cache(maxsize=4)
def _loaded(model: str, last_change: int, *options: Any) -> Refiner:
    return Refiner.from_pretrained(model, *options)


def last_change(model: str | os.PathLike[str] | None) -> int:
    """Return the modification time of a checkpoint folder's weights in nanoseconds, to invalidate caches.

    It is 0 for anything else: an embedded checkpoint, one on the Hub, None or a blank name.
    """
    name = str(model or "").strip()
    if not name or name in EMBEDDED:
        return 0
    folder = Path(name).expanduser()
    for candidate in (folder, folder / "refiner"):
        if (candidate / "config.json").is_file():
            return max((file.stat().st_mtime_ns for file in candidate.glob("*/*.safetensors")), default=0)
    return 0
