"""Settings of the stage that fits the preference prior."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from prip.errors import InputError

from .shared import RunSettings, check_at_least, check_fraction


@dataclass(frozen=True, kw_only=True)
class PriorFitSettings:
    """The prior's network and its training."""

    members: int = 5
    """Networks whose log-odds are averaged."""
    hidden: int = 256
    """Units of the hidden layer of each."""
    dropout: float = 0.4
    """Of the prompt's vector and of the hidden layer."""
    weight_decay: float = 1.0
    """Decoupled weight decay."""
    lr: float = 3e-3
    """Peak learning rate."""
    epochs: int = 20
    """Passes over the training series; the best one on the dev series is kept."""
    batch_size: int = 512
    """Prompts per step."""

    def __post_init__(self) -> None:
        check_at_least(self, 1, "members", "hidden", "epochs", "batch_size")
        check_at_least(self, 0, "weight_decay", "lr")
        check_fraction(self, "dropout")


@dataclass(frozen=True, kw_only=True)
class PriorSettings(RunSettings):
    """Fit what users add to their prompts, given what a prompt shows, from files of real prompts."""

    prompts: tuple[Path, ...] = ()
    """Files of real prompts, one per line, best of several communities of users."""
    sentence_encoder: str = "sentence-transformers/all-MiniLM-L6-v2"
    """Sentence encoder whose embeddings of single words become the word vectors, as a folder or an ID on the Hub."""
    words: tuple[Path, ...] = ()
    """Further lists of words for the vocabulary, such as WordNet's index.noun; the first field of a line counts."""
    width: int = 128
    """Length of the word vectors."""
    ngram_buckets: int = 4096
    """Buckets for the character n-grams of words outside the vocabulary."""
    dev_share: float = 0.1
    """Share of the series that choose the epoch."""
    test_share: float = 0.1
    """Share of the series that are only measured."""
    fit: PriorFitSettings = field(default_factory=PriorFitSettings)
    """The network."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "width", "ngram_buckets")
        check_fraction(self, "dev_share", "test_share")
        if not self.dev_share:
            raise InputError("dev_share: expected more than 0, got 0")
        if not self.dev_share + self.test_share < 1:
            raise InputError("dev_share, test_share: expected less than 1 together, so that some series are fitted")
        if not self.prompts:
            raise InputError("prompts: expected at least one file, got none")
