"""Value head of PPO: a linear function of the decoder's last hidden state, at a scale that holds at any width."""

from __future__ import annotations

import torch
from torch import Tensor, nn

INPUT_NORM = 4.0
"""Euclidean norm of every input. An optimizer such as Adam or Adafactor moves all weights by about the learning rate,
and the value by the sum of its inputs' magnitudes times that: at most INPUT_NORM * sqrt(width). On hidden states as
they are, with a norm of sqrt(width), a step of 1e-3 at width 4,096 would move every value by up to 4."""


class ValueHead(nn.Module):
    """Estimates the return after each token; starts at 0."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the values, float32 (batch, length), of hidden states (batch, length, width) in any dtype.

        Their length is dropped: it differs between decoders, and says nothing of a text.
        """
        direction = torch.nn.functional.normalize(hidden.float(), dim=-1)
        return self.linear(direction * INPUT_NORM).squeeze(-1)
