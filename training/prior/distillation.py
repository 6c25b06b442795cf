"""Static word vectors distilled from a sentence encoder: each word's embedding, reduced to its principal components."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize
from tqdm import tqdm
from transformers import AutoModel, AutoTokenizer

from prip.errors import InputError
from prip.loading.strict import quiet
from prip.prior.word_vectors import WordVectors, ngram_buckets
from prip.text.words import words_of
from prip.text_files import read_lines

_MAX_PIECES = 2


class SentenceEncoder:
    """A frozen transformer with mean pooling, such as all-MiniLM-L6-v2."""

    def __init__(self, place: str) -> None:
        """place: a folder, or an ID on the Hub. Raises InputError if it cannot be loaded."""
        try:
            with quiet():
                self.model = AutoModel.from_pretrained(place).eval()
                self.tokenizer = AutoTokenizer.from_pretrained(place)
        except OSError as error:
            raise InputError(f"sentence_encoder: {place} cannot be loaded: {error}") from error

    @property
    def width(self) -> int:
        """Length of a vector."""
        return self.model.config.hidden_size

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str], batch_size: int = 256, progress: bool = False) -> Tensor:
        """Return unit vectors `(texts, width)`, float32 on the CPU."""
        vectors = torch.zeros(len(texts), self.width)
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        starts = range(0, len(order), batch_size)
        for start in tqdm(starts, desc="sentence encoder", unit=" batches", disable=not progress):
            rows = order[start : start + batch_size]
            batch = self.tokenizer(
                [texts[row] for row in rows], padding=True, truncation=True, max_length=64, return_tensors="pt"
            )
            states = self.model(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
            ).last_hidden_state.float()
            mask = batch["attention_mask"].unsqueeze(-1)
            vectors[rows] = normalize((states * mask).sum(1) / mask.sum(1), dim=-1)
        return vectors

    def is_common(self, word: str) -> bool:
        """Return whether the tokenizer writes a word with few pieces, which it does for the common ones."""
        return len(self.tokenizer.tokenize(word)) <= _MAX_PIECES


def read_words(path: Path) -> list[str]:
    """Return the words of a list: the first field of each line, if it is one word of letters.

    WordNet's index.noun is such a list; its licence, in lines that begin with a space, is skipped. Raises InputError
    for a file that cannot be read.
    """
    lines = read_lines(path, f"words: {path}")
    first = [line.split(maxsplit=1)[0].lower() for line in lines if line.strip() and not line.startswith((" ", "#"))]
    return [word for word in first if word.isalpha() and word.isascii()]


def choose_words(texts: Iterable[str], lists: Sequence[Path], encoder: SentenceEncoder) -> Counter[str]:
    """Return the vocabulary with the number of texts that hold each word.

    These are the words of two texts or more, and the common ones of the lists.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(set(words_of(text)))
    words = Counter({word: count for word, count in counts.items() if count > 1})
    for path in lists:
        words.update({word: 0 for word in read_words(path) if word not in words and encoder.is_common(word)})
    return words


def distil(
    counts: Counter[str], documents: int, encoder: SentenceEncoder, *, width: int, buckets: int, progress: bool = False
) -> WordVectors:
    """Return the vectors of a vocabulary.

    Args:
        counts: Number of texts that hold each word.
        documents: Number of texts in all; a word's weight is the logarithm of documents over its count.
        encoder: Embeds each word as if it were a text.
        width: Principal components to keep.
        buckets: Of the character n-grams, fitted to give the words' vectors.
        progress: Whether to show a bar.

    Raises:
        InputError: There are fewer words, or shorter embeddings, than `width`.
    """
    words = sorted(counts)
    if width > min(len(words), encoder.width):
        raise InputError(
            f"width: expected at most {min(len(words), encoder.width)} for these words and this encoder, got {width}"
        )
    weights = torch.tensor([math.log(documents / max(counts[word], 1)) for word in words])
    embedded = encoder(words, progress=progress)
    centered = embedded - embedded.mean(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        _, _, components = torch.pca_lowrank(
            centered * weights.clamp(min=0)[:, None].sqrt(), width, center=False, niter=4
        )
    vectors = normalize(centered @ components, dim=-1)
    return WordVectors(
        words,
        as_int8(vectors.numpy()),
        weights.clamp(min=0.1).numpy(),
        as_int8(fit_ngrams(words, vectors, buckets).numpy()),
    )


def fit_ngrams(words: Sequence[str], vectors: Tensor, buckets: int, penalty: float = 1.0) -> Tensor:
    """Return vectors `(buckets, width)` whose mean over a word's n-grams is near its vector (ridge regression)."""
    means = torch.zeros(len(words), buckets)
    for row, word in enumerate(words):
        hashed = list(ngram_buckets(word, buckets))
        means[row].index_add_(0, torch.tensor(hashed), torch.full((len(hashed),), 1 / len(hashed)))
    gram = means.T @ means + penalty * means.pow(2).sum() / buckets * torch.eye(buckets)
    fitted = torch.linalg.solve(gram, means.T @ vectors)
    return fitted / fitted.abs().max().clamp(min=1)


def as_int8(values: NDArray[np.float32]) -> NDArray[np.int8]:
    """Return values from -1 to 1 in steps of 1/127."""
    return np.round(np.clip(values, -1, 1) * 127).astype(np.int8)
