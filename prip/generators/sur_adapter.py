"""The SUR adapter between Stable Diffusion's text encoder and UNet (Zhong et al., 2023, arXiv 2305.05189).

Architecture, weight names and position in the pipeline follow Qrange-group/SUR-adapter at commit ac26645.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import CheckpointError, InputError
from ..hub.names import split_revision
from ..loading.published_files import find_file, read_weights

FILES = ("adapter.pt", "adapter.safetensors")
"""Final weights of the authors' training; an intermediate checkpoint has to be named as a file."""

HEADS = 8
"""Attention heads of the encoder's layers, which the weights do not reveal."""

UNUSED = ("encoder_layer.", "attention.value_layer.")
"""Prefixes of weights in the authors' files that their forward pass does not use: the layer that the encoder's layers
were copied from, and a value projection."""

_LAYER = re.compile(r"transformer_encoder\.layers\.(\d+)\.")
_FOLDER_WITH_WEIGHT = re.compile(r"adapterw([^/]+)/")


class SurAdapter(nn.Module):
    """Moves text embeddings towards a language model's, by the share `weight`."""

    def __init__(self, width: int, layers: int, feedforward: int, weight: float, name: str = "SUR adapter") -> None:
        """Build with random weights.

        Args:
            width: Of the embeddings.
            layers: Of the encoder.
            feedforward: Inner width of the encoder's layers.
            weight: 0 leaves embeddings as they are, 1 replaces them.
            name: Where it was loaded from.
        """
        super().__init__()
        self.weight = weight
        self.name = name
        layer = nn.TransformerEncoderLayer(width, HEADS, feedforward)
        self.transformer_encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.attention = _Attention(width)
        self.fc = nn.Linear(width, width)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Adapt float32 embeddings `(texts, tokens, width)` that go to the UNet together.

        In the encoder each position attends to the same position of the other texts, not to other positions: the
        authors' layers expect the sequence first, and they pass the batch first.
        """
        queries = self.transformer_encoder(embeddings)
        return self.weight * self.fc(self.attention(queries, embeddings)) + (1 - self.weight) * embeddings

    @torch.no_grad()
    def condition(self, prompt: Tensor, negative: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Adapt the embedding of one prompt and, with guidance, that of the negative prompt.

        The two are adapted together, as in the authors' pipeline for one prompt, so the negative one depends on the
        prompt too, but never on other prompts.

        Args:
            prompt: `(1, tokens, width)` of any floating dtype; computed in float32.
            negative: The same of the negative prompt; None without guidance.

        Returns:
            Both adapted, in their own dtype.
        """
        if negative is None:
            return self(prompt.float()).to(prompt.dtype), None
        adapted = self(torch.cat([negative, prompt]).float()).to(prompt.dtype)
        return adapted[1:], adapted[:1]


class _Attention(nn.Module):
    """One attention head over a text's positions; keys are projected embeddings, values the embeddings themselves."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query_layer = nn.Linear(width, width)
        self.key_layer = nn.Linear(width, width)
        self.output_layer = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, queries: Tensor, embeddings: Tensor) -> Tensor:
        scores = self.query_layer(queries) @ self.key_layer(embeddings).transpose(-2, -1)
        mixed = (scores / math.sqrt(embeddings.shape[-1])).softmax(dim=-1) @ embeddings + embeddings
        return self.output_layer(mixed) + mixed


def load_sur_adapter(name: str, weight: float | None = None) -> SurAdapter:
    """Load a frozen adapter, in float32 on the CPU, from safetensors or a pickle of tensors.

    Args:
        name: The authors' file, a folder that holds one of FILES, or a Hub id, also "ID@REVISION".
        weight: Share of the adapted embeddings. The file does not hold it; None reads it from a folder name
            "...adapterw0.1", as the authors call theirs.

    Raises:
        CheckpointError: If there is no such file, or its weights are not an adapter's; lists them.
        InputError: If the weight is outside 0..1, or None and not in the folder name.
    """
    place, revision = split_revision(name)
    path = find_file(place, FILES, revision)
    return from_published(read_weights(path), _weight_of(path) if weight is None else weight, name)


def from_published(weights: Mapping[str, Tensor], weight: float, name: str) -> SurAdapter:
    """Build an adapter from weights under the authors' names; errors as in `load_sur_adapter`."""
    if not (isinstance(weight, int | float) and 0 <= weight <= 1):
        raise InputError(f"adapter_weight: expected a number from 0 to 1, got {weight!r}")
    layers = 1 + max((int(match[1]) for key in weights if (match := _LAYER.match(key))), default=0)
    try:
        width, feedforward = weights["fc.bias"].shape[0], weights["transformer_encoder.layers.0.linear1.bias"].shape[0]
    except (KeyError, IndexError) as error:
        raise CheckpointError(f"adapter: {name!r} holds no SUR adapter: {error.args[0]} is missing or empty") from error
    if width % HEADS or layers > len(weights):
        raise CheckpointError(f"adapter: {name!r} holds no SUR adapter: {layers} layers of width {width}")
    with torch.device("meta"):
        adapter = SurAdapter(width, layers, feedforward, float(weight), name)
    expected = {key: tuple(value.shape) for key, value in adapter.state_dict().items()}
    expected |= {key: shape for key, shape in _unused(expected).items() if key in weights}
    stored = {key: tuple(value.shape) for key, value in weights.items()}
    problems = {
        "missing": expected.keys() - stored.keys(),
        "unexpected": stored.keys() - expected.keys(),
        "mismatched": {key for key in expected.keys() & stored.keys() if expected[key] != stored[key]},
    }
    lines = [f"{problem} {', '.join(sorted(keys))}" for problem, keys in problems.items() if keys]
    if lines:
        raise CheckpointError(f"adapter: {name!r} does not fit a SUR adapter: {'; '.join(lines)}")
    used = {key: value.float() for key, value in weights.items() if not key.startswith(UNUSED)}
    adapter.load_state_dict(used, assign=True)
    return adapter.requires_grad_(False).eval()


def _unused(expected: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    twins = (("transformer_encoder.layers.0.", UNUSED[0]), ("attention.key_layer.", UNUSED[1]))
    return {
        unused + key.removeprefix(used): shape
        for used, unused in twins
        for key, shape in expected.items()
        if key.startswith(used)
    }


def _weight_of(path: Path) -> float:
    """Return the weight in a file's path, as the authors' training names its folders."""
    weights = _FOLDER_WITH_WEIGHT.findall(path.absolute().as_posix())
    try:
        return float(weights[-1])
    except (IndexError, ValueError) as error:
        raise InputError(
            f"adapter_weight: expected a number from 0 to 1, such as the authors' 0.1, got None, and {path} is not in "
            'a folder "...adapterw0.1" either'
        ) from error
