"""Prompt decoder: continues a user prompt from its pivot."""

from __future__ import annotations

import copy
import inspect
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedTokenizerFast

from ..errors import CheckpointError, InputError
from ..hub.commits import pinned
from ..hub.names import split_revision
from ..loading.folders import PART_TYPES, PartFolder
from ..loading.strict import checkpoint_errors, quiet
from ..loading.untrusted import open_weights
from .pretrained import load_base
from .strict_model import StrictModel, load_adapter, nested_config


class PromptDecoderConfig(PreTrainedConfig):
    """Shape of the prompt decoder.

    Args:
        lm: Config of the causal language model as a dict.
        pivot_length: Number of soft tokens; 0 means that it reads no pivot, as any language model.
        pivot_width: Width of the pivot.
        template_before_ids: Tokens before the soft tokens.
        template_after_ids: Tokens after the soft tokens.
        modifier_tokens: Tokens that must be free in the budget for another modifier to begin.
        base: {"name": folder or Hub ID, "revision": ...} of the pretrained language model, if the checkpoint holds only
            the projection, and LoRA weights in adapter/.
    """

    model_type = PART_TYPES["decoder"]

    lm: dict | None = None
    pivot_length: int = 32
    pivot_width: int = 768
    template_before_ids: list[int] | None = None
    template_after_ids: list[int] | None = None
    modifier_tokens: int = 4
    base: dict | None = None


_SIZES = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")


@dataclass
class PromptDecoderOutput:
    """Output per position: entry `[:, t]` predicts token t from the template, the pivot and the tokens before t."""

    logits: torch.Tensor
    """`(batch, length, vocabulary)`"""
    hidden: torch.Tensor
    """`(batch, length, hidden size)`: the last hidden state, from which the logits are computed"""


