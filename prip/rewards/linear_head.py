"""The head that ImageReward and the aesthetic predictor share: five linear layers with nothing between them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

PUBLISHED_WIDTHS = (1024, 128, 64, 16)
_LAYER = re.compile(r"layers\.(\d+)\.(weight|bias)")
_PLACES = {0: 0, 2: 1, 4: 2, 6: 3, 7: 4}
"""Place among the originals' layers, where dropout stands between them, to place among ours."""


def linear_head(width: int, widths: Sequence[int] | None = None) -> nn.Sequential:
    """Features (n, width) to one number each (n, 1); `widths` are those between, None means the published ones."""
    sizes = [width, *(widths or PUBLISHED_WIDTHS), 1]
    return nn.Sequential(*(nn.Linear(into, out) for into, out in pairwise(sizes)))


def read_head(head: nn.Module, features: Tensor) -> Tensor:
    """What a head makes of features (n, width), in its own dtype: float32 (n,)."""
    return head(features.to(next(head.parameters()).dtype))[:, 0].float()


def head_name(name: str) -> str:
    """A weight's name in the originals ("layers.7.bias") to ours ("4.bias"); one that they do not have stays."""
    found = _LAYER.fullmatch(name)
    return f"{_PLACES[int(found[1])]}.{found[2]}" if found and int(found[1]) in _PLACES else name
