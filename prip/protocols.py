"""Protocols of the frozen parts and of refiners. `Images` are uint8 `(n, 3, height, width)`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    import torch

Images: TypeAlias = "torch.Tensor"


@runtime_checkable
class PivotEncoder(Protocol):
    """Maps an image to its pivot."""

    pivot_length: int
    pivot_width: int

    def __call__(self, images: Images) -> torch.Tensor:
        """Return float32 pivots `(n, pivot_length, pivot_width)` of n images."""


class CountsTokens(Protocol):
    """Counts tokens with its own tokenizer."""

    token_limit: int

    def count_tokens(self, text: str) -> int:
        """Return the number of tokens of a text; the text encoder reads at most `token_limit`."""


@runtime_checkable
class Generator(CountsTokens, Protocol):
    """Draws an image from a prompt and a seed."""

    name: str

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> Images:
        """Return one image for each (prompt, seed); a pair gives the same image in any batch."""


@runtime_checkable
class Reward(Protocol):
    """Scores images for user prompts (never for refined prompts)."""

    name: str

    def __call__(self, user_prompts: Sequence[str], images: Images) -> torch.Tensor:
        """Return float32 scores `(n,)` on the CPU; higher is better."""


@runtime_checkable
class DifferentiableReward(Reward, Protocol):
    """A reward whose scores are differentiable with respect to the images, for tuning a generator."""

    def scores_with_gradient(self, user_prompts: Sequence[str], images: torch.Tensor) -> torch.Tensor:
        """Return differentiable scores.

        Args:
            user_prompts: One for each image.
            images: Floats `(n, 3, height, width)` from 0 to 255.

        Returns:
            float32 `(n,)` on the reward's device. For integer pixels they equal those of `__call__`, except where
            that rounds intermediate pixels.
        """


@runtime_checkable
class PromptRefiner(Protocol):
    """Maps user prompts to system prompts."""

    name: str

    def __call__(self, user_prompts: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """Return one refined prompt for each (user prompt, seed)."""
