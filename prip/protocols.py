"""The four protocols that carry PRIP, and two for a part of them. `Images` are uint8 `(n, 3, height, width)`."""

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
        ...


class CountsTokens(Protocol):
    """Reads prompts by a tokenizer of its own."""

    token_limit: int

    def count_tokens(self, text: str) -> int:
        """Return the tokens of `text` as the text encoder counts them; at most `token_limit` are read."""
        ...


@runtime_checkable
class Generator(CountsTokens, Protocol):
    """Draws an image from a prompt and a seed."""

    name: str

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> Images:
        """Draw one image for each (prompt, seed); a pair gives the same image in any batch."""
        ...


@runtime_checkable
class Reward(Protocol):
    """Scores images for the user prompts (never for the refined ones)."""

    name: str

    def __call__(self, user_prompts: Sequence[str], images: Images) -> torch.Tensor:
        """Return float32 scores `(n,)` on the CPU; higher is better."""
        ...


@runtime_checkable
class DifferentiableReward(Reward, Protocol):
    """A reward that can tell how its score changes with the image: what a generator can be tuned by."""

    def scores_with_gradient(self, user_prompts: Sequence[str], images: torch.Tensor) -> torch.Tensor:
        """Return scores float32 `(n,)` on the reward's device, differentiable by the images.

        images: floats `(n, 3, height, width)` in 0..255. Of whole numbers the scores are those of `__call__`, but for
        what rounding to whole pixels in between makes of them.
        """
        ...


@runtime_checkable
class PromptRefiner(Protocol):
    """Maps user prompts to system prompts."""

    name: str

    def __call__(self, user_prompts: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """Return one refined prompt for each (user prompt, seed)."""
        ...
