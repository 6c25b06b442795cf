"""Decoder warm-up: from the pivot of an image to the system prompt that it was made from (Eq. 7)."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast

from prip.errors import require
from prip.files import hash_of
from prip.loading.strict import quiet
from prip.modeling import PripModel, PromptDecoder
from prip.modeling.pretrained import load_base_tokenizer
from prip.processing import PripProcessor, load_tokenizer

from ..data.pairs import (
    SYSTEM_PROMPTS,
    Pairs,
    Splits,
    batches_of,
    choose,
    data_hashes,
    drop_prefix_words,
    read_rewrites,
    read_system_prompts,
)
from ..engine.loop import train
from ..engine.optimizers import checkpoint_activations, in_float32, scheduled_optimizer, train_only
from ..engine.sharding import holds_float32
from ..engine.stage_module import StageModule
from ..engine.step_order import StepOrder
from ..from_scratch import llama_config, train_decoder_tokenizer
from ..runs.pinned_settings import base_hash, pin_base
from ..runs.processes import process_rank
from ..runs.refiner_folder import training_record, write_refiner
from ..runs.run_folder import stage_folder
from ..runs.seeds import derive_seed, seed_everything
from ..settings import DecoderSettings, LlamaSizes, LoraSettings

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """The tokens of a system prompt, of which the first `unlearned` have no loss."""

    tokens: list[int]
    unlearned: int

    @property
    def learned(self) -> int:
        return len(self.tokens) - self.unlearned


class DecoderModule(StageModule):
    """Language-modeling loss on the system prompt and its end token, given the pivot or nothing."""

    stage = "decoder"

    def __init__(
        self, decoder: PromptDecoder, tokenizer: PreTrainedTokenizerFast, splits: Splits, settings: DecoderSettings
    ) -> None:
        """Train the whole language model, or only its adapters if it has any, and the projection if a pivot is read."""
        super().__init__()
        self.decoder, self.tokenizer, self.splits, self.settings = decoder, tokenizer, splits, settings
        self.loop, self.use_pivot = settings.loop, settings.pivot == "image"
        lengths = self._lengths(splits.train.texts) if settings.bucket_window else []
        shape = self.loop.batch_size, self.loop.accumulate, settings.seed
        self.order = StepOrder(len(splits.train), *shape, self.stage, lengths)
        self._read = {"tokens": 0, "places": 0}
        self._step: tuple[int, list[Row], list[str]] | None = None
        language_model = "decoder.lm.*lora_*" if hasattr(decoder.lm, "peft_config") else "decoder.lm.*"
        self.trained = train_only(self, language_model, *(["decoder.projection.*"] if self.use_pivot else []))

    def setup(self, stage: str) -> None:
        if holds_float32(self.loop.precision, self.trainer.strategy):
            in_float32(self.trained)

    def batch_at(self, step: int) -> dict[str, Any]:
        """Return the batch of `step`, as in `pad`, with the factor of its mean loss and its number of tokens.

        Words are dropped before the step is split among processes, and every learned token of the step has the same
        weight, so that the result does not depend on the split.
        """
        step, part = divmod(step, self.loop.accumulate)
        processes = self.trainer.world_size
        if self._step is None or self._step[0] != step:
            self._step = (step, *self._rows_of(step, processes))
        _, rows, image_names = self._step
        share = self.order.share(part, self.global_rank, processes)
        own, everywhere = sum(row.learned for row in rows[share]), sum(row.learned for row in rows)
        factor = own * self.loop.accumulate * processes / max(1, everywhere)
        tokens = sum(len(row.tokens) for row in rows[share])
        return self.pad(rows[share], image_names[share]) | {"factor": factor, "tokens": tokens}

    def _rows_of(self, step: int, processes: int) -> tuple[list[Row], list[str]]:
        """Return the rows of a step for all processes, and the names of their images."""
        pairs = choose(self.splits.train, self.order.examples(step, processes))
        words = random.Random(derive_seed(self.settings.seed, self.stage, "words", step, 0))
        dropped = [drop_prefix_words(text, self.settings.word_dropout, words) for text in pairs.texts]
        texts, skipped = [text for text, _ in dropped], [unlearned for _, unlearned in dropped]
        return self.encode(texts, skipped if self.settings.learn_prefix else prefix_lengths(texts)), pairs.image_names

    def _lengths(self, texts: list[str]) -> list[int]:
        chunks = [texts[start : start + 10_000] for start in range(0, len(texts), 10_000)]
        encoded = (self.tokenizer(chunk, add_special_tokens=False, verbose=False)["input_ids"] for chunk in chunks)
        return [min(self.settings.max_tokens, len(ids) + 1) for chunk in encoded for ids in chunk]

    def encode(self, texts: list[str], skipped: list[int]) -> list[Row]:
        """Return the tokens of these texts; the first `skipped` characters of each have no loss."""
        eos = self.tokenizer.eos_token_id
        encoded = self.tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        rows = []
        for ids, offsets, skip in zip(encoded["input_ids"], encoded["offset_mapping"], skipped, strict=True):
            tokens = ids[: self.settings.max_tokens] if len(ids) > self.settings.max_tokens else [*ids, eos]
            rows.append(Row(tokens, sum(end <= skip for _, end in offsets[: len(tokens)])))
        return rows

    def pad(self, rows: Sequence[Row], image_names: Sequence[str]) -> dict[str, Tensor]:
        """Return the batch of these rows.

        It has input_ids and attention_mask (batch, length), padded on the right; learned, bool (batch, length), True
        where a token counts in the loss; and pivot (batch, pivot_length, pivot_width) if the decoder reads one.
        """
        shape = (len(rows), max(len(row.tokens) for row in rows))
        batch = {
            "input_ids": torch.full(shape, self.tokenizer.eos_token_id),
            "attention_mask": torch.zeros(shape, dtype=torch.long),
            "learned": torch.zeros(shape, dtype=torch.bool),
        }
        for index, row in enumerate(rows):
            length = len(row.tokens)
            batch["input_ids"][index, :length] = torch.tensor(row.tokens)
            batch["attention_mask"][index, :length] = 1
            batch["learned"][index, row.unlearned : length] = True
        if self.use_pivot:
            batch["pivot"] = self.splits.pivots[list(image_names)]
        return batch

    def token_losses(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the negative log-probability of each token: (batch, length)."""
        output = self.decoder(batch.get("pivot"), batch["input_ids"], batch["attention_mask"])
        return cross_entropy(output.logits.float().transpose(1, 2), batch["input_ids"], reduction="none")

    def training_step(self, batch: dict[str, Any], step: int) -> Tensor:
        if self.use_pivot and self.settings.pivot_noise:
            batch["pivot"] = batch["pivot"] + self.settings.pivot_noise * torch.randn_like(batch["pivot"])
        losses = self.token_losses(batch)[batch["learned"]]
        loss = losses.mean() * batch["factor"] if len(losses) else losses.sum()
        self.log_step("loss", loss, prog_bar=True)
        positions = batch["input_ids"].numel()
        self.log_step(
            "padding_share", torch.tensor(1 - batch["tokens"] / positions, dtype=torch.float32, device=loss.device)
        )
        self._read["tokens"] += batch["tokens"]
        self._read["places"] += positions
        return loss

    def facts(self) -> dict[str, float]:
        """Return padding_share: the share of padding in everything that the first process has read."""
        return {"padding_share": 1 - self._read["tokens"] / max(1, self._read["places"])}

    def on_train_end(self) -> None:
        _log.info("decoder: %.1f%% of the input was padding", 100 * self.facts()["padding_share"])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["read"] = dict(self._read)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._read = dict(checkpoint["read"])

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        return scheduled_optimizer(self.settings.optimizer, self.trained, self.loop)

    def evaluate(self) -> dict[str, float]:
        """Return losses in nats per token.

        dev_loss is over all tokens, and dev_modifier_loss over those after the first comma, the modifiers.
        dev_pivot_gain, if a pivot is read, is the increase of the latter with the pivot of another prompt.
        """
        total = torch.zeros(5, dtype=torch.float64)
        dev, size = self.splits.dev, self.loop.batch_size
        others = Pairs(dev.texts, _names_before(dev.image_names, self.order.total(self.trainer.world_size)))
        batches = list(zip(batches_of(dev, size), batches_of(others, size), strict=True))
        for (pairs, other), counts in self.my_share(batches):
            sums = self._sums(pairs, other.image_names)
            total += sums if counts else 0
        everything, modifiers, other, tokens, modifier_tokens = self.summed(total).tolist()
        modifier_tokens = max(1, modifier_tokens)
        metrics = {"dev_loss": everything / tokens, "dev_modifier_loss": modifiers / modifier_tokens}
        if self.use_pivot:
            metrics["dev_pivot_gain"] = (other - modifiers) / modifier_tokens
        return metrics

    def _sums(self, pairs: Pairs, others: Sequence[str]) -> Tensor:
        """Return the summed loss of all tokens, of the modifiers, and of the modifiers with the pivots of the images
        `others`; then the numbers of tokens and of modifier tokens."""
        batch = self.pad(self.encode(pairs.texts, prefix_lengths(pairs.texts)), pairs.image_names)
        batch = {name: value.to(self.device) for name, value in batch.items()}
        losses, real, modifiers = self.token_losses(batch), batch["attention_mask"].bool(), batch["learned"]
        other = 0.0
        if self.use_pivot:
            batch["pivot"] = self.splits.pivots[list(others)].to(self.device)
            other = self.token_losses(batch)[modifiers].sum().item()
        sums = [losses[real].sum().item(), losses[modifiers].sum().item(), other, int(real.sum()), int(modifiers.sum())]
        return torch.tensor(sums, dtype=torch.float64)

    def export(self, folder: Path) -> None:
        with quiet():
            lora = self.settings.lora
            save = self.decoder.save_merged if lora.rank and lora.save == "merged" else self.decoder.save_pretrained
            save(folder)
        self.tokenizer.save_pretrained(folder)


