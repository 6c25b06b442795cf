"""Diversity of images from their embeddings: pure functions on arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def cosine_kernel(embeddings: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the cosines `(n, n)` between embeddings `(n, width)`. Raises ValueError for a zero or infinite vector."""
    vectors = np.asarray(embeddings, dtype=np.float64)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(norms).all() or (norms == 0).any():
        raise ValueError("embeddings: expected finite vectors other than 0")
    vectors = vectors / norms
    return vectors @ vectors.T


def mean_pairwise_distance(embeddings: NDArray[np.floating]) -> float:
    """Return the mean of 1 - cosine over all pairs of embeddings `(n, width)`: 0 (all alike) to 2; NaN for n < 2."""
    count = len(embeddings)
    if count < 2:
        return float("nan")
    kernel = cosine_kernel(embeddings)
    return float(1 - (kernel.sum() - np.trace(kernel)) / (count * (count - 1)))


def vendi_score(embeddings: NDArray[np.floating]) -> float:
    """Return the effective number of distinct images of embeddings `(n, width)`: 1 (all alike) to n (all orthogonal).

    exp of the entropy of the eigenvalues of K / n, K their cosines (Friedman and Dieng, The Vendi Score, TMLR 2023,
    equation 2). NaN for no embeddings.
    """
    count = len(embeddings)
    if count == 0:
        return float("nan")
    eigenvalues = np.linalg.eigvalsh(cosine_kernel(embeddings) / count)
    present = eigenvalues[eigenvalues > 1e-12]
    return float(np.exp(-(present * np.log(present)).sum()))
