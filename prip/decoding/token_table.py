"""TokenTable: what each of the prompt decoder's tokens may do in a modifier, as arrays."""

from __future__ import annotations

import unicodedata
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable

import numpy as np
from transformers import PreTrainedTokenizerFast

from ..errors import InputError
from ..text.vocabulary import token_texts
from ..text.words import words_of

NEVER_FITS = 1 << 20
SEPARATOR = ","


class TokenTable:
    """Static facts about each token, as arrays over the vocabulary.

    A usable token is ordinary text: no special token, no part of a character, no comma (except the separator), no
    control character, no trailing space and no double space.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, count_tokens: Callable[[str], int], vocabulary_size: int | None
    ) -> None:
        """Build the arrays; raises InputError if the tokenizer has no separator, no end token or no words."""
        self.tokenizer = tokenizer
        texts = token_texts(tokenizer)
        self.size = vocabulary_size or len(texts)
        if tokenizer.eos_token_id is None or tokenizer.eos_token_id >= self.size:
            raise InputError("decoder_tokenizer: expected an end-of-sequence token within the vocabulary, got none")
        self.eos: int = tokenizer.eos_token_id
        self.texts = [text if text and self._is_usable(text) else "" for text in texts[: self.size]]
        self.texts += [""] * (self.size - len(self.texts))
        self.lower = [text.lower() for text in self.texts]
        if SEPARATOR not in self.texts:
            raise InputError("decoder_tokenizer: expected a token that is exactly a comma, got none")
        self.separator = self.texts.index(SEPARATOR)

        self.begins_word = np.array([text.startswith(" ") for text in self.texts])
        self.starts = np.array([len(text) > 1 and text[0] == " " and text[1].isalnum() for text in self.texts])
        if not self.starts.any():
            raise InputError("decoder_tokenizer: expected tokens that begin with a space and a letter, got none")
        self.continues = np.array([bool(text) for text in self.texts]) & ~self.begins_word
        self.continues[self.separator] = False
        self.inside = self.begins_word | self.continues
        self.cost = np.full(self.size, NEVER_FITS, dtype=np.int32)
        self.bytes = np.full(self.size, NEVER_FITS, dtype=np.int32)
        for token in np.flatnonzero(self.begins_word):
            self.cost[token] = count_tokens(self.texts[token])
        for token in np.flatnonzero(self.continues):
            self.bytes[token] = normal_bytes(self.texts[token])

        self._starting: dict[str, list[int]] = defaultdict(list)
        self._continuing: dict[str, list[int]] = defaultdict(list)
        for token in np.flatnonzero(self.starts):
            self._starting[self._first_run(self.lower[token][1:])].append(int(token))
        for token in np.flatnonzero(self.continues):
            self._continuing[self._first_run(self.lower[token])].append(int(token))
        self._sorted = sorted((text, token) for token, text in enumerate(self.lower) if text)
        self._first_tokens: dict[str, np.ndarray] = {}

    @staticmethod
    def _is_usable(text: str) -> bool:
        if text.endswith(" ") or "  " in text or (SEPARATOR in text and text != SEPARATOR):
            return False
        return not any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in text)

    @staticmethod
    def _first_run(text: str) -> str:
        words = words_of(text)
        return words[0] if words and text.startswith(words[0]) else ""

    def first_tokens(self, word: str) -> np.ndarray:
        """Return the tokens that begin `word` after a space, in the usual letter cases; cached.

        These are the first token of the tokenizer's own spelling and any single token that spells the whole word.
        """
        if word not in self._first_tokens:
            spellings = {word, word.lower(), word.capitalize(), word.title(), word.upper()}
            tokens = set(self.whole_words(word.lower()))
            for spelling in spellings:
                tokens.update(self.tokenizer.encode(" " + spelling, add_special_tokens=False)[:1])
            self._first_tokens[word] = np.array([t for t in tokens if t < self.size and self.starts[t]], dtype=np.int64)
        return self._first_tokens[word]

    def whole_words(self, word: str) -> list[int]:
        """Return the single tokens that spell a space and `word` (lower case), in any letter case."""
        return self._starting.get(word, [])

    def completing(self, begun: str, words: set[str]) -> list[int]:
        """Return the tokens that turn the word `begun` (lower-case) into exactly one of `words`."""
        tokens: list[int] = []
        for word in words:
            if len(word) > len(begun) and word.startswith(begun):
                tokens += self._continuing.get(word[len(begun) :], ())
        return tokens

    def beginning_with(self, text: str) -> list[int]:
        """Return the tokens whose text begins with `text` (lower-case)."""
        return with_prefix(self._sorted, text)

    def containing(self, text: str) -> list[int]:
        """Return the tokens whose text contains `text` (lower-case)."""
        return [token for token, own in enumerate(self.lower) if text in own]


def with_prefix(rows: list[tuple[str, int]], prefix: str) -> list[int]:
    """Return the tokens of sorted rows (text, token) whose text begins with `prefix`."""
    index = bisect_left(rows, (prefix, -1))
    tokens = []
    while index < len(rows) and rows[index][0].startswith(prefix):
        tokens.append(rows[index][1])
        index += 1
    return tokens


def normal_bytes(text: str) -> int:
    """Return the UTF-8 bytes of a normalized text, the larger of CLIP's form (NFC, lower case) and T5's (NFKC).

    No tokenizer makes more tokens of the text than that, plus one for the space before it.
    """
    if text.isascii():
        return len(text)
    forms = (unicodedata.normalize("NFC", text).lower(), unicodedata.normalize("NFKC", text))
    return max(len(form.encode()) for form in forms)
