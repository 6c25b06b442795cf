"""A reward that keeps its tokenizer beside its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from ..loading.folders import resolve_folder
from ..modeling.strict_model import StrictModel
from ..processing import load_tokenizer, save_tokenizer


class TokenizedModel(StrictModel):
    """Base of the rewards that read a user prompt by a tokenizer of their own."""

    tokenizer: PreTrainedTokenizerFast | None
    """None in a model that was built and not given one yet."""

    def save_pretrained(self, save_directory: Any, **options: Any) -> None:  # type: ignore[override]
        """Writes the networks and the tokenizer."""
        super().save_pretrained(save_directory, **options)
        assert self.tokenizer is not None
        save_tokenizer(self.tokenizer, save_directory)

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, **options: Any) -> Any:  # type: ignore[override]
        """Loads the networks and the tokenizer; errors as in StrictModel."""
        model = super().from_pretrained(name_or_path, **options)
        model.tokenizer = load_tokenizer(resolve_folder(name_or_path, options.get("revision")))
        return model
