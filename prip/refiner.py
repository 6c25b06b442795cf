"""R, the refiner: user prompt to system prompt, by way of E's pivot and D."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from .decoding.constraints import Constraints
from .decoding.decode import decode, row_generator
from .devices import as_device, as_dtype
from .errors import CheckpointError, InputError, warn
from .loading.folders import EMBEDDED, RefinerFolder
from .loading.untrusted import read_json
from .modeling import PripModel
from .modeling.quantization import check_quantization, is_quantized, quantize
from .options import RefineOptions
from .processing import PripProcessor, check_user_prompts, own_words
from .refine_batch import Refined, Refining, unrefined
from .text.clip_tokens import CLIP_TOKEN_LIMIT, count_clip_tokens
from .text.token_counter import TokenCounter

if TYPE_CHECKING:
    import os

    from .protocols import CountsTokens

RECORD_FILE = "training.json"
"""How a checkpoint was made, beside its parts."""


class Refiner:
    """Loads once, refines many. As a `PromptRefiner` it is called with user prompts and seeds."""

    def __init__(
        self,
        model: PripModel,
        processor: PripProcessor,
        name: str = "prip",
        record: dict[str, Any] | None = None,
        counter: TokenCounter | None = None,
    ) -> None:
        """`model` is put into evaluation mode: refining knows no dropout. `name` is what tables call it, `record` what
        is known of its training, as training.json holds it. `counter` counts the token budget and bounds it by default;
        None counts as CLIP.

        Raises CheckpointError when a part knows fewer tokens than its tokenizer has, or has none.
        """
        self.model = model.eval()
        self.processor = processor
        self.name = name
        self.record = record
        self.counter = counter
        self.token_limit = CLIP_TOKEN_LIMIT if counter is None else counter.limit
        for part, tokens, read in (
            ("encoder", processor.encoder_tokenizer, model.encoder and model.encoder.t5),
            ("decoder", processor.decoder_tokenizer, model.decoder.lm),
        ):
            if (tokens is None) != (read is None):
                raise CheckpointError(f"the {part} and its tokenizer should both be there, or neither")
            if tokens is None or read is None:
                continue
            known: int = read.get_input_embeddings().num_embeddings  # type: ignore[assignment]
            if len(tokens) > known:
                raise CheckpointError(f"the {part} knows {known:,} tokens, its tokenizer has {len(tokens):,}")
        self.constraints = Constraints(
            processor.decoder_tokenizer,
            count_tokens=count_clip_tokens if counter is None else counter,
            modifier_tokens=model.decoder.config.modifier_tokens,
            vocabulary_size=model.decoder.lm.get_output_embeddings().weight.shape[0],
        )

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
        """Load a refiner, alone or in a whole checkpoint: an embedded one, a folder, or "owner/name" on the Hub at
        `revision`.

        `device` None takes a GPU when there is one; `dtype` None is float32 on the CPU and the checkpoint's own on a
        GPU. `quantization` "int8" keeps the weights of linear layers in 8 bits (extra `quantize`). `compile` compiles
        both models by torch.compile: the first prompts then take minutes.
        Raises CheckpointError for anything wrong with the checkpoint, InputError for an unusable device or option.
        """
        check_quantization(quantization)
        place = as_device(device)
        folder = RefinerFolder.open(model, revision)
        if dtype is None:
            dtype = "float32" if place.type == "cpu" else "auto"
        loaded = PripModel.from_pretrained(folder, dtype=dtype)
        try:
            record_file = folder.path / RECORD_FILE
            record = read_json(record_file) if record_file.is_file() else None
            refiner = cls(loaded.to(place), PripProcessor.from_pretrained(folder), record=record)
        except InputError as error:
            raise CheckpointError(f"{folder.path}: {error}") from error
        if quantization is not None:
            quantize(loaded, quantization)
        if compile:
            loaded.compile_parts()
        return refiner

    def save_pretrained(self, save_directory: str | os.PathLike[str], max_shard_size: str = "5GB") -> None:
        """Write what from_pretrained reads, training.json too if there is a record, into a new or given folder."""
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
        """Publish this refiner as "owner/name" on the Hub, with a model card, and return the commit, to be pinned.

        `private`, `revision` and errors are as in prip.hub.publish; `license` is the Hub's identifier of one.
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
        """Where the models lie and compute."""
        return self.model.device

    def to(self, device: str | torch.device, dtype: str | torch.dtype | None = None) -> Refiner:
        """Move the models, and with them those of every refiner that shares them (`counted_by`). Returns this refiner.

        `dtype` None leaves theirs: what was loaded on a GPU in half precision computes in it on the CPU too. A refiner
        in int8 moves as it is, and takes no other dtype; a compiled one is compiled anew for the first prompts after.
        Raises InputError for a device that cannot be used, and for the dtype of a quantised refiner.
        """
        if dtype is not None and is_quantized(self.model):
            raise InputError(f"dtype must be left out for a quantised refiner, which keeps its own; {dtype!r} came")
        self.model.to(as_device(device), None if dtype is None else as_dtype(dtype))
        return self

    def __reduce__(self) -> Any:
        """Copied and pickled by what it was made of: nothing is looked up or loaded again."""
        return Refiner, (self.model, self.processor, self.name, self.record, self.counter)

    def counted_by(self, generator: CountsTokens) -> Refiner:
        """Return a refiner with the same models whose token budget is counted by the generator's own tokenizer.

        Its budget is what the generator reads, where none is given.
        """
        return Refiner(self.model, self.processor, self.name, self.record, TokenCounter.of(generator))

    def refine(
        self,
        prompt: str | Sequence[str],
        num_alternatives: int = 1,
        seed: int = 0,
        temperature: float = 0.0,
        top_p: float = 0.9,
        max_new_tokens: int = 60,
        token_budget: int | None = None,
        banned_terms: Sequence[str] = (),
        batch_size: int = 256,
        styles: Sequence[str] = (),
        keep_attributes: bool = True,
        no_artists: bool = False,
        allow_faults: bool = False,
        strength: float = 1.0,
    ) -> Any:
        """Return the refined prompt (str) of a string, the list of them (list[str]) for a list.

        The user's words come back verbatim at the start, less trailing spaces, full stops and commas. A text depends
        on its prompt, `seed` and these options alone; the batch it is in changes none in float32, and in a lower
        precision few.
        `temperature` 0 is greedy; above it tokens are sampled, from the likeliest with a probability of `top_p`
        together. `token_budget` bounds the whole prompt in CLIP's tokens, or in those of `counted_by`;
        None is all that the text encoder reads, 75 of CLIP's. `max_new_tokens` bounds what the decoder adds, in its
        own; a prompt that leaves no room for a modifier returns unchanged, with a PripWarning.
        `banned_terms` never come about in what is added, in any casing. `styles`, names of prip.control.styles or any
        phrases, stand right behind the user's own words, as if typed. With `keep_attributes` no other value is added of
        an attribute (medium, light, color, ...) that the user or a style names; with `no_artists` no artist's name;
        without `allow_faults` nothing like "badly cropped" that the user does not name.
        `strength` adds that share of the modifiers, from the first on; 0 returns each prompt as it is.
        With `num_alternatives` above 1 each prompt gives a list[str] of so many distinct texts, the one that would come
        alone first; the others are sampled, at 1 where `temperature` is 0; fewer come, with a PripWarning, when there
        are no more.
        Raises InputError for a prompt or an option that cannot be used.
        """
        options = RefineOptions.among(locals())
        prompts = check_user_prompts(prompt)
        results = self._refined_with_warnings(prompts, [seed] * len(prompts), options)
        found = [result.texts[0] if num_alternatives == 1 else result.texts for result in results]
        return found[0] if isinstance(prompt, str) else found

    def __call__(
        self, user_prompts: Sequence[str], seeds: Sequence[int], options: RefineOptions | None = None
    ) -> list[str]:
        """Return the first text of each prompt by a seed of its own: the `PromptRefiner` protocol.

        options: those of `refine`, whose seed is not read; None is the defaults, but faults are allowed: what is
        measured is what the model itself has learned.
        """
        prompts = check_user_prompts(user_prompts)
        results = self._refined_with_warnings(prompts, seeds, options or RefineOptions(allow_faults=True))
        return [result.texts[0] for result in results]

    def refine_each(self, user_prompts: Sequence[str], seeds: Sequence[int], options: RefineOptions) -> list[Refined]:
        """Return what `refine` makes of each prompt with a seed of its own, under the same options.

        `options.seed` is not read. What `refine` would warn of is in the results, and in words from `shortcomings`.
        Raises InputError for a prompt that cannot be refined.
        """
        prompts = check_user_prompts(user_prompts)
        if len(seeds) != len(prompts):
            raise InputError(f"seeds must be one for each of the {len(prompts)} user prompts, {len(seeds)} came")
        if options.strength == 0:
            return [Refined([prompt]) for prompt in prompts]
        return Refining(self, options).results(prompts, seeds)

    def shortcomings(
        self, user_prompts: Sequence[str], results: Sequence[Refined], options: RefineOptions
    ) -> list[str]:
        """Return a sentence for each way in which results are less than was asked for; none when all is well."""
        return Refining(self, options).shortcomings(results, user_prompts)

    def _refined_with_warnings(
        self, prompts: Sequence[str], seeds: Sequence[int], options: RefineOptions
    ) -> list[Refined]:
        results = self.refine_each(prompts, seeds, options)
        for sentence in self.shortcomings(prompts, results, options):
            warn(sentence)
        return results

    @torch.no_grad()
    def actions(
        self,
        user_prompts: Sequence[str],
        seeds: Sequence[tuple[int, int]],
        temperature: float,
        max_new_tokens: int,
        token_budget: int,
        banned_terms: Sequence[str] = (),
        keep_attributes: bool = True,
        no_artists: bool = False,
        allow_faults: bool = True,
        top_p: float = 1.0,
        whole_modifiers: bool = True,
    ) -> list[list[int]]:
        """Return the tokens that the decoder adds to each prompt, the end token included; none where there is no room.

        `seeds` are a (seed, number of the alternative) for each prompt, `top_p` and `whole_modifiers` are decode's, and
        the other arguments are those of Constraints.begin. Reinforcement learning samples with this too.
        """
        rows = self.constraints.begin(
            user_prompts, token_budget, max_new_tokens, banned_terms, keep_attributes, no_artists, allow_faults
        )
        prefixes = [self.processor.prefix_ids(prompt) for prompt in user_prompts]
        fitting = [
            number
            for number, (row, ids) in enumerate(zip(rows, prefixes, strict=True))
            if not row.full and self._fits(len(ids) + max_new_tokens)
        ]
        found: list[list[int]] = [[] for _ in user_prompts]
        if not fitting:
            return found
        input_ids, mask = self.processor.encode_user_prompts([user_prompts[number] for number in fitting])
        pivot = self.model.pivot(input_ids.to(self.model.device), mask.to(self.model.device))
        decoded = decode(
            self.model.decoder,
            pivot,
            [prefixes[number] for number in fitting],
            self.constraints,
            [rows[number] for number in fitting],
            temperature,
            [row_generator(seeds[number][0], own_words(user_prompts[number]), seeds[number][1]) for number in fitting],
            top_p,
            whole_modifiers,
        )
        for number, tokens in zip(fitting, decoded, strict=True):
            found[number] = tokens
        return found

    def text(self, user_prompt: str, actions: Sequence[int]) -> str:
        """Return the refined prompt that these actions make of a user prompt; no actions leave it as it is."""
        return self.processor.join(user_prompt, self.processor.decode(list(actions))) if actions else user_prompt

    def has_room(self, user_prompts: Sequence[str], max_new_tokens: int, token_budget: int) -> list[bool]:
        """Return which prompts leave room for a modifier."""
        rows = self.constraints.begin(user_prompts, token_budget, max_new_tokens)
        lengths = [len(self.processor.prefix_ids(prompt)) for prompt in user_prompts]
        return [not row.full and self._fits(length + max_new_tokens) for row, length in zip(rows, lengths, strict=True)]

    def _fits(self, tokens: int) -> bool:
        """Whether the decoder has positions for so many tokens behind its template and soft tokens."""
        config = self.model.decoder.config
        head = len(config.template_before_ids or ()) + len(config.template_after_ids or ()) + config.pivot_length
        positions = getattr(self.model.decoder.lm.config, "max_position_embeddings", None)
        return positions is None or head + tokens <= positions


