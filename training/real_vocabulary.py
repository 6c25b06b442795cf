"""Tokenizers with as many entries as real ones, to rehearse and measure without a download.

They are byte-level BPE with random merges, made in a second; their tokens are gibberish, half of which begin a word.
"""

from __future__ import annotations

import random

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from prip.text.vocabulary import byte_characters

SPACE = "\u0120"
"""A space in byte-level BPE"""
LONGEST = 12


def real_vocabulary(size: int, seed: int = 0) -> PreTrainedTokenizerFast:
    """Return a tokenizer with `size` tokens, among them a comma and an end of sequence."""
    source = random.Random(seed)
    tokens = [*byte_characters(), "</s>"]
    known, merges = set(tokens), []
    inside = [character for character in tokens if character.isascii() and character.isalpha() and len(character) == 1]
    starts = [SPACE]
    while len(tokens) < size:
        pool = starts if source.random() < 0.5 else inside
        left, right = source.choice(pool), source.choice(inside)
        if left + right in known or len(left + right) > LONGEST:
            continue
        known.add(left + right)
        tokens.append(left + right)
        merges.append((left, right))
        pool.append(left + right)
    backend = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")
