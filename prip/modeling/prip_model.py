"""The refiner's models: E, D, and the pair of them as one checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import PreTrainedConfig

from ..errors import CheckpointError, InputError
from ..loading.folders import REFINER_TYPE, check_refiner, refiner_parts, resolve_folder
from .preference_encoder import PreferenceEncoder, PreferenceEncoderConfig
from .prompt_decoder import PromptDecoder, PromptDecoderConfig, PromptDecoderOutput
from .quantization import is_quantised

if TYPE_CHECKING:
    import os

    import torch

__all__ = [
    "PreferenceEncoder",
    "PreferenceEncoderConfig",
    "PripConfig",
    "PripModel",
    "PromptDecoder",
    "PromptDecoderConfig",
    "PromptDecoderOutput",
]


class PripConfig(PreTrainedConfig):
    """What E and D agree on: the shape of the pivot. A pivot_length of 0 means that D reads none and there is no E."""

    model_type = REFINER_TYPE

    pivot_length: int = 32
    pivot_width: int = 768


class PripModel(nn.Module):
    """The pair of E (`encoder`) and D (`decoder`), saved as config.json, encoder/ and decoder/.

    A D that reads no pivot (pivot_length 0) stands alone, as a language model that continues the user prompt: E is
    then None.
    """

    def __init__(self, encoder: PreferenceEncoder | None, decoder: PromptDecoder) -> None:
        """Raises InputError when the two do not agree on the pivot's shape."""
        super().__init__()
        reads = decoder.config.pivot_length, decoder.config.pivot_width
        gives = (0, reads[1]) if encoder is None else (encoder.config.pivot_length, encoder.config.pivot_width)
        if gives != reads:
            source = "there is no encoder" if encoder is None else f"encoder gives pivots of {gives}"
            raise InputError(f"{source}, decoder reads pivots of {reads}")
        self.config = PripConfig(pivot_length=reads[0], pivot_width=reads[1])
        self.encoder = encoder
        self.decoder = decoder

    def pivot(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor | None:
        """Return what D reads of user prompts, as E takes and gives it; None where D reads no pivot."""
        return None if self.encoder is None else self.encoder(input_ids, attention_mask)

    @property
    def device(self) -> torch.device:
        """Where the user prompts' tokens must lie."""
        return (self.encoder or self.decoder).device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the encoder, or of a decoder that stands alone."""
        return (self.encoder or self.decoder).dtype

    def compile_parts(self) -> None:
        """Compile E and D's language model when they are first used, for texts of any length."""
        for part in (self.encoder, self.decoder.lm):
            if part is not None:
                part.compile(dynamic=True)

    def save_pretrained(self, save_directory: str | os.PathLike[str], max_shard_size: str = "5GB") -> None:
        """Write the parts as sharded safetensors, with their configs, into a folder that is made if need be.

        Raises InputError when their weights are quantised: the checkpoint keeps its own, and loading quantises.
        """
        if is_quantised(self):
            raise InputError("a quantised model cannot be saved: save it as it was loaded, and quantise on loading")
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        self.config.save_pretrained(folder)
        if self.encoder is not None:
            self.encoder.save_pretrained(folder / "encoder", max_shard_size=max_shard_size)
        self.decoder.save_pretrained(folder / "decoder", max_shard_size=max_shard_size)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        dtype: str | torch.dtype | None = None,
        device_map: Any = None,
        revision: str | None = None,
    ) -> PripModel:
        """Load the parts from a folder, the Hub or an embedded checkpoint, in evaluation mode.

        `dtype`, `device_map` and `revision` are transformers' own; `dtype` None is float32 on the CPU and the
        checkpoint's own elsewhere. A `device_map` that is a dict may name submodules as encoder.* and decoder.*.
        Raises CheckpointError when a file is missing, damaged or foreign, or the parts do not fit together.
        """
        folder = check_refiner(resolve_folder(pretrained_model_name_or_path, revision))
        names = refiner_parts(folder)
        maps = {name: _part_map(device_map, name) for name in names}
        encoder = None
        if "encoder" in names:
            encoder = PreferenceEncoder.from_pretrained(folder / "encoder", dtype=dtype, device_map=maps["encoder"])
        decoder = PromptDecoder.from_pretrained(folder / "decoder", dtype=dtype, device_map=maps["decoder"])
        try:
            return cls(encoder, decoder).eval()
        except InputError as error:
            raise CheckpointError(f"{folder}: {error}") from error


def _part_map(device_map: Any, part: str) -> Any:
    """Return the share of a device map that concerns one part."""
    if not isinstance(device_map, dict) or not any(key.split(".")[0] in ("encoder", "decoder") for key in device_map):
        return device_map
    inner = {key.partition(".")[2]: place for key, place in device_map.items() if key.split(".")[0] == part}
    return inner or None
