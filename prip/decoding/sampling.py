"""Tokens chosen from logits: the likeliest ones, or ones drawn with a single random number each."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

BLOCK = 256
"""Tokens whose probabilities are summed first, so that a draw accumulates few numbers"""


def row_generator(seed: int, user_prompt: str, alternative: int = 0) -> torch.Generator:
    """Return the source of randomness of one text, which depends on the arguments only."""
    key = f"{seed}\0{alternative}\0{user_prompt}".encode("utf-8", "surrogatepass")
    number = int.from_bytes(hashlib.sha256(key).digest()[:8], "big") >> 1
    return torch.Generator().manual_seed(number)


def likeliest(scores: Tensor, count: int) -> Tensor:
    """Return the `count` tokens with the highest scores, int64 `(batch, count)`; -1 fills up rows with fewer.

    `scores` is `(batch, vocabulary)`, -inf where a token may not be chosen.
    """
    best, tokens = scores.topk(min(count, scores.shape[1]), dim=-1)
    return tokens.masked_fill(best.isneginf(), -1)


def drawn(scores: Tensor, uniforms: Tensor, further: Tensor) -> Tensor:
    """Draw tokens from the softmax of scores, without replacement.

    Args:
        scores: float `(batch, vocabulary)`, -inf where a token may not be chosen.
        uniforms: float64 `(batch, count)` in [0, 1), on any device: one number for each token to draw.
        further: bool `(batch,)`: rows that need more than their first token.

    Returns:
        int64 `(batch, count)`; -1 where no token is left, or where none is needed.
    """
    if scores.device.type == "mps":  # it has no float64
        scores = scores.cpu()
    uniforms = uniforms.to(scores.device)
    tokens = torch.full(uniforms.shape, -1, dtype=torch.long, device=scores.device)
    tokens[:, 0] = inverse_cumulative(scores, uniforms[:, 0])
    rows = further.nonzero().flatten().to(scores.device)
    if len(rows):
        scores = scores[rows]
        for number in range(1, uniforms.shape[1]):
            scores.scatter_(1, tokens[rows, number - 1].clamp(min=0).unsqueeze(1), float("-inf"))
            tokens[rows, number] = inverse_cumulative(scores, uniforms[rows, number])
    return tokens


def inverse_cumulative(scores: Tensor, uniforms: Tensor) -> Tensor:
    """Return for each row the first token at which the cumulative softmax exceeds the uniform number.

    Args:
        scores: float32 `(batch, vocabulary)`.
        uniforms: float64 `(batch,)` in [0, 1).

    Returns:
        int64 `(batch,)`: never a token of score -inf; -1 for a row that has no other.
    """
    width = scores.shape[1]
    highest = scores.amax(dim=1, keepdim=True)
    # Weights relative to the likeliest token, in blocks; a row without any token has weights 0.
    weights = torch.zeros(len(scores), width + -width % BLOCK, device=scores.device)
    torch.sub(scores, highest.masked_fill(highest.isneginf(), 0), out=weights[:, :width])
    weights[:, :width].exp_()
    blocks = weights.unflatten(1, (-1, BLOCK))
    sums = blocks.sum(dim=-1).double().cumsum(dim=-1)
    target = _below(uniforms * sums[:, -1], sums[:, -1])
    block = (sums <= target.unsqueeze(1)).sum(dim=1).clamp(max=blocks.shape[1] - 1)
    rows = torch.arange(len(scores), device=scores.device)
    before = torch.where(block > 0, sums[rows, (block - 1).clamp(min=0)], 0)
    inside = blocks[rows, block].double().cumsum(dim=-1)
    rest = _below(target - before, inside[:, -1])
    token = block * BLOCK + (inside <= rest.unsqueeze(1)).sum(dim=1)
    return token.masked_fill(highest.squeeze(1).isneginf(), -1)


def _below(values: Tensor, limits: Tensor) -> Tensor:
    """Return values that rounding has not lifted to their limit."""
    return torch.minimum(values, limits.nextafter(torch.zeros_like(limits)))