def refine(
    prompt: str | Sequence[str],
    model: str | os.PathLike[str] = "prip-mini",
    device: str | None = None,
    revision: str | None = None,
    num_alternatives: int = 1,
    seed: int = 0,
    temperature: float = 0.0,
    top_p: float = 0.9,
    max_new_tokens: int = 60,
    token_budget: int | None = None,
    banned_terms: Sequence[str] = (),
    batch_size: int = 256,
    styles: Sequence[str] = (),
    keep_attributes: bool = True,
    no_artists: bool = False,
    allow_faults: bool = False,
    strength: float = 1.0,
    dtype: str | None = None,
    quantization: str | None = None,
    compile: bool = False,
) -> Any:
    """Refine a prompt, or a list of them, by Refiner.from_pretrained and Refiner.refine, whose arguments these are.

    A loaded model is kept for next time; `strength` 0 loads none.

    ```python
    refine("a cat")  # "a cat, golden hour, balanced composition, painted on paper, warm sunlight, highly detailed"
    ```
    """
    options = RefineOptions.among(locals())
    if options.strength == 0:
        return unrefined(prompt, options)
    refiner = loaded(model, device, revision, dtype, quantization, compile)
    return refiner.refine(prompt, **vars(options))


def loaded(
    model: str | os.PathLike[str] = "prip-mini",
    device: str | None = None,
    revision: str | None = None,
    dtype: str | None = None,
    quantization: str | None = None,
    compile: bool = False,
) -> Refiner:
    """Return what Refiner.from_pretrained loads. It is kept for next time, unless the checkpoint has changed since."""
    return _loaded(str(model), last_change(model), revision, device, dtype, quantization, compile)


@lru_cache(maxsize=4)
def _loaded(model: str, last_change: int, *options: Any) -> Refiner:
    return Refiner.from_pretrained(model, *options)


def last_change(model: str | os.PathLike[str] | None) -> int:
    """When the refiner in a checkpoint's folder changed last, in nanoseconds: what is trained anew is loaded anew.

    0 for what is no such folder: an embedded one, one on the Hub, and None or a blank, which name none.
    """
    name = str(model or "").strip()
    if not name or name in EMBEDDED:
        return 0
    folder = Path(name).expanduser()
    for place in (folder, folder / "refiner"):
        if (place / "config.json").is_file():
            return max((file.stat().st_mtime_ns for file in place.glob("*/*.safetensors")), default=0)
    return 0
