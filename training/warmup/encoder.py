"""Encoder warm-up: from a user prompt to the pivot of its preferred image (Eq. 6)."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from prip.loading.strict import quiet
from prip.modeling import PreferenceEncoder
from prip.modeling.pretrained import load_base_tokenizer
from prip.processing import encode_for_encoder

from ..data.pairs import (
    PREFERRED_IMAGES,
    Pairs,
    Splits,
    batches_of,
    choose,
    data_hashes,
    drop_words,
    read_preferred_images,
)
from ..engine.loop import train
from ..engine.optimizers import checkpoint_activations, in_float32, scheduled_optimizer, train_only
from ..engine.sharding import holds_float32
from ..engine.stage_module import StageModule
from ..engine.step_order import StepOrder
from ..from_scratch import t5_config, train_encoder_tokenizer
from ..runs.pinned_settings import base_hash, pin_base
from ..runs.run_folder import stage_folder
from ..runs.seeds import derive_seed, seed_everything
from ..settings import EncoderSettings, T5Sizes


class EncoderModule(StageModule):
    """Mean squared error between predicted and target pivots, over user prompts with word dropout."""

    stage = "encoder"

    def __init__(
        self, encoder: PreferenceEncoder, tokenizer: PreTrainedTokenizerBase, splits: Splits, settings: EncoderSettings
    ) -> None:
        """Train all of the encoder on `splits` (user prompts and pivots), as `settings` say."""
        super().__init__()
        self.encoder, self.tokenizer, self.splits, self.settings = encoder, tokenizer, splits, settings
        tokenizer.model_max_length = settings.max_tokens  # stored with the part, so that prompts in use are cut alike
        self.loop = settings.loop
        self.order = StepOrder(len(splits.train), self.loop.batch_size, self.loop.accumulate, settings.seed, self.stage)
        self.trained = train_only(self, "encoder.*")

    def setup(self, stage: str) -> None:
        if holds_float32(self.loop.precision, self.trainer.strategy):
            in_float32(self.trained)

    def batch_at(self, step: int) -> dict[str, Tensor]:
        """Return input_ids and attention_mask (batch, length), and target (batch, pivot_length, pivot_width).

        Words are dropped before the step is split among processes, so that the result does not depend on the split.
        """
        step, part = divmod(step, self.loop.accumulate)
        processes = self.trainer.world_size
        pairs = choose(self.splits.train, self.order.examples(step, processes))
        words = random.Random(derive_seed(self.settings.seed, self.stage, "words", step, 0))
        texts = [drop_words(text, self.settings.word_dropout, words) for text in pairs.texts]
        share = self.order.share(part, self.global_rank, processes)
        return self.collate(Pairs(pairs.texts[share], pairs.image_names[share]), texts[share])

    def collate(self, pairs: Pairs, texts: list[str]) -> dict[str, Tensor]:
        """Return the batch of these texts with the pivots of the pairs' images."""
        input_ids, attention_mask = encode_for_encoder(self.tokenizer, texts)
        return {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "target": self.splits.pivots[pairs.image_names],
        }

    def training_step(self, batch: dict[str, Tensor], step: int) -> Tensor:
        pivot = self.encoder(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        loss = torch.nn.functional.mse_loss(pivot.float(), batch["target"].float())
        self.log_step("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        return scheduled_optimizer(self.settings.optimizer, self.trained, self.loop)

    def evaluate(self) -> dict[str, float]:
        """Return dev_loss, and dev_r2: the share of the targets' variance that the encoder explains."""
        pivots = self.splits.pivots
        shape = (pivots.pivot_length, pivots.pivot_width)
        error, count = torch.zeros((), dtype=torch.float64), len(self.splits.dev)
        sums, squares = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
        for pairs, counts in self.my_share(batches_of(self.splits.dev, self.loop.batch_size)):
            batch = {name: value.to(self.device) for name, value in self.collate(pairs, pairs.texts).items()}
            pivot = self.encoder(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
            target = batch["target"].double().cpu()
            if counts:
                error += (pivot.double().cpu() - target).square().sum()
                sums, squares = sums + target.sum(dim=0), squares + target.square().sum(dim=0)
        error, sums, squares = self.summed(error), self.summed(sums), self.summed(squares)
        variance = (squares - sums.square() / count).sum().item()
        return {
            "dev_loss": error.item() / (count * sums.numel()),
            "dev_r2": 1 - error.item() / max(variance, 1e-12),
        }

    def export(self, folder: Path) -> None:
        with quiet():
            self.encoder.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def run(settings: EncoderSettings) -> dict[str, Any]:
    """Train the preference encoder and return its metrics; the part is written to RUN/encoder/part."""
    settings = pin_base(settings)
    data = settings.data or settings.run / "data"
    splits = read_preferred_images(data, settings.images)
    seed_everything(settings.seed, EncoderModule.stage, "weights")
    encoder, tokenizer = build_encoder(settings.base, settings.sizes, splits)
    if settings.gradient_checkpointing:
        checkpoint_activations(encoder)
    inputs = data_hashes(data, PREFERRED_IMAGES) | base_hash(settings.base)
    folder = stage_folder(settings, EncoderModule.stage, inputs)
    module = EncoderModule(encoder, tokenizer, splits, settings)
    clip = settings.optimizer.clip
    return train(module, settings, settings.loop, folder, monitor="dev_loss", mode="min", clip=clip)


def build_encoder(
    base: str | None, sizes: T5Sizes, splits: Splits
) -> tuple[PreferenceEncoder, PreTrainedTokenizerBase]:
    """Return the encoder and its tokenizer for these pivots: from the pretrained T5 `base`, or new with `sizes`."""
    shape = {"pivot_length": splits.pivots.pivot_length, "pivot_width": splits.pivots.pivot_width}
    if base is not None:
        return PreferenceEncoder.from_t5(base, **shape), load_base_tokenizer(base)
    tokenizer = train_encoder_tokenizer(splits.train.texts, sizes.vocab_size)
    return PreferenceEncoder.from_t5(t5_config(tokenizer, sizes), **shape), tokenizer
