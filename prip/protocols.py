"""The four protocols that carry PRIP. `Images` are uint8 tensors `(n, 3, height, width)`."""

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


@runtime_checkable
class Generator(Protocol):
    """Draws an image from a prompt and a seed."""

    name: str
    token_limit: int

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> Images:
        """Draw one image for each (prompt, seed); a pair gives the same image in any batch."""
        ...

    def count_tokens(self, text: str) -> int:
        """Return the tokens of `text` as the text encoder counts them; at most `token_limit` are read."""
        ...


@runtime_checkable
class Reward(Protocol):
    """Scores images for the user prompts (never for the refined ones)."""

    name: str

    def __call__(self, user_prompts: Sequence[str], images: Images) -> torch.Tensor:
        """Return float32 scores `(n,)` on the CPU; higher is better."""
        ...


@runtime_checkable
class PromptRefiner(Protocol):
    """Maps user prompts to system prompts."""

    name: str

    def __call__(self, user_prompts: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """Return one refined prompt for each (user prompt, seed)."""
        ...
