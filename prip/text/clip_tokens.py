"""CLIP's tokenizer, offline, from a packed copy of its merges."""

from __future__ import annotations

import lzma
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from .vocabulary import byte_characters

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CLIP_TOKEN_LIMIT = 75
"""Tokens of a prompt that CLIP reads, without its start and end tokens."""

_SPECIAL = ("<|startoftext|>", "<|endoftext|>")
_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@lru_cache(maxsize=1)
def clip_tokenizer() -> Tokenizer:
    """Return CLIP's tokenizer (openai/CLIP clip/simple_tokenizer.py), without start and end tokens."""
    from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers
    from tokenizers.models import BPE

    packed = (Path(__file__).parent / "assets" / "clip_merges.txt.xz").read_bytes()
    merges = [(left, right) for left, right in map(str.split, lzma.decompress(packed).decode().splitlines())]
    tokens = byte_characters()
    tokens += [token + "</w>" for token in tokens]
    tokens += [left + right for left, right in merges]
    vocabulary = {token: id_ for id_, token in enumerate([*tokens, *_SPECIAL])}
    tokenizer = Tokenizer(BPE(vocabulary, merges, end_of_word_suffix="</w>", unk_token=_SPECIAL[1]))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in _SPECIAL])
    return tokenizer


def count_clip_tokens(text: str) -> int:
    """Return the number of CLIP tokens of a text, without start and end: additive over parts between spaces."""
    return len(clip_tokenizer().encode(text, add_special_tokens=False).ids)
