"""Training prompts that occur in evaluation sets, exactly or nearly.

MinHash with locality-sensitive hashing finds candidates, whose exact Jaccard index of character n-grams decides.
Hashing can only miss near-duplicates, not add any.
"""

from __future__ import annotations

import csv
import json
import re
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd

from prip.errors import CheckpointError, InputError, require
from prip.hub.commits import commit_of
from prip.hub.fetch import fetch
from prip.hub.names import DATASET_FILE, is_dataset_file, parse_dataset_file
from prip.text_files import lines_of, read_text, stream_of

_CHUNK = 10_000
_SEPARATORS = {".tsv": "\t", ".csv": ","}


def pinned_file(place: str | Path) -> str | Path:
    """Return a dataset file on the Hub with its commit, any other path unchanged. Raise CheckpointError if the Hub
    fails."""
    if not is_dataset_file(place):
        return place
    repository, revision, path = parse_dataset_file(str(place))
    return f"{DATASET_FILE}{repository}@{commit_of(repository, revision, 'dataset')}/{path}"


def evaluation_file(place: str | Path) -> Path:
    """Return the local path of a file, downloaded and verified if on the Hub. Raise CheckpointError if that fails."""
    if not is_dataset_file(place):
        return Path(place)
    repository, revision, path = parse_dataset_file(str(place))
    try:
        return fetch(repository, revision, lambda names: [name for name in names if name == path], "dataset") / path
    except CheckpointError as error:
        raise CheckpointError(f"evaluation.files: {path} of {error}") from error


def read_evaluation_prompts(path: Path, column: str) -> list[str]:
    """Return the distinct prompts of an evaluation set, without empty ones.

    Args:
        path: .txt with one prompt per line; .tsv or .csv with prompts in `column`, in any case; .json with lists of
            strings, grouped in objects or not, or lists of objects with `column`.
        column: the column or key.

    Raises:
        CheckpointError: if the file is missing or cannot be read.
        InputError: if the file type is unknown, the column is missing or there are no prompts.
    """
    if path.suffix not in (".txt", ".json", *_SEPARATORS):
        raise InputError(f"evaluation.files: expected .txt, .tsv, .csv or .json, got {path}")
    if not path.exists():
        raise CheckpointError(f"evaluation.files: {path} is missing")
    try:
        text = read_text(path)
    except InputError as error:
        raise CheckpointError(f"evaluation.files: {error}") from error
    try:
        if path.suffix == ".txt":
            texts = lines_of(text)
        elif path.suffix == ".json":
            texts = list(_from_json(json.loads(text), column, path))
        else:
            texts = _from_table(text, _SEPARATORS[path.suffix], column, path)
    except (json.JSONDecodeError, RecursionError, csv.Error) as error:
        raise CheckpointError(f"evaluation.files: {path} cannot be read: {error}") from error
    prompts = list(dict.fromkeys(prompt.strip() for prompt in texts if prompt and prompt.strip()))
    if not prompts:
        raise InputError(f"evaluation.files: expected at least one prompt, got none in {path}")
    return prompts


def _from_table(text: str, separator: str, column: str, path: Path) -> list[str]:
    quoting: Any = csv.QUOTE_NONE if separator == "\t" else csv.QUOTE_MINIMAL
    rows = list(csv.reader(stream_of(text), delimiter=separator, quoting=quoting))
    names = [name.strip().lower() for name in rows[0]] if rows else []
    if column.lower() not in names:
        raise InputError(
            f"evaluation.column: expected one of {path}'s columns ({', '.join(names) or 'none'}), got {column!r}"
        )
    index = names.index(column.lower())
    return [row[index] for row in rows[1:] if len(row) > index]


def _from_json(value: Any, column: str, path: Path) -> Iterator[str]:
    if isinstance(value, dict) and isinstance(value.get(column), str):
        yield value[column]
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            if isinstance(item, str) and isinstance(value, list):
                yield item
            elif isinstance(item, dict | list):
                yield from _from_json(item, column, path)


