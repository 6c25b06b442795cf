"""The generator: a small Stable Diffusion, from its text encoder to a saved pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from tokenizers import processors
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from prip.generators.autoencoder import PatchAutoencoder
from prip.generators.diffusion import DiffusersGenerator, DrawingOptions
from prip.loading.strict import quiet
from prip.miniature.prompts import combinations, sample_modifiers, system_subject
from prip.miniature.reader import Reader
from prip.miniature.scene import FACTOR_SIZES, FACTORS, parse
from prip.protocols import Generator
from prip.randomness import random_generator

from ..from_scratch import train_encoder_tokenizer
from ..settings import LoopSettings, OptimizerSettings, UnetSizes
from ..settings.world import TEXT_HEADS
from .part import Part
from .renders import OPEN, Renders, requested

TRAIN_TIMESTEPS = 1000
VARIANCE_FLOOR = 0.05
"""Added to the variance of an image, whose inverse weights its loss."""


def train_text_tokenizer(captions: list[str], sizes: UnetSizes) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE with CLIP's conventions: begin and end tokens, a fixed length."""
    backend = train_encoder_tokenizer(captions, sizes.vocab_size).backend_tokenizer
    backend.add_special_tokens(["<s>"])
    begin, end = backend.token_to_id("<s>"), backend.token_to_id("</s>")
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", begin), ("</s>", end)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=sizes.max_tokens,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        clean_up_tokenization_spaces=False,
    )


def tokenize(tokenizer: PreTrainedTokenizerFast, prompts: list[str]) -> Tensor:
    """Return token ids as in the pipeline: int64 (n, max_tokens), padded and truncated."""
    return tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt")["input_ids"]


class TextEncoderPart(Part):
    """Pre-training of the text encoder: predict the requested factors from a caption.

    The head reads the end token and the padding after it, which see all words through the causal mask, as in the UNet's
    cross-attention.
    """

    monitor = "accuracy"
    trained = ("model.*", "head.*")

    def build(self) -> None:
        self.draw(self.settings.renders)
        sizes = self.settings.unet
        self.tokenizer = train_text_tokenizer(self.renders.captions, sizes)
        self.model = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(self.tokenizer),
                hidden_size=sizes.text_width,
                intermediate_size=2 * sizes.text_width,
                num_hidden_layers=sizes.text_layers,
                num_attention_heads=TEXT_HEADS,
                max_position_embeddings=sizes.max_tokens,
                pad_token_id=self.tokenizer.pad_token_id,
                bos_token_id=self.tokenizer.bos_token_id,
                eos_token_id=self.tokenizer.eos_token_id,
                hidden_act="gelu",
            )
        )
        self.head = nn.Linear(sizes.text_width, sum(FACTOR_SIZES))

    def read(self, captions: list[str]) -> list[Tensor]:
        """Return the logits of every factor, each (n, values)."""
        ids = tokenize(self.tokenizer, captions).to(self.device)
        hidden = self.model(ids).last_hidden_state
        ended = (ids == self.tokenizer.eos_token_id).cumsum(1).clamp(max=1)[..., None]
        return list(self.head((hidden * ended).sum(1) / ended.sum(1)).split(FACTOR_SIZES, 1))

    def training_step(self, batch: list[int], step: int) -> Tensor:
        captions = [self.renders.captions[i] for i in batch]
        asked = requested(captions).to(self.device)
        losses = [F.cross_entropy(found, asked[:, i], reduction="sum") for i, found in enumerate(self.read(captions))]
        loss = torch.stack(losses).sum() / (asked != OPEN).sum()
        self.log("loss", loss, prog_bar=True)
        return loss

    def evaluate(self) -> dict[str, float]:
        """Return the share of requested factors that are read correctly."""
        asked = requested(self.dev_renders.captions)
        found = torch.stack([logits.cpu().argmax(1) for logits in self.read(self.dev_renders.captions)], 1)
        return {"accuracy": float((found == asked)[asked != OPEN].float().mean())}

    def export(self, folder: Path) -> None:
        with quiet():
            self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


