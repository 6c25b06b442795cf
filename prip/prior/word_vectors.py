"""Vectors of texts as weighted means of static word vectors: fast, without a network, the same for "cat" and "CAT!".

The vectors are distilled from a sentence encoder. A word outside the vocabulary gets the mean vector of its character
n-grams.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from ..files import write_output
from ..text.words import words_of

_WORDS, _VECTORS, _WEIGHTS, _NGRAMS = "words", "vectors", "weights", "ngrams"
_LENGTHS = (3, 4, 5)


class WordVectors:
    """A frozen table of word vectors, stored in int8."""

    def __init__(
        self, words: Sequence[str], vectors: NDArray[np.int8], weights: NDArray[np.float32], ngrams: NDArray[np.int8]
    ) -> None:
        """Hold the tables.

        Args:
            words: The vocabulary, in lower case.
            vectors: `(words, width)`, 127 for 1.
            weights: `(words,)`, how much each word counts in a text (its inverse document frequency).
            ngrams: `(buckets, width)`, 127 for 1; character n-grams are hashed into the buckets.
        """
        self.words, self.vectors, self.weights, self.ngrams = list(words), vectors, weights, ngrams
        self._index = {word: index for index, word in enumerate(self.words)}
        self._unknown_weight = float(weights.max())
        self._unknown = lru_cache(maxsize=65_536)(self._from_ngrams)

    @property
    def width(self) -> int:
        """Length of a vector."""
        return self.vectors.shape[1]

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return float32 vectors `(texts, width)`; zeros for a text without words."""
        return (
            np.stack([self._of_text(text) for text in texts]) if len(texts) else np.zeros((0, self.width), np.float32)
        )

    def _of_text(self, text: str) -> NDArray[np.float32]:
        total, weight_sum = np.zeros(self.width, np.float32), 0.0
        for word in words_of(text):
            index = self._index.get(word)
            vector = self._unknown(word) if index is None else self.vectors[index].astype(np.float32) / 127
            weight = self._unknown_weight if index is None else float(self.weights[index])
            total += weight * vector
            weight_sum += weight
        return total / weight_sum if weight_sum else total

    def _from_ngrams(self, word: str) -> NDArray[np.float32]:
        buckets = list(ngram_buckets(word, len(self.ngrams)))
        return self.ngrams[buckets].astype(np.float32).mean(axis=0) / 127

    def save(self, path: Path) -> None:
        """Write the tables as one safetensors file."""
        tensors: dict[str, NDArray[Any]] = {
            _WORDS: np.frombuffer("\n".join(self.words).encode(), np.uint8),
            _VECTORS: self.vectors,
            _WEIGHTS: self.weights.astype(np.float16),
            _NGRAMS: self.ngrams,
        }
        write_output(path, lambda target: save_file(tensors, target))

    @classmethod
    def load(cls, path: Path) -> WordVectors:
        """Read a file that `save` wrote."""
        tensors = load_file(path)
        words = tensors[_WORDS].tobytes().decode().split("\n")
        return cls(words, tensors[_VECTORS], tensors[_WEIGHTS].astype(np.float32), tensors[_NGRAMS])


def ngram_buckets(word: str, buckets: int) -> Iterator[int]:
    """Yield the bucket of each character n-gram of a word, its boundaries marked."""
    marked = f"<{word}>"
    for length in _LENGTHS:
        for start in range(max(len(marked) - length + 1, 1)):
            yield zlib.crc32(marked[start : start + length].encode()) % buckets
