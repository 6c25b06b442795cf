"""The preference prior: how likely a writer who adds anything adds each concept, fitted on real prompts.

It says what people write, which is not what people prefer: nobody has judged images for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ..errors import CheckpointError
from ..files import write_output
from .concepts import concept_names
from .word_vectors import WordVectors

Floats = NDArray[np.float32]
TABLES = "prior.safetensors"
VECTORS = "word_vectors.safetensors"
_LAYERS = ("hidden.weight", "hidden.bias", "output.weight")
_CONCEPTS = "concepts"
_STATISTICS = ("base", "support", "position")


class PreferencePrior:
    """P(concept added | prompt, anything added): a network of one hidden layer on the prompt's vector, in numpy."""

    def __init__(self, vectors: WordVectors, tables: dict[str, Floats]) -> None:
        """Hold the fitted numbers.

        Args:
            vectors: Turns prompts into vectors.
            tables: `base` (concepts,), the probability of each concept whatever the prompt shows; `support`
                (concepts,), the series that add it; `position` (concepts,), its mean place among the additions, from 0
                to 1; and the layers `hidden.weight` (hidden, width), `hidden.bias` (hidden,) and `output.weight`
                (concepts, hidden).

        Raises:
            CheckpointError: A table is missing, or does not fit the concepts or the vectors.
        """
        missing = sorted({*_LAYERS, *_STATISTICS} - tables.keys())
        if missing:
            raise CheckpointError(f"preference prior: missing tables {', '.join(missing)}")
        self.vectors = vectors
        self._hidden, self._bias, self._output = (tables[name].astype(np.float32) for name in _LAYERS)
        self.base, self.support, self.position = (tables[name].astype(np.float32) for name in _STATISTICS)
        if any(len(tables[name]) != len(concept_names()) for name in ("output.weight", *_STATISTICS)):
            raise CheckpointError(f"preference prior: expected tables of {len(concept_names())} concepts")
        if self._hidden.shape[1] != vectors.width:
            raise CheckpointError(
                f"preference prior: expected vectors of width {self._hidden.shape[1]}, got {vectors.width}"
            )

    def __call__(self, prompts: Sequence[str]) -> Floats:
        """Return float32 probabilities `(prompts, concepts)`, in the order of `concept_names()`."""
        features = normalized(self.vectors(prompts))
        hidden = np.maximum(features @ self._hidden.T + self._bias, 0)
        known = np.abs(features).sum(axis=1, keepdims=True) > 0
        shift = np.where(known, hidden @ self._output.T, 0)
        odds = np.log(self.base / (1 - self.base)) + shift
        return (1 / (1 + np.exp(-odds))).astype(np.float32)

    def save(self, folder: Path) -> None:
        """Write the tables and the word vectors into a folder."""
        layers = (self._hidden, self._bias, self._output)
        named: dict[str, NDArray[Any]] = {
            name: table.astype(np.float16) for name, table in zip(_LAYERS, layers, strict=True)
        }
        named |= dict(zip(_STATISTICS, (self.base, self.support, self.position), strict=True))
        named[_CONCEPTS] = np.frombuffer("\n".join(concept_names()).encode(), np.uint8)
        write_output(folder / TABLES, lambda target: save_file(named, target))
        self.vectors.save(folder / VECTORS)

    @classmethod
    def load(cls, folder: Path) -> PreferencePrior:
        """Read what `save` wrote.

        Raises:
            CheckpointError: A file is missing or damaged, or the tables were fitted with another table of concepts.
        """
        try:
            tables, vectors = load_file(folder / TABLES), WordVectors.load(folder / VECTORS)
            fitted = tables.pop(_CONCEPTS)
        except (OSError, KeyError, SafetensorError) as error:
            raise CheckpointError(f"{folder}: expected a prior that prip-train prior wrote: {error!r}") from error
        if fitted.tobytes().decode().split("\n") != list(concept_names()):
            raise CheckpointError(f"{folder}: expected a prior of the concepts in concepts.json; fit it again")
        return cls(vectors, tables)


def normalized(features: Floats) -> Floats:
    """Return vectors `(n, width)` scaled to the length sqrt(width); zeros stay zeros."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return features * (np.sqrt(features.shape[1]) / np.maximum(lengths, 1e-9)).astype(np.float32)


def embedded_files() -> list[Path]:
    """Return the files that what the embedded prior suggests depends on."""
    folder = Path(__file__).parent
    return [folder / "concepts.json", folder / "rules.json", folder / "assets" / TABLES, folder / "assets" / VECTORS]


@cache
def embedded_prior() -> PreferencePrior:
    """Return the prior that the package holds."""
    return PreferencePrior.load(Path(__file__).parent / "assets")
