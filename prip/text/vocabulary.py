"""The text of each token, read from the vocabulary (decoding tokens one by one loses their spaces)."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def byte_characters() -> list[str]:
    """Return the 256 characters that represent bytes in byte-level BPE, in the order of GPT-2 and CLIP."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in plain] + [chr(256 + index) for index in range(256 - len(plain))]


@lru_cache(maxsize=1)
def _byte_of_character() -> dict[str, int]:
    plain = [ord(character) for character in byte_characters() if ord(character) < 256]
    others = [byte for byte in range(256) if byte not in set(plain)]
    return dict(zip(byte_characters(), plain + others, strict=True))


def token_bytes(tokenizer: PreTrainedTokenizerFast) -> list[bytes | None]:
    """Return the bytes that each token spells, None for special tokens and for ids without a token.

    Reads byte-level BPE (GPT-2, Llama 3, Qwen) and metaspace vocabularies (Llama 2, T5).
    """
    vocabulary = tokenizer.get_vocab()
    special = set(tokenizer.all_special_ids)
    special.update(id_ for id_, token in tokenizer.added_tokens_decoder.items() if token.special)
    added = set(tokenizer.added_tokens_decoder)
    table = _byte_of_character()
    metaspace = sum(token.startswith("▁") for token in vocabulary) > sum(token.startswith("Ġ") for token in vocabulary)
    spelled: list[bytes | None] = [None] * (max(vocabulary.values()) + 1)
    for token, id_ in vocabulary.items():
        if id_ in special:
            continue
        if id_ in added:
            spelled[id_] = token.encode()
        elif metaspace:
            byte = _BYTE_TOKEN.fullmatch(token)
            spelled[id_] = bytes([int(byte[1], 16)]) if byte else token.replace("▁", " ").encode()
        elif all(character in table for character in token):
            spelled[id_] = bytes(table[character] for character in token)
    return spelled


def token_texts(tokenizer: PreTrainedTokenizerFast) -> list[str | None]:
    """Return the text of each token, None where a token is special or spells only part of a character."""
    texts: list[str | None] = []
    for spelled in token_bytes(tokenizer):
        try:
            texts.append(None if spelled is None else spelled.decode("utf-8"))
        except UnicodeDecodeError:
            texts.append(None)
    return texts