class GeneratorPart(Part):
    """Denoising of latents given captions, predicting the clean image; the UNet learns, the text encoder is frozen."""

    monitor, mode = "dev_loss", "min"
    trained = ("unet.*",)

    def build(self) -> None:
        settings, sizes = self.settings, self.settings.unet
        self.draw(settings.generator_renders)
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(self.start_folder)
        with quiet():
            self.text_encoder = CLIPTextModel.from_pretrained(self.start_folder)
        self.autoencoder = PatchAutoencoder(sizes.patch_size, sizes.latent_channels)
        self.autoencoder.fit(self.renders.images[:4000].float() / 127.5 - 1)
        levels = len(sizes.channels)
        self.unet: Any = UNet2DConditionModel(
            sample_size=settings.image_size // sizes.patch_size,
            in_channels=sizes.latent_channels,
            out_channels=sizes.latent_channels,
            block_out_channels=sizes.channels,
            down_block_types=["CrossAttnDownBlock2D"] + ["DownBlock2D"] * (levels - 1),
            up_block_types=["UpBlock2D"] * (levels - 1) + ["CrossAttnUpBlock2D"],
            layers_per_block=1,
            cross_attention_dim=sizes.text_width,
            attention_head_dim=8,
            norm_num_groups=16,
            addition_embed_type="text",
            addition_embed_type_num_heads=8,
            resnet_time_scale_shift="scale_shift",
        )
        self.scheduler: Any = DDIMScheduler(
            TRAIN_TIMESTEPS,
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            prediction_type="sample",
            rescale_betas_zero_snr=True,
            timestep_spacing="trailing",
            clip_sample=False,
            steps_offset=1,
        )
        self.tokens = tokenize(self.tokenizer, self.renders.captions)
        self.empty = tokenize(self.tokenizer, [""])
        self.dev_tokens = tokenize(self.tokenizer, self.dev_renders.captions)

    @property
    def loop(self) -> LoopSettings:
        return self.settings.generator_loop

    @property
    def optimizer(self) -> OptimizerSettings:
        return self.settings.generator_optimizer

    def loss(self, renders: Renders, rows: list[int], tokens: Tensor, timesteps: Tensor, noise: Tensor) -> Tensor:
        """Return the squared pixel error of the predicted clean images, weighted by subject mask and inverse
        variance."""
        images = renders.images[rows].to(self.device).float() / 127.5 - 1
        masks = renders.subject_masks[rows].to(self.device).float() / 255
        noisy = self.scheduler.add_noise(self.autoencoder.encode(images), noise.to(self.device), timesteps)
        with torch.no_grad():
            text = self.text_encoder(tokens.to(self.device)).last_hidden_state
        clean = self.autoencoder.decode(self.unet(noisy, timesteps, text).sample).sample
        error = (1 + self.settings.unet.subject_weight * masks) * (clean - images) ** 2
        return (error / (images.var((1, 2, 3), keepdim=True) + VARIANCE_FLOOR)).mean()

    def noise(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Return noise for the latents of `count` images."""
        side = self.settings.image_size // self.settings.unet.patch_size
        return torch.randn(count, self.settings.unet.latent_channels, side, side, generator=generator)

    def training_step(self, batch: list[int], step: int) -> Tensor:
        sizes, count = self.settings.unet, len(batch)
        dropped = torch.rand(count, 1) < sizes.prompt_dropout
        tokens = torch.where(dropped, self.empty, self.tokens[batch])
        timesteps = (TRAIN_TIMESTEPS - 1) * (1 - torch.rand(count) ** sizes.noise_power)
        loss = self.loss(self.renders, batch, tokens, timesteps.long().to(self.device), self.noise(count))
        self.log("loss", loss, prog_bar=True)
        return loss

    def evaluate(self) -> dict[str, float]:
        """Return the loss on the dev renders, at evenly spaced timesteps with fixed noise."""
        total, size = 0.0, self.loop.batch_size
        generator = torch.Generator().manual_seed(0)
        for start in range(0, len(self.dev_renders), size):
            rows = list(range(start, min(start + size, len(self.dev_renders))))
            timesteps = torch.linspace(0, TRAIN_TIMESTEPS - 1, len(rows)).long().to(self.device)
            noise = self.noise(len(rows), generator)
            total += len(rows) * float(self.loss(self.dev_renders, rows, self.dev_tokens[rows], timesteps, noise))
        return {"dev_loss": total / len(self.dev_renders)}

    def generator(self) -> DiffusersGenerator:
        """Return the pipeline of these parts."""
        pipeline = StableDiffusionPipeline(
            vae=self.autoencoder,
            text_encoder=self.text_encoder,
            tokenizer=self.tokenizer,
            unet=self.unet,
            scheduler=self.scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        options = DrawingOptions(steps=self.settings.unet.steps, guidance=self.settings.unet.guidance)
        return DiffusersGenerator(pipeline, options)

    def export(self, folder: Path) -> None:
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        self.generator().save_pretrained(folder)
        for parameter in trained:
            parameter.requires_grad_(True)


def held_out_prompts(count: int) -> list[str]:
    """Return system prompts of test combinations, each with two to five attributes."""
    pairs = combinations("test")
    prompts = []
    for index in range(count):
        generator = random_generator("obedience", index)
        subject, place = pairs[index % len(pairs)]
        prompts.append(", ".join([system_subject(subject, place), *sample_modifiers(generator)]))
    return prompts


def measure_obedience(generator: Generator, reader: Reader, drawings: int) -> dict[str, float]:
    """Return the share of drawings that show what their prompt names, by factor, as seen by the reader."""
    prompts = held_out_prompts(drawings)
    found = [p.argmax(1).tolist() for p in reader.read(generator(prompts, range(drawings)))]
    shares = {}
    for column, factor in enumerate(FACTORS):
        asked = [(row, parse(prompt)[factor]) for row, prompt in enumerate(prompts)]
        right = [found[column][row] == value for row, value in asked if value is not None]
        shares[factor] = sum(right) / max(1, len(right))
    return shares
