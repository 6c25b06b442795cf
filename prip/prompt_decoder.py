"""D, the prompt decoder: pivot to system prompt."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from .errors import InputError
from .loading import part_folder, quiet
from .strict_model import StrictModel, load_adapter, load_foreign, nested_config

if TYPE_CHECKING:
    import os

    from transformers import PreTrainedTokenizerFast


class PromptDecoderConfig(PreTrainedConfig):
    """Shape of D: `lm` is the dict of a causal LM's config, `template_*_ids` the tokens around the soft tokens.

    `modifier_tokens` is the room, in tokens, that must be free for a further modifier to be begun.
    """

    model_type = "prip_prompt_decoder"

    lm: dict | None = None
    pivot_length: int = 32
    pivot_width: int = 768
    template_before_ids: list[int] | None = None
    template_after_ids: list[int] | None = None
    modifier_tokens: int = 4


@dataclass
class PromptDecoderOutput:
    """What D says at each position: entry `[:, t]` chooses token t, from the template, the pivot and the tokens < t."""

    logits: torch.Tensor
    """`(batch, length, vocabulary)`"""
    hidden: torch.Tensor
    """`(batch, length, hidden size)`: the last hidden state, from which the logits are made"""


class PromptDecoder(StrictModel):
    """D: a causal LM that reads the pivot as soft tokens, through one linear layer, inside a fixed template."""

    config_class = PromptDecoderConfig
    base_model_prefix = "prompt_decoder"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True

    def __init__(self, config: PromptDecoderConfig) -> None:
        super().__init__(config)
        nested = dict(config.lm or {})
        lm_config = AutoConfig.for_model(nested.pop("model_type"), **nested)
        self.lm = AutoModelForCausalLM.from_config(lm_config)
        self.projection = nn.Linear(config.pivot_width, lm_config.get_text_config().hidden_size)
        self.post_init()

    @classmethod
    def from_config(cls, config: PromptDecoderConfig) -> PromptDecoder:
        """Build with random weights."""
        return cls(config)

    @classmethod
    def from_lm(
        cls,
        lm: str | os.PathLike[str] | PreTrainedConfig,
        tokenizer: PreTrainedTokenizerFast,
        pivot_length: int,
        pivot_width: int,
        template: str = "{pivot}",
        modifier_tokens: int = 4,
        **options: Any,
    ) -> PromptDecoder:
        """Build around a causal LM: random weights for a config, the pretrained ones for a folder or Hub id.

        `template` is the text around the soft tokens, which stand where it says {pivot}; the beginning-of-sequence
        token (or, for want of one, the end-of-sequence token) goes before it. `options` go to the LM's
        from_pretrained. The projection of a pretrained LM starts at the scale of its embeddings.
        Raises InputError for a bad template or tokenizer, CheckpointError when the LM cannot be loaded.
        """
        before, marker, after = template.partition("{pivot}")
        if not marker or "{pivot}" in after:
            raise InputError(f"template must hold {{pivot}} exactly once, it is {template!r}")
        start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        if start is None or tokenizer.eos_token_id is None:
            raise InputError("tokenizer must have an end-of-sequence token")
        shape = {
            "pivot_length": pivot_length,
            "pivot_width": pivot_width,
            "template_before_ids": [start, *tokenizer.encode(before, add_special_tokens=False)],
            "template_after_ids": tokenizer.encode(after, add_special_tokens=False),
            "modifier_tokens": modifier_tokens,
        }
        if isinstance(lm, PreTrainedConfig):
            return cls(PromptDecoderConfig(lm=nested_config(lm), **shape))
        pretrained = load_foreign(AutoModelForCausalLM, lm, options)
        model = cls(PromptDecoderConfig(lm=nested_config(pretrained.config), **shape)).to(pretrained.dtype)
        model.lm = pretrained
        scale = float(pretrained.get_input_embeddings().weight.detach().float().std())
        with torch.no_grad():
            model.projection.weight.normal_(0.0, scale * pivot_width**-0.5)
        return model

    def head_embeddings(self, pivot: torch.Tensor | None, batch: int) -> torch.Tensor:
        """Return what stands before the tokens: template and soft tokens, `(batch, head length, hidden size)`.

        `pivot` is `(batch, pivot_length, pivot_width)`, or None for plain language modelling without soft tokens.
        """
        embed = self.lm.get_input_embeddings()
        device = self.projection.weight.device

        def tokens(ids: list[int] | None) -> torch.Tensor:
            return embed(torch.tensor(ids or [], dtype=torch.long, device=device)).expand(batch, -1, -1)

        parts = [tokens(self.config.template_before_ids), tokens(self.config.template_after_ids)]
        if pivot is not None:
            parts.insert(1, self.projection(pivot.to(self.projection.weight.dtype)))
        return torch.cat(parts, dim=1)

    def forward(
        self,
        pivot: torch.Tensor | None,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
    ) -> PromptDecoderOutput:
        """Score given tokens (Eq. 7 trains this); the gradient reaches `pivot` through frozen weights.

        `pivot` `(batch, pivot_length, pivot_width)` or None. `input_ids` int64 `(batch, length)`, padded on the RIGHT;
        `attention_mask` (1 = token, 0 = padding) of the same shape.
        """
        batch, length = input_ids.shape
        head = self.head_embeddings(pivot, batch)
        embeddings = torch.cat([head, self.lm.get_input_embeddings()(input_ids[:, :-1])], dim=1)
        mask = None
        if attention_mask is not None:
            mask = torch.cat([attention_mask.new_ones(batch, head.shape[1]), attention_mask[:, :-1]], dim=1)
        keep = {"logits_to_keep": length} if self.lm_accepts("logits_to_keep") else {}
        output = self.lm(
            inputs_embeds=embeddings, attention_mask=mask, use_cache=False, output_hidden_states=True, **keep
        )
        return PromptDecoderOutput(logits=output.logits[:, -length:], hidden=output.hidden_states[-1][:, -length:])

    def lm_accepts(self, argument: str) -> bool:
        """Whether the language model's forward takes `argument` (not every causal LM takes all of them)."""
        if not hasattr(self, "_lm_arguments"):
            lm = self.lm.get_base_model() if hasattr(self.lm, "get_base_model") else self.lm
            self._lm_arguments = frozenset(inspect.signature(lm.forward).parameters)
        return argument in self._lm_arguments

    def save_pretrained(self, save_directory: str | os.PathLike[str], **options: Any) -> None:  # type: ignore[override]
        """Write config.json and safetensors; LoRA weights, where the LM has any, go into adapter/ on their own."""
        if not hasattr(self.lm, "peft_config"):
            super().save_pretrained(save_directory, **options)
            return
        with quiet():
            self.lm.save_pretrained(Path(save_directory) / "adapter", safe_serialization=True)
        base = {
            name.replace("lm.base_model.model.", "lm.", 1).replace(".base_layer.", "."): value
            for name, value in self.state_dict().items()
            if ".lora_" not in name
        }
        with torch.device("meta"):  # the shape alone: no memory, no draw from the random numbers of a training run
            plain: Any = PromptDecoder(cast(PromptDecoderConfig, self.config))
        plain.load_state_dict(base, assign=True)
        plain.tie_weights()
        plain.save_pretrained(save_directory, **options)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        subfolder: str = "",
        **options: Any,
    ) -> PromptDecoder:
        """Load as every part does; a LoRA adapter in adapter/ is put on the LM (this needs peft)."""
        folder = part_folder(pretrained_model_name_or_path, revision, subfolder)
        model: PromptDecoder = super().from_pretrained(folder, **options)
        if (folder / "adapter").is_dir():
            model.lm = load_adapter(model.lm, folder / "adapter")
        return model
