"""Preference encoder: maps user prompts to pivots."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, T5Config, T5Model
from transformers import initialization as init

from ..loading.folders import PART_TYPES
from .pretrained import load_base
from .strict_model import StrictModel, nested_config


class PreferenceEncoderConfig(PreTrainedConfig):
    """Shape of the preference encoder: `t5` is a T5Config as a dict, a pivot is `(pivot_length, pivot_width)`."""

    model_type = PART_TYPES["encoder"]

    t5: dict | None = None
    pivot_length: int = 32
    pivot_width: int = 768


class PreferenceEncoder(StrictModel):
    """T5 with learned queries as its decoder's input; a linear layer maps their last hidden states to the pivot."""

    config_class = PreferenceEncoderConfig
    base_model_prefix = "preference_encoder"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _no_split_modules = ["T5Block"]
    _keep_in_fp32_modules = ["wo"]
    _supports_sdpa = True

    def __init__(self, config: PreferenceEncoderConfig) -> None:
        super().__init__(config)
        t5_config = T5Config(**(config.t5 or {}))
        self.t5 = T5Model(t5_config)
        self.queries = nn.Parameter(torch.empty(config.pivot_length, t5_config.d_model))
        self.projection = nn.Linear(t5_config.d_model, config.pivot_width)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self:
            init.normal_(self.queries, mean=0.0, std=self.t5.config.initializer_factor)

    @classmethod
    def from_config(cls, config: PreferenceEncoderConfig) -> PreferenceEncoder:
        """Return a model with random weights."""
        return cls(config)

    @classmethod
    def from_t5(
        cls, t5: str | os.PathLike[str] | T5Config, pivot_length: int, pivot_width: int, **options: Any
    ) -> PreferenceEncoder:
        """Build around a T5.

        Args:
            t5: A T5Config for random weights; a folder or owner/name[@revision] on the Hub for pretrained ones. The
                queries of a pretrained T5 start at the scale of its embeddings.
            pivot_length: Number of queries.
            pivot_width: Width of the pivot.
            options: Arguments of `T5Model.from_pretrained` (dtype, device_map).

        Raises:
            CheckpointError: If the T5 cannot be loaded.
        """
        if isinstance(t5, T5Config):
            return cls(
                PreferenceEncoderConfig(t5=nested_config(t5), pivot_length=pivot_length, pivot_width=pivot_width)
            )
        pretrained: Any = load_base(T5Model, t5, **options)
        config = PreferenceEncoderConfig(
            t5=nested_config(pretrained.config), pivot_length=pivot_length, pivot_width=pivot_width
        )
        with torch.device("meta"):  # __init__ builds a random T5, which is not to be allocated
            model = cls(config)
        model.t5 = pretrained
        factory: Any = {"dtype": pretrained.dtype, "device": pretrained.shared.weight.device}
        model.queries = nn.Parameter(torch.empty(model.queries.shape, **factory))
        model.projection = nn.Linear(pretrained.config.d_model, pivot_width, **factory)
        with torch.no_grad():
            model.queries.normal_(0.0, float(pretrained.shared.weight.detach().float().std()))
            model.projection.weight.normal_(0.0, 0.02)
            model.projection.bias.zero_()
        return model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Map user prompts to pivots (trained by Eq. 6).

        Args:
            input_ids: int64 `(batch, length)`.
            attention_mask: `(batch, length)`, 1 for tokens and 0 for padding.

        Returns:
            Pivots `(batch, pivot_length, pivot_width)` in the model's dtype.
        """
        queries = self.queries.expand(input_ids.shape[0], -1, -1)
        output = self.t5(
            input_ids=input_ids, attention_mask=attention_mask, decoder_inputs_embeds=queries, use_cache=False
        )
        return self.projection(output.last_hidden_state)