def normalise(prompt: str) -> str:
    """Return the prompt's words in lower case, with single spaces and no punctuation."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", prompt).casefold()))


def ngrams(text: str, length: int) -> set[str]:
    """Return the character n-grams of `text`, or the text itself if it is shorter."""
    return {text[start : start + length] for start in range(max(1, len(text) - length + 1))}


def occurring(
    prompts: Iterable[str], evaluation: Sequence[str], similarity: float, ngram: int, permutations: int
) -> pd.DataFrame:
    """Return the training prompts that occur in the evaluation prompts.

    `similarity` is the minimum Jaccard index of a near-duplicate's n-grams of `ngram` characters; 0 finds exact matches
    only. `permutations` are those of MinHash.

    Returns:
        prompt, evaluation_prompt (the most similar one), kind ("exact": equal after `normalise`, or "near"),
        similarity.
    """
    by_text = {normalise(prompt): prompt for prompt in reversed(evaluation)}
    by_text.pop("", None)
    search = _Index(by_text, similarity, ngram, permutations) if similarity else None
    matches: list[tuple[str, str, str, float]] = []
    remaining = iter(prompts)
    while chunk := list(islice(remaining, _CHUNK)):
        texts = [normalise(prompt) for prompt in chunk]
        matches += [(p, by_text[t], "exact", 1.0) for p, t in zip(chunk, texts, strict=True) if t in by_text]
        if search is not None:
            others = [(p, t) for p, t in zip(chunk, texts, strict=True) if t and t not in by_text]
            near = search.nearest([text for _, text in others])
            matches += [(others[index][0], by_text[text], "near", score) for index, (text, score) in near.items()]
    return pd.DataFrame(matches, columns=["prompt", "evaluation_prompt", "kind", "similarity"])


def occurring_in_files(
    prompts: Iterable[str], files: Iterable[str | Path], column: str, similarity: float, ngram: int, permutations: int
) -> pd.DataFrame:
    """Return `occurring` for the prompts in `files`, local or on the Hub; errors as in read_evaluation_prompts."""
    evaluation = [prompt for file in files for prompt in read_evaluation_prompts(evaluation_file(file), column)]
    return occurring(prompts, evaluation, similarity, ngram, permutations)


class _Index:
    """Normalised texts, searchable by similarity."""

    def __init__(self, texts: Iterable[str], similarity: float, ngram: int, permutations: int) -> None:
        sketch = require("datasketch", "train")
        self._similarity, self._ngram, self._permutations = similarity, ngram, permutations
        self._bulk = sketch.MinHash.bulk
        # A miss costs more than a candidate that is then measured: false negatives weigh nine times as much.
        self._lsh = sketch.MinHashLSH(threshold=similarity, num_perm=permutations, weights=(0.1, 0.9))
        self._grams = {text: ngrams(text, ngram) for text in texts}
        for text, hashed in zip(self._grams, self._hash(list(self._grams.values())), strict=True):
            self._lsh.insert(text, hashed)
        sizes = [len(grams) for grams in self._grams.values()]
        self._smallest, self._largest = similarity * min(sizes, default=0), max(sizes, default=0) / similarity

    def nearest(self, texts: Sequence[str]) -> dict[int, tuple[str, float]]:
        """Return the most similar indexed text and its similarity, if high enough, by index in `texts`."""
        grams = {index: ngrams(text, self._ngram) for index, text in enumerate(texts)}
        fitting = {
            index: members for index, members in grams.items() if self._smallest <= len(members) <= self._largest
        }
        result = {}
        for (index, members), hashed in zip(fitting.items(), self._hash(list(fitting.values())), strict=True):
            scores = {text: jaccard(members, self._grams[text]) for text in self._lsh.query(hashed)}
            best = max(scores, key=lambda text: (scores[text], text), default=None)
            if best is not None and scores[best] >= self._similarity:
                result[index] = (best, scores[best])
        return result

    def _hash(self, sets: list[set[str]]) -> list[Any]:
        encoded = [[gram.encode() for gram in sorted(grams)] for grams in sets]
        return self._bulk(encoded, num_perm=self._permutations, hashfunc=zlib.crc32) if encoded else []


def jaccard(first: set[str], second: set[str]) -> float:
    """Return the Jaccard index of two sets."""
    return len(first & second) / len(first | second)
