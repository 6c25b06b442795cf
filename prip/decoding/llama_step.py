"""One-token steps of a Llama, written out as plain tensor operations.

transformers spends most of a small model's step in module calls, masks and cache updates; written out, a step of a
3-layer Llama takes about a fifth of the time and gives the same numbers to rounding. Other models use transformers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from ..errors import broken_packages

with broken_packages():
    from transformers import Cache, LlamaForCausalLM

SPARE_LENGTH = 64
"""Tokens by which full key and value buffers grow."""


class LlamaStep:
    """Decodes one token per row at a time, from a cache that the model has filled."""

    @staticmethod
    def supports(lm: torch.nn.Module) -> bool:
        """Return whether `lm` is a plain Llama: no adapter, quantized layer or hook of accelerate."""
        return type(lm) is LlamaForCausalLM and all(
            type(module) is torch.nn.Linear and not hasattr(module, "_hf_hook")
            for name, module in lm.named_modules()
            if name.endswith("_proj") or name == "lm_head"
        )

    def __init__(self, lm: Any, cache: Cache, mask: torch.Tensor | None) -> None:
        """Take over a cache; `mask` `(batch, length)` is the attention mask of its contents, 1 = token."""
        self.rotary = lm.model.rotary_emb
        self.embedding = lm.model.embed_tokens.weight
        self.layers = [_Layer(layer) for layer in lm.model.layers]
        self.norm = _Norm(lm.model.norm)
        self.head = (lm.lm_head.weight, lm.lm_head.bias)
        self.mask = None if mask is None else mask.bool()
        layers: list[Any] = list(cache.layers)
        self.keys: list[torch.Tensor] = [layer.keys for layer in layers]
        self.values: list[torch.Tensor] = [layer.values for layer in layers]
        self.length: int = self.keys[0].shape[2]
        if mask is None:
            self.position = torch.full((1, 1), self.length, device=self.embedding.device)
        else:
            self.position = mask.sum(dim=1, keepdim=True)

    def keep(self, rows: torch.Tensor) -> None:
        """Continue with these rows only."""
        self.keys = [keys[rows] for keys in self.keys]
        self.values = [values[rows] for values in self.values]
        if self.mask is not None:
            self.mask = self.mask[rows]
            self.position = self.position[rows]

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """Read one token per row, int64 `(batch,)`; return the logits of the next, `(batch, vocabulary)`."""
        hidden = functional.embedding(tokens, self.embedding)
        cos, sin = (part[:, None] for part in self.rotary(hidden, position_ids=self.position))
        left, right = sin.chunk(2, dim=-1)
        sin = torch.cat((-left, right), dim=-1)
        mask = None
        if self.mask is not None:
            self.mask = functional.pad(self.mask, (0, 1), value=True)
            mask = self.mask[:, None, None]
        if self.length == self.keys[0].shape[2]:
            self.keys = [functional.pad(keys, (0, 0, 0, SPARE_LENGTH)) for keys in self.keys]
            self.values = [functional.pad(values, (0, 0, 0, SPARE_LENGTH)) for values in self.values]
        self.length += 1
        for layer, keys, values in zip(self.layers, self.keys, self.values, strict=True):
            hidden = layer(hidden, keys[:, :, : self.length], values[:, :, : self.length], cos, sin, mask)
        self.position = self.position + 1
        return functional.linear(self.norm(hidden), *self.head)


class _Norm:
    """Llama's root-mean-square norm, `weight * x / sqrt(mean(x ** 2) + eps)`, in the fewest operations."""

    def __init__(self, norm: Any) -> None:
        width = norm.weight.shape[0]
        self.weight = norm.weight * width**0.5
        self.floor = norm.weight.new_tensor((width * norm.variance_epsilon) ** 0.5, dtype=torch.float32)

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        length = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True, dtype=torch.float32)
        return (hidden / torch.hypot(length, self.floor)).to(hidden.dtype) * self.weight


class _Layer:
    """One decoder layer for one token per row, with `hidden` `(batch, hidden size)`."""

    def __init__(self, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.width, self.scaling = attention.head_dim, attention.scaling
        self.grouped = attention.num_key_value_groups > 1
        projections = attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj
        self.query, self.key, self.value, self.output = ((part.weight, part.bias) for part in projections)
        self.gate, self.up, self.down = (
            (part.weight, part.bias) for part in (mlp.gate_proj, mlp.up_proj, mlp.down_proj)
        )
        self.activation = mlp.act_fn
        self.before_attention, self.before_mlp = _Norm(layer.input_layernorm), _Norm(layer.post_attention_layernorm)

    def __call__(
        self,
        hidden: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """Write this token's key and value at the end of `keys` and `values`; return the layer's output."""
        batch, linear = hidden.shape[0], functional.linear
        normed = self.before_attention(hidden)
        query = linear(normed, *self.query).view(batch, -1, 1, self.width)
        key = linear(normed, *self.key).view(batch, -1, 1, self.width)
        both = torch.cat((query, key), dim=1)
        both = both * cos + both.roll(self.width // 2, dims=-1) * sin
        query, key = both.split((query.shape[1], key.shape[1]), dim=1)
        keys[:, :, -1:] = key
        values[:, :, -1:] = linear(normed, *self.value).view(batch, -1, 1, self.width)
        context = functional.scaled_dot_product_attention(
            query, keys, values, attn_mask=mask, scale=self.scaling, enable_gqa=self.grouped
        )
        hidden = hidden + linear(context.reshape(batch, -1), *self.output)
        normed = self.before_mlp(hidden)
        return hidden + linear(self.activation(linear(normed, *self.gate)) * linear(normed, *self.up), *self.down)
