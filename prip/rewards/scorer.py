"""Base classes of the rewards: batching, strict loading of published weights, a tokenizer, a linear head."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedTokenizerFast

from ..errors import CheckpointError
from ..loading.folders import resolve_folder
from ..loading.strict import quiet
from ..modeling.strict_model import StrictModel
from ..processing import load_tokenizer, save_tokenizer
from ..protocols import Images
from .preprocessing import check_float_pairs, check_pairs

HEAD_WIDTHS = (1024, 128, 64, 16)
"""Inner widths of the published linear heads."""
_HEAD_WEIGHT = re.compile(r"layers\.(\d+)\.(weight|bias)")
_HEAD_LAYERS = {0: 0, 2: 1, 4: 2, 6: 3, 7: 4}
"""Index of a linear layer in the published heads, which have dropout in between, to its index here."""


class Scorer(StrictModel):
    """Base of the published rewards; subclasses implement `score` for one batch."""

    main_input_name = "pixel_values"
    published: str
    """Hub id of the weights that the authors published."""
    _supports_sdpa = True

    def _init_weights(self, module: nn.Module) -> None:
        """Keep torch's initialisation of own layers; the networks inside initialise themselves."""

    @property
    def name(self) -> str:
        """Name of this reward in tables."""
        return self.config.name

    def score(self, user_prompts: Sequence[str], images: Tensor) -> Tensor:
        """Return the scores of one batch, float32 `(n,)`; images (uint8 or floats) are on the model's device."""
        raise NotImplementedError

    @torch.no_grad()
    def __call__(self, user_prompts: Sequence[str], images: Images, batch_size: int = 64) -> Tensor:
        """Score images for their user prompts.

        Args:
            user_prompts: n prompts as the user typed them.
            images: uint8 `(n, 3, height, width)` on any device, one per prompt.
            batch_size: Images scored at once.

        Returns:
            Scores, float32 `(n,)` on the CPU.

        Raises:
            InputError: If images are not uint8, or not one per prompt.
        """
        check_pairs(len(user_prompts), images)
        starts = range(0, len(user_prompts), batch_size)
        batches = [
            self.score(user_prompts[i : i + batch_size], images[i : i + batch_size].to(self.device)) for i in starts
        ]
        return torch.cat(batches).float().cpu() if batches else torch.zeros(0)

    def scores_with_gradient(self, user_prompts: Sequence[str], images: Tensor) -> Tensor:
        """Return scores, float32 `(n,)`, that are differentiable with respect to float images in 0..255.

        Raises:
            InputError: If images are not floats, or not one per prompt.
        """
        check_float_pairs(len(user_prompts), images)
        return self.score(user_prompts, images.float().to(self.device)).float()

    @classmethod
    def from_config(cls, config: PreTrainedConfig) -> Self:
        """Build the reward with random weights."""
        return cls(config).eval()

    @classmethod
    def from_weights(
        cls, config: PreTrainedConfig, weights: Mapping[str, Tensor], origin: object, dtype: torch.dtype | None = None
    ) -> Self:
        """Build the reward from weights under its own parameter names.

        Args:
            config: Architecture of the reward.
            weights: Tensors by parameter name.
            origin: Where the weights are from, for error messages.
            dtype: Of the networks; None is float32.

        Raises:
            CheckpointError: If weights are missing, unexpected or of another shape; lists them.
        """
        try:
            with quiet():
                loaded: Any = super(StrictModel, cls).from_pretrained(
                    None,
                    config=config,
                    state_dict=dict(weights),
                    dtype=dtype or torch.float32,
                    ignore_mismatched_sizes=True,
                    output_loading_info=True,
                )
        except (RuntimeError, ValueError, OSError) as error:
            raise CheckpointError(f"{origin} cannot be loaded as {cls.__name__}: {error}") from error
        model, info = loaded
        keys = {problem: info.get(f"{problem}_keys") for problem in ("missing", "unexpected", "mismatched")}
        problems = [f"{problem} {', '.join(sorted(map(str, names)))}" for problem, names in keys.items() if names]
        if problems:
            raise CheckpointError(f"{origin} does not fit {cls.__name__}: {'; '.join(problems)}")
        return model.eval()


class TokenizedModel(StrictModel):
    """Base of the rewards that store a tokenizer beside their weights."""

    tokenizer: PreTrainedTokenizerFast | None
    """None until a model built from a config is given one."""

    def save_pretrained(self, save_directory: Any, **options: Any) -> None:  # type: ignore[override]
        """Write the networks and the tokenizer."""
        super().save_pretrained(save_directory, **options)
        assert self.tokenizer is not None
        save_tokenizer(self.tokenizer, save_directory)

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, **options: Any) -> Self:  # type: ignore[override]
        """Load the networks and the tokenizer; options and errors are those of `StrictModel.from_pretrained`."""
        model = super().from_pretrained(name_or_path, **options)
        model.tokenizer = load_tokenizer(resolve_folder(name_or_path, options.get("revision")))
        return model


def tower(width: int, layers: int, heads: int, **fields: Any) -> dict[str, Any]:
    """Return the fields of the config of a transformer whose inner width is four times its width."""
    sizes = {"hidden_size": width, "intermediate_size": 4 * width}
    return {**sizes, "num_hidden_layers": layers, "num_attention_heads": heads, **fields}


def linear_head(width: int, widths: Sequence[int] | None = None) -> nn.Sequential:
    """Build the head of ImageReward and of the aesthetic predictor: five linear layers without activations.

    Args:
        width: Of the features `(n, width)` that it maps to scores `(n, 1)`.
        widths: Inner widths; None is HEAD_WIDTHS.
    """
    sizes = [width, *(widths or HEAD_WIDTHS), 1]
    return nn.Sequential(*(nn.Linear(into, out) for into, out in pairwise(sizes)))


def read_head(head: nn.Module, features: Tensor) -> Tensor:
    """Apply a head, in its own dtype, to features `(n, width)`; return float32 `(n,)`."""
    return head(features.to(next(head.parameters()).dtype))[:, 0].float()


def head_name(name: str) -> str:
    """Translate a published weight's name ("layers.7.bias") to ours ("4.bias"); unknown names stay as they are."""
    match = _HEAD_WEIGHT.fullmatch(name)
    return f"{_HEAD_LAYERS[int(match[1])]}.{match[2]}" if match and int(match[1]) in _HEAD_LAYERS else name
