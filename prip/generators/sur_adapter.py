"""The SUR adapter: between Stable Diffusion's text encoder and its UNet (Zhong et al., 2023, arXiv 2305.05189).

Architecture, names of the weights and place in the pipeline are those of Qrange-group/SUR-adapter at commit ac26645.
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
"""What the authors' training leaves at its end; one from its midst is named as a file."""

HEADS = 8
"""Attention heads of the encoder's layers; the weights do not tell them."""

UNUSED = ("encoder_layer.", "attention.value_layer.")
"""Beginnings of names that the authors' files hold and their forward pass does not read: the layer that theirs were
copied from, and a projection of values."""

_LAYER = re.compile(r"transformer_encoder\.layers\.(\d+)\.")
_FOLDER_WITH_WEIGHT = re.compile(r"adapterw([^/]+)/")


class SurAdapter(nn.Module):
    """Moves text embeddings towards what a language model makes of the text, by the share `weight`."""

    def __init__(self, width: int, layers: int, feedforward: int, weight: float, name: str = "SUR adapter") -> None:
        """width: of the embeddings. layers, feedforward: of the encoder. weight: 0 leaves embeddings as they are, 1
        replaces them. name: what it was loaded from."""
        super().__init__()
        self.weight = weight
        self.name = name
        layer = nn.TransformerEncoderLayer(width, HEADS, feedforward)
        self.transformer_encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.attention = _Attention(width)
        self.fc = nn.Linear(width, width)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Adapts float32 embeddings `(texts, tokens, width)` that go to the UNet together.

        In the encoder each position attends to the same position of the other texts, not to other positions: so the
        authors' layers read a batch that comes first.
        """
        queries = self.transformer_encoder(embeddings)
        return self.weight * self.fc(self.attention(queries, embeddings)) + (1 - self.weight) * embeddings

    @torch.no_grad()
    def condition(self, prompt: Tensor, negative: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Adapts the embedding of one prompt, with that of the negative prompt where the sampler is guided.

        prompt, negative: `(1, tokens, width)` of any floating dtype; computed in float32, returned in their own. The
        two are adapted together, as the authors' pipeline does for one prompt, so that the negative one depends on the
        prompt too; other prompts never come in.
        """
        if negative is None:
            return self(prompt.float()).to(prompt.dtype), None
        adapted = self(torch.cat([negative, prompt]).float()).to(prompt.dtype)
        return adapted[1:], adapted[:1]


class _Attention(nn.Module):
    """One head over a text's own positions; the embeddings are the keys' source and, unprojected, the values."""

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
    """Loads an adapter in float32 on the CPU, frozen, from a pickle of tensors or from safetensors.

    name: the authors' file, a folder that holds one of FILES, or a Hub id, "ID@REVISION" too. weight: the share of what
    is adapted; the file does not hold it, and None takes it from a folder called "...adapterw0.1", as the authors do.
    Raises CheckpointError where there is no such file, or its weights are not an adapter's, which it lists; InputError
    for a weight outside of 0 to 1, and for None where no folder tells it.
    """
    place, revision = split_revision(name)
    path = find_file(place, FILES, revision)
    return from_published(read_weights(path), _weight_of(path) if weight is None else weight, name)


def from_published(weights: Mapping[str, Tensor], weight: float, name: str) -> SurAdapter:
    """Builds an adapter around weights under the authors' names. Errors are those of `load_sur_adapter`."""
    if not (isinstance(weight, int | float) and 0 <= weight <= 1):
        raise InputError(f"adapter_weight: wanted a number from 0 to 1, got {weight!r}")
    layers = 1 + max((int(found[1]) for key in weights if (found := _LAYER.match(key))), default=0)
    try:
        width, feedforward = weights["fc.bias"].shape[0], weights["transformer_encoder.layers.0.linear1.bias"].shape[0]
    except (KeyError, IndexError) as error:
        raise CheckpointError(f"adapter: {name!r} holds no SUR adapter: {error.args[0]} is missing or empty") from error
    if width % HEADS or layers > len(weights):
        raise CheckpointError(f"adapter: {name!r} holds no SUR adapter: {layers} layers of width {width}")
    with torch.device("meta"):
        adapter = SurAdapter(width, layers, feedforward, float(weight), name)
    wanted = {key: tuple(value.shape) for key, value in adapter.state_dict().items()}
    wanted |= {key: shape for key, shape in _unused(wanted).items() if key in weights}
    stored = {key: tuple(value.shape) for key, value in weights.items()}
    problems = {
        "missing": wanted.keys() - stored.keys(),
        "unexpected": stored.keys() - wanted.keys(),
        "mismatched": {key for key in wanted.keys() & stored.keys() if wanted[key] != stored[key]},
    }
    told = [f"{what} {', '.join(sorted(keys))}" for what, keys in problems.items() if keys]
    if told:
        raise CheckpointError(f"adapter: {name!r} does not fit a SUR adapter: {'; '.join(told)}")
    used = {key: value.float() for key, value in weights.items() if not key.startswith(UNUSED)}
    adapter.load_state_dict(used, assign=True)
    return adapter.requires_grad_(False).eval()


def _unused(wanted: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Returns the names and shapes of what an authors' file holds besides."""
    twins = (("transformer_encoder.layers.0.", UNUSED[0]), ("attention.key_layer.", UNUSED[1]))
    return {
        unused + key.removeprefix(used): shape
        for used, unused in twins
        for key, shape in wanted.items()
        if key.startswith(used)
    }


def _weight_of(path: Path) -> float:
    """Returns the weight that the path of a file tells, as the authors' training names its folders."""
    told = _FOLDER_WITH_WEIGHT.findall(path.absolute().as_posix())
    try:
        return float(told[-1])
    except (IndexError, ValueError) as error:
        raise InputError(
            f"adapter_weight: wanted a number from 0 to 1, such as 0.1 of the authors' example: neither {path} nor its "
            'folder\'s name ("...adapterw0.1") tells it'
        ) from error
