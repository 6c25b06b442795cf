"""`prip-train stand-ins`: small models with random weights in the paper's places, and a small DiffusionDB.

Every architecture is the real one and is saved as its published weights are, so that the other stages run on them as
they will on those: a rehearsal of a preset without a download.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from prip.clip_tokens import clip_tokenizer
from prip.generators import load_generator
from prip.loading import quiet
from prip.miniature.prompts import system_prompt
from prip.randomness import random_generator

from .atomic import replace_folder, replace_text
from .data.diffusiondb import Sampling
from .data.drawing import draw_all, plan_drawings
from .harness import stage_folder
from .seeds import seed_everything
from .settings import StandInsSettings
from .tokenizers import train_decoder_tokenizer, train_encoder_tokenizer

STAGE = "stand-ins"
HEADS, LAYERS = 2, 2
_log = logging.getLogger(__name__)


def run(settings: StandInsSettings) -> dict[str, Any]:
    """Writes RUN/parts and RUN/diffusiondb, and returns how many images were drawn."""
    folder = stage_folder(settings, STAGE)
    texts = sorted({system_prompt("train", random_generator("stand-ins", settings.seed, i)) for i in range(200)})
    writers: dict[str, Callable[[Path], None]] = {
        "t5": partial(write_t5, texts=texts, width=settings.width),
        "llama": partial(write_llama, texts=texts, width=settings.width),
        "generator": partial(write_generator, width=settings.width, image_size=settings.image_size),
    }
    for name, write in writers.items():
        seed_everything(settings.seed, STAGE, name)
        with quiet():
            replace_folder(settings.run / "parts" / name, write)
    drawn = draw_diffusiondb(settings, texts[: settings.prompts])
    metrics = {"stage": STAGE, "parts": sorted(writers), "images": drawn}
    replace_text(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    _log.info("stand-ins: %s, and %d images, in %s", ", ".join(sorted(writers)), drawn, settings.run)
    return metrics


def write_t5(folder: Path, texts: list[str], width: int) -> None:
    """A Flan-T5 (gated GELU, untied output) and its tokenizer."""
    tokenizer = train_encoder_tokenizer(texts, 600)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=width,
        d_kv=width // HEADS,
        d_ff=2 * width,
        num_layers=LAYERS,
        num_heads=HEADS,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_llama(folder: Path, texts: list[str], width: int) -> None:
    """A Llama and its tokenizer."""
    tokenizer = train_decoder_tokenizer(texts, 600)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_generator(folder: Path, width: int, image_size: int) -> None:
    """A Stable Diffusion 1: CLIP's own tokenizer and text encoder, a UNet and a KL autoencoder of factor 8."""
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    tokenizer = clip_pretrained_tokenizer()
    text = CLIPTextConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
    )
    unet = UNet2DConditionModel(
        sample_size=image_size // 8,
        block_out_channels=(width, 2 * width),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=width,
        attention_head_dim=HEADS,
        norm_num_groups=8,
    )
    autoencoder = AutoencoderKL(
        block_out_channels=(width,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=8,
    )
    StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=PNDMScheduler(skip_prk_steps=True, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)


def clip_pretrained_tokenizer() -> PreTrainedTokenizerFast:
    """CLIP's tokenizer as transformers' models want it: with its frame of begin and end, 77 tokens at most."""
    from tokenizers import processors

    backend = clip_tokenizer()
    begin, end = "<|startoftext|>", "<|endoftext|>"
    backend.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}", special_tokens=[(token, backend.token_to_id(token)) for token in (begin, end)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=77, bos_token=begin, eos_token=end, pad_token=end, unk_token=end
    )


def draw_diffusiondb(settings: StandInsSettings, prompts: list[str]) -> int:
    """Draws RUN/diffusiondb in DiffusionDB's layout by the generator; returns how many images it drew."""
    generator = load_generator(str(settings.run / "parts" / "generator"), "cpu", steps=1, guidance=1.0)
    table = pd.DataFrame({"prompt": prompts, "split": "train"})
    plan = plan_drawings(table, "user", settings.images_per_prompt, settings.seed)
    return draw_all(plan, generator, Sampling(1, 1.0), settings.run / "diffusiondb", 16, settings.progress)