class PromptDecoder(StrictModel):
    """Causal language model that reads the pivot as soft tokens, through one linear layer, in a fixed template."""

    config_class = PromptDecoderConfig
    base_model_prefix = "prompt_decoder"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True

    base: dict[str, str | None] | None = None
    """Name and revision of the pretrained language model, if its own weights are unchanged."""

    def __init__(self, config: PromptDecoderConfig) -> None:
        super().__init__(config)
        self.base = config.base
        nested = dict(config.lm or {})
        lm_config = AutoConfig.for_model(nested.pop("model_type"), **nested)
        self.lm = AutoModelForCausalLM.from_config(lm_config)
        self.projection = nn.Linear(config.pivot_width, lm_config.get_text_config().hidden_size)
        self.post_init()

    @classmethod
    def from_config(cls, config: PromptDecoderConfig) -> PromptDecoder:
        """Return a model with random weights."""
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
        """Build around a causal language model.

        Args:
            lm: A config for random weights; a folder or owner/name[@revision] on the Hub for pretrained ones. The
                projection to a pretrained model starts at the scale of its embeddings.
            tokenizer: Tokenizer of the language model.
            pivot_length: Number of soft tokens.
            pivot_width: Width of the pivot.
            template: Text with {pivot} in place of the soft tokens. It is preceded by the beginning-of-sequence token,
                or by the end-of-sequence token if there is none.
            modifier_tokens: As in `PromptDecoderConfig`.
            options: Arguments of the language model's `from_pretrained`.

        Raises:
            InputError: If the template or the tokenizer cannot be used.
            CheckpointError: If the language model cannot be loaded.
        """
        before, marker, after = template.partition("{pivot}")
        if not marker or "{pivot}" in after:
            raise InputError(f"template: expected {{pivot}} exactly once, got {template!r}")
        start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        if start is None or tokenizer.eos_token_id is None:
            raise InputError("tokenizer: expected an end-of-sequence token, got none")
        shape = {
            "pivot_length": pivot_length,
            "pivot_width": pivot_width,
            "template_before_ids": [start, *tokenizer.encode(before, add_special_tokens=False)],
            "template_after_ids": tokenizer.encode(after, add_special_tokens=False),
            "modifier_tokens": modifier_tokens,
        }
        if isinstance(lm, PreTrainedConfig):
            return cls(PromptDecoderConfig(lm=nested_config(lm), **shape))
        pretrained: Any = load_base(AutoModelForCausalLM, lm, **options)
        model = cls._around(pretrained, PromptDecoderConfig(lm=nested_config(pretrained.config), **shape))
        name, revision = split_revision(pinned(str(lm)))
        model.base = {"name": name, "revision": revision}
        scale = float(pretrained.get_input_embeddings().weight.detach().float().std())
        with torch.no_grad():
            model.projection.weight.normal_(0.0, scale * pivot_width**-0.5)
            model.projection.bias.zero_()
        return model

    @classmethod
    def _around(cls, lm: Any, config: PromptDecoderConfig) -> Self:
        """Build around a loaded language model, in its dtype, with an uninitialized projection."""
        with torch.device("meta"):  # __init__ builds a random language model, which is not to be allocated
            model = cls(config)
        model.lm = lm
        device = lm.get_input_embeddings().weight.device
        width = lm.config.get_text_config().hidden_size
        model.projection = nn.Linear(config.pivot_width, width, device=device, dtype=lm.dtype)
        return model

    def head_embeddings(self, pivot: torch.Tensor | None, batch: int) -> torch.Tensor:
        """Return the embeddings before the text: template and soft tokens, `(batch, head length, hidden size)`.

        `pivot` is `(batch, pivot_length, pivot_width)`, or None for plain language modelling without soft tokens.
        """
        embed = self.lm.get_input_embeddings()
        device = self.projection.weight.device

        def tokens(ids: list[int] | None) -> torch.Tensor:
            return embed(torch.tensor(ids or [], dtype=torch.long, device=device)).expand(batch, -1, -1)

        parts = [tokens(self.config.template_before_ids), tokens(self.config.template_after_ids)]
        if pivot is not None:
            parts.insert(1, self.projection(pivot.to(self.projection.weight.dtype)).to(parts[0].dtype))
        return torch.cat(parts, dim=1)

    def forward(
        self, pivot: torch.Tensor | None, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> PromptDecoderOutput:
        """Score given tokens (trained by Eq. 7); gradients reach `pivot` through frozen weights.

        Args:
            pivot: `(batch, pivot_length, pivot_width)`, or None.
            input_ids: int64 `(batch, length)`, padded on the right.
            attention_mask: `(batch, length)`, 1 for tokens and 0 for padding.
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
        """Return whether the language model's forward takes `argument`; causal language models differ in this."""
        if not hasattr(self, "_lm_arguments"):
            lm = self.lm.get_base_model() if hasattr(self.lm, "get_base_model") else self.lm
            self._lm_arguments = frozenset(inspect.signature(lm.forward).parameters)
        return argument in self._lm_arguments

    def save_pretrained(self, save_directory: str | os.PathLike[str], **options: Any) -> None:  # type: ignore[override]
        """Write config.json and safetensors, with LoRA weights in adapter/ if there are any.

        The pretrained language model (`base`) of LoRA weights is not written, but named in config.json.
        """
        if not hasattr(self.lm, "peft_config"):
            super().save_pretrained(save_directory, **options)
            return
        folder = Path(save_directory)
        with quiet():
            self.lm.save_pretrained(folder / "adapter", safe_serialization=True)
        if self.base is None:
            self._save_plain(folder, self._plain_state(), **options)
            return
        config = copy.deepcopy(self.config)
        config.base, config.architectures = self.base, [type(self).__name__]
        config.save_pretrained(folder)
        own = {f"projection.{name}": value.contiguous() for name, value in self.projection.state_dict().items()}
        save_file(own, folder / "model.safetensors", metadata={"format": "pt"})

    @torch.no_grad()
    def save_merged(self, save_directory: str | os.PathLike[str], **options: Any) -> None:
        """Write a decoder with its LoRA weights merged, which loads without peft and without its base."""
        state = self._plain_state()
        for name, module in self.named_modules():
            if hasattr(module, "get_delta_weight"):
                key = _plain_name(f"{name}.weight")
                whole = state[key].float() + module.get_delta_weight("default").float().to(state[key].device)
                state[key] = whole.to(state[key].dtype).cpu()
        self._save_plain(Path(save_directory), state, **options)

    def _plain_state(self) -> dict[str, torch.Tensor]:
        """Return the weights except LoRA's, named as in a decoder without LoRA."""
        return {_plain_name(name): value for name, value in self.state_dict().items() if ".lora_" not in name}

    def _save_plain(self, folder: Path, state: dict[str, torch.Tensor], **options: Any) -> None:
        config = copy.deepcopy(self.config)
        config.base = None
        with torch.device("meta"):  # allocates nothing and draws no random numbers
            plain: Any = PromptDecoder(cast(PromptDecoderConfig, config))
        plain.load_state_dict(state, assign=True)
        plain.tie_weights()
        plain.save_pretrained(folder, **options)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str] | PartFolder,
        *,
        revision: str | None = None,
        subfolder: str = "",
        **options: Any,
    ) -> Self:
        """Load as `StrictModel.from_pretrained` does, with the LoRA adapter in adapter/ if there is one (needs peft).

        If the checkpoint names a base, the language model is loaded from that folder or Hub revision.
        """
        part = cls._open(pretrained_model_name_or_path, revision, subfolder)
        if part.config.get("base") is None:
            model = super().from_pretrained(part, **options)
        else:
            model = cls._from_base(part, **options)
        if (part.path / "adapter").is_dir():
            model.lm = load_adapter(model.lm, part.path / "adapter")
        return model.eval()

    @classmethod
    def _from_base(
        cls, part: PartFolder, dtype: str | torch.dtype | None = None, device_map: str | dict[str, Any] | None = None
    ) -> Self:
        """Load the language model that the checkpoint names, and the projection from the checkpoint."""
        with checkpoint_errors(part.path):
            config = PromptDecoderConfig.from_dict(copy.deepcopy(part.config))
        base = config.base or {}
        name, revision = base.get("name"), base.get("revision")
        if not isinstance(name, str):
            raise CheckpointError(f"{part.path / 'config.json'}: base: expected a language model's name, got {base!r}")
        weights = open_weights(part.path)
        if dtype is None:
            dtype = "float32" if device_map is None or str(device_map) == "cpu" else "auto"
        wanted = {"dtype": dtype} | ({"device_map": device_map} if device_map is not None else {})
        lm = load_base(AutoModelForCausalLM, name if revision is None else f"{name}@{revision}", **wanted)
        model = cls._around(lm, config)
        got, want = nested_config(lm.config), config.lm or {}
        other = [f"{key} was {want.get(key)}, is now {got.get(key)}" for key in _SIZES if got.get(key) != want.get(key)]
        if other:
            raise CheckpointError(f"{part.path}: its base {name!r} has changed: {'; '.join(other)}")
        state = model.projection.state_dict(prefix="projection.")
        if weights.shapes != {key: tuple(value.shape) for key, value in state.items()}:
            raise CheckpointError(f"{part.path}: expected weights of the projection alone, got {weights.shapes}")
        model.projection.load_state_dict({key.removeprefix("projection."): weights[key] for key in state})
        return model


def _plain_name(name: str) -> str:
    """Return the name that a weight has in a decoder without LoRA."""
    return name.replace("lm.base_model.model.", "lm.", 1).replace(".base_layer.", ".")