def prefix_lengths(texts: Sequence[str]) -> list[int]:
    """Return the number of characters of each text up to and including the first comma."""
    return [len(text.partition(",")[0]) + 1 for text in texts]


def _names_before(names: Sequence[str], size: int) -> list[str]:
    """Return for each name the previous one in its group of `size`; the first gets the last."""
    groups = [names[start : start + size] for start in range(0, len(names), size)]
    return [name for group in groups for name in (group[-1], *group[:-1])]


def run(settings: DecoderSettings) -> dict[str, Any]:
    """Train the prompt decoder and return its metrics. The part is written to RUN/decoder/part and, trained on
    rewrites, the whole refiner to RUN/decoder/refiner."""
    settings = pin_base(settings)
    data = settings.data or settings.run / "data"
    splits = read_system_prompts(data) if settings.rewrites is None else read_rewrites(settings.rewrites)
    seed_everything(settings.seed, DecoderModule.stage, "weights")
    decoder, tokenizer = build_decoder(
        settings.base, settings.sizes, settings.template, splits, dtype=settings.base_dtype
    )
    if settings.lora.rank:
        add_adapters(decoder, settings.lora)
    if settings.gradient_checkpointing:
        checkpoint_activations(decoder)
    table = settings.rewrites
    read = data_hashes(data, SYSTEM_PROMPTS) if table is None else {"rewrites": hash_of(table)}
    folder = stage_folder(settings, DecoderModule.stage, read | base_hash(settings.base))
    module = DecoderModule(decoder, tokenizer, splits, settings)
    clip = settings.optimizer.clip
    metrics = train(module, settings, settings.loop, folder, monitor="dev_modifier_loss", mode="min", clip=clip)
    if table is not None and process_rank() == 0 and not (folder / "refiner").is_dir():
        alone = PripModel(None, PromptDecoder.from_pretrained(folder / "part"))
        stages = {"prepare": settings.run / "prepare", "rewrites": settings.run / "rewrites", "decoder": folder}
        record = training_record(settings.run, stages, [table])
        write_refiner(folder / "refiner", alone, PripProcessor(None, load_tokenizer(folder / "part")), record)
    return metrics


def build_decoder(
    base: str | None, sizes: LlamaSizes, template: str, splits: Splits, **options: Any
) -> tuple[PromptDecoder, PreTrainedTokenizerFast]:
    """Return the decoder and its tokenizer for these pivots: the pretrained `base` with `options` (dtype), or a new
    Llama with `sizes`."""
    shape = {"pivot_length": splits.pivots.pivot_length, "pivot_width": splits.pivots.pivot_width}
    if base is not None:
        tokenizer = cast(PreTrainedTokenizerFast, load_base_tokenizer(base))
        return PromptDecoder.from_lm(base, tokenizer, template=template, **shape, **options), tokenizer
    tokenizer = train_decoder_tokenizer(splits.train.texts, sizes.vocab_size)
    config = llama_config(tokenizer, sizes, tie_word_embeddings=True)
    return PromptDecoder.from_lm(config, tokenizer, template=template, **shape), tokenizer


def add_adapters(decoder: PromptDecoder, settings: LoraSettings) -> None:
    """Add LoRA adapters to the decoder's language model."""
    peft = require("peft", "train")
    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(settings.modules) or "all-linear",
        task_type="CAUSAL_LM",
    )
    decoder.lm = peft.get_peft_model(decoder.lm, config)
