"""The two networks of a refiner as one model and one checkpoint."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import PreTrainedConfig

from ..errors import CheckpointError, InputError
from ..loading.folders import REFINER_TYPE, RefinerFolder
from .preference_encoder import PreferenceEncoder
from .prompt_decoder import PromptDecoder
from .quantization import is_quantized

if TYPE_CHECKING:
    import torch


class PripConfig(PreTrainedConfig):
    """Shape of the pivot. A `pivot_length` of 0 means that the decoder reads no pivot and there is no encoder."""

    model_type = REFINER_TYPE

    pivot_length: int = 32
    pivot_width: int = 768


class PripModel(nn.Module):
    """A preference encoder and a prompt decoder, saved as config.json, encoder/ and decoder/.

    A decoder that reads no pivot (`pivot_length` 0) is a plain language model that continues the user prompt; the
    encoder is then None.
    """

    def __init__(self, encoder: PreferenceEncoder | None, decoder: PromptDecoder) -> None:
        """Join the two. Raises InputError if their pivots differ in shape."""
        super().__init__()
        reads = decoder.config.pivot_length, decoder.config.pivot_width
        gives = (0, reads[1]) if encoder is None else (encoder.config.pivot_length, encoder.config.pivot_width)
        if gives != reads:
            source = "there is no encoder" if encoder is None else f"the encoder gives pivots of {gives}"
            raise InputError(f"{source}, the decoder reads pivots of {reads}")
        self.config = PripConfig(pivot_length=reads[0], pivot_width=reads[1])
        self.encoder = encoder
        self.decoder = decoder

    def pivot(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor | None:
        """Return the pivots of user prompts, as `PreferenceEncoder` does; None if the decoder reads no pivot."""
        return None if self.encoder is None else self.encoder(input_ids, attention_mask)

    @property
    def device(self) -> torch.device:
        """Device that the tokens of user prompts must be on."""
        return (self.encoder or self.decoder).device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the encoder, or of the decoder if there is no encoder."""
        return (self.encoder or self.decoder).dtype

    def compile_parts(self) -> None:
        """Compile the encoder and the language model on their first use, for texts of any length."""
        for part in (self.encoder, self.decoder.lm):
            if part is not None:
                part.compile(dynamic=True)

    def save_pretrained(self, save_directory: str | os.PathLike[str], max_shard_size: str = "5GB") -> None:
        """Write the parts as sharded safetensors, with their configs.

        Raises InputError if the weights are quantized: a checkpoint holds full weights, which loading quantizes.
        """
        if is_quantized(self):
            raise InputError("a quantized model cannot be saved: save it before quantizing, and quantize on loading")
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        self.config.save_pretrained(folder)
        if self.encoder is not None:
            self.encoder.save_pretrained(folder / "encoder", max_shard_size=max_shard_size)
        self.decoder.save_pretrained(folder / "decoder", max_shard_size=max_shard_size)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str] | RefinerFolder,
        *,
        dtype: str | torch.dtype | None = None,
        device_map: str | dict[str, Any] | None = None,
        revision: str | None = None,
    ) -> PripModel:
        """Load the model in evaluation mode.

        Args:
            pretrained_model_name_or_path: An embedded checkpoint, a folder or "owner/name" on the Hub.
            dtype: None means float32, or the checkpoint's own dtype if `device_map` puts the model on an accelerator.
            device_map: As in transformers; a dict may name submodules as encoder.* and decoder.*. Needs accelerate.
            revision: Branch, tag or commit on the Hub.

        Raises:
            CheckpointError: If a file is missing, damaged or foreign, or the parts do not fit together.
        """
        folder = RefinerFolder.open(pretrained_model_name_or_path, revision)
        encoder = None
        if "encoder" in folder.parts:
            encoder = PreferenceEncoder.from_pretrained(
                folder.parts["encoder"], dtype=dtype, device_map=_part_map(device_map, "encoder")
            )
        decoder = PromptDecoder.from_pretrained(
            folder.parts["decoder"], dtype=dtype, device_map=_part_map(device_map, "decoder")
        )
        try:
            return cls(encoder, decoder).eval()
        except InputError as error:
            raise CheckpointError(f"{folder.path}: {error}") from error


def _part_map(device_map: str | dict[str, Any] | None, part: str) -> str | dict[str, Any] | None:
    """Return the entries of a device map that concern one part."""
    if not isinstance(device_map, dict) or not any(key.split(".")[0] in ("encoder", "decoder") for key in device_map):
        return device_map
    inner = {key.partition(".")[2]: device for key, device in device_map.items() if key.split(".")[0] == part}
    return inner or None
