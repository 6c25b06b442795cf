"""PripProcessor: the tokenizers of a refiner, from text to token ids and back."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import CheckpointError, InputError
from .loading.folders import RefinerFolder
from .loading.untrusted import check_inside, read_config
from .text import prompts
from .text.prompts import MAX_CHARACTERS, check_user_prompt, check_user_prompts, modifiers_added, own_words
from .text.vocabulary import token_texts
from .text.webui_syntax import plain_prompt

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

__all__ = [  # with names of prip.text.prompts
    "MAX_CHARACTERS",
    "PripProcessor",
    "check_user_prompt",
    "check_user_prompts",
    "encode_for_encoder",
    "load_tokenizer",
    "modifiers_added",
    "own_words",
    "save_tokenizer",
]

_SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
UNLIMITED = 10**9
"""A tokenizer whose model_max_length is as large has no limit"""


class PripProcessor:
    """Tokenizers of the preference encoder and the prompt decoder."""

    def __init__(
        self, encoder_tokenizer: PreTrainedTokenizerFast | None, decoder_tokenizer: PreTrainedTokenizerFast
    ) -> None:
        """Create a processor; `encoder_tokenizer` is None for a model without a preference encoder.

        Raises:
            InputError: The encoder's tokenizer has no padding token, or the decoder's has no end-of-sequence token.
        """
        if encoder_tokenizer is not None and encoder_tokenizer.pad_token_id is None:
            raise InputError("encoder_tokenizer: expected a tokenizer with a padding token, got none")
        if decoder_tokenizer.eos_token_id is None:
            raise InputError("decoder_tokenizer: expected a tokenizer with an end-of-sequence token, got none")
        self.encoder_tokenizer = encoder_tokenizer
        self.decoder_tokenizer = decoder_tokenizer
        self._texts = token_texts(decoder_tokenizer)

    check_user_prompt = staticmethod(check_user_prompt)
    prefix = staticmethod(prompts.prefix)
    join = staticmethod(prompts.join)

    def encode_user_prompts(self, user_prompts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokenize the user's own words, without webui syntax, for the preference encoder.

        Returns:
            As `encode_for_encoder`; of length 0 without an encoder.
        """
        if self.encoder_tokenizer is None:
            import torch

            nothing = torch.zeros(len(user_prompts), 0, dtype=torch.long)
            return nothing, nothing
        return encode_for_encoder(self.encoder_tokenizer, user_prompts)

    def prefix_ids(self, user_prompt: str) -> list[int]:
        """Tokenize the prefix that the prompt decoder continues, without webui syntax and special tokens."""
        prefix = self.prefix(plain_prompt(user_prompt))
        return self.decoder_tokenizer.encode(prefix, add_special_tokens=False, verbose=False)

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of the prompt decoder's tokens, with its leading space and without special tokens."""
        return "".join(self._texts[token] or "" for token in tokens)

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> None:
        """Write tokenizer.json and tokenizer_config.json into the folders encoder/ and decoder/."""
        for name, tokenizer in (("encoder", self.encoder_tokenizer), ("decoder", self.decoder_tokenizer)):
            if tokenizer is not None:
                save_tokenizer(tokenizer, Path(save_directory) / name)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str] | RefinerFolder, *, revision: str | None = None
    ) -> PripProcessor:
        """Load the tokenizers of a refiner. Raises CheckpointError if a file is missing or foreign."""
        source = pretrained_model_name_or_path
        if isinstance(source, RefinerFolder) or not _holds_tokenizers_alone(Path(source)):
            folder = RefinerFolder.open(source, revision)
            path, parts = folder.path, {name: part.path for name, part in folder.parts.items()}
        else:
            path = Path(source)
            parts = {name: path / name for name in ("encoder", "decoder") if (path / name).is_dir()}
        tokenizers = {name: load_tokenizer(part) for name, part in parts.items()}
        try:
            return cls(tokenizers.get("encoder"), tokenizers["decoder"])
        except InputError as error:
            raise CheckpointError(f"{path}: {error}") from error


def encode_for_encoder(
    tokenizer: PreTrainedTokenizerBase, user_prompts: Sequence[str]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokenize the user's own words, without webui syntax, for the preference encoder, in training and in use alike.

    Texts longer than the tokenizer's `model_max_length` are cut: it is the length with which the encoder was trained.

    Returns:
        input_ids and attention_mask, int64 `(batch, length)`, padded on the right.
    """
    limit = tokenizer.model_max_length
    encoded = tokenizer(
        [own_words(plain_prompt(user_prompt)) for user_prompt in user_prompts],
        padding=True,
        padding_side="right",
        truncation=limit < UNLIMITED,
        max_length=limit if limit < UNLIMITED else None,
        return_tensors="pt",
        verbose=False,
    )
    return encoded["input_ids"], encoded["attention_mask"]


def _holds_tokenizers_alone(folder: Path) -> bool:
    """Return whether a folder was written by `PripProcessor.save_pretrained` without a model."""
    return (folder / "decoder" / "tokenizer.json").is_file() and not (folder / "config.json").exists()


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: str | os.PathLike[str]) -> None:
    """Write tokenizer.json and a tokenizer_config.json that names the special tokens, and the limit if there is one."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    tokenizer.backend_tokenizer.save(str(target / "tokenizer.json"))
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    config.update({name: token for name in _SPECIAL_TOKENS if (token := getattr(tokenizer, name, None)) is not None})
    if tokenizer.model_max_length < UNLIMITED:
        config["model_max_length"] = tokenizer.model_max_length
    text = json.dumps(config, indent=2, ensure_ascii=False)
    (target / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")


def load_tokenizer(folder: str | os.PathLike[str]) -> PreTrainedTokenizerFast:
    """Load tokenizer.json with the special tokens and model_max_length in tokenizer_config.json.

    Raises CheckpointError, which names the file, if either is missing, unreadable or refers to code.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    settings, file = Path(folder) / "tokenizer_config.json", Path(folder) / "tokenizer.json"
    config = read_config(settings)
    if not file.is_file():
        raise CheckpointError(f"{file} is missing")
    check_inside(file)
    try:
        backend = Tokenizer.from_file(str(file))
    except Exception as error:  # the tokenizers library raises nothing narrower
        raise CheckpointError(f"{file} cannot be read as a tokenizer: {error}") from error
    backend.no_padding()
    backend.no_truncation()
    tokens = {name: config[name] for name in _SPECIAL_TOKENS if config.get(name) is not None}
    named = {name: token.get("content") if isinstance(token, dict) else token for name, token in tokens.items()}
    for name, token in named.items():
        if not isinstance(token, str):
            raise CheckpointError(f"{settings}: {name}: expected a token, got {tokens[name]!r:.100}")
    limit = config.get("model_max_length")
    limit = UNLIMITED if limit is None else limit
    if not isinstance(limit, int | float) or not limit >= 2:
        raise CheckpointError(f"{settings}: model_max_length: expected a number of at least 2, got {limit!r:.100}")
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=int(min(limit, UNLIMITED)), **named)
