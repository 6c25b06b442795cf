"""`prip-train stand-ins`: tiny random models in place of the paper's, and a small DiffusionDB.

The architectures are the real ones, so the other stages run as with the published weights: a rehearsal without a
download.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pandas as pd
from transformers import LlamaForCausalLM, T5ForConditionalGeneration

from prip.files import replace_folder
from prip.generators import load_generator
from prip.loading.strict import quiet
from prip.miniature.prompts import system_prompt
from prip.randomness import random_generator

from ..data.diffusiondb import Sampling
from ..data.drawing import draw_all, plan_drawings
from ..from_scratch import llama_config, t5_config, train_decoder_tokenizer, train_encoder_tokenizer
from ..runs.run_folder import stage_folder, write_metrics
from ..runs.seeds import seed_everything
from ..settings import LlamaSizes, StandInsSettings, T5Sizes
from .pictures import write_blip2, write_reward, write_stable_diffusion

STAGE = "stand-ins"
REWARDS = ("image-reward", "hps-v2.0", "clip-score", "aesthetic")
VOCABULARY = 600
T5 = T5Sizes(d_model=32, d_ff=64, layers=2, heads=2, dropout=0.1)
LLAMA = LlamaSizes(hidden_size=32, intermediate_size=64, layers=2, heads=2)
_log = logging.getLogger(__name__)


def run(settings: StandInsSettings) -> dict[str, Any]:
    """Write RUN/parts and RUN/diffusiondb, and return the names of the parts and the number of images."""
    folder = stage_folder(settings, STAGE)
    texts = sorted({system_prompt("train", random_generator(STAGE, settings.seed, i)) for i in range(200)})
    writers: dict[str, Any] = {
        "t5": lambda folder: write_t5(folder, texts),
        "llama": lambda folder: write_llama(folder, texts),
        "pivot_encoder": write_blip2,
        "generator": lambda folder: write_stable_diffusion(folder, settings.image_size),
    }
    writers |= {f"rewards/{name}": lambda folder, name=name: write_reward(folder, name) for name in REWARDS}
    for name, write in writers.items():
        seed_everything(settings.seed, STAGE, name)
        with quiet():
            replace_folder(settings.run / "parts" / name, write)
    prompts = pd.DataFrame({"prompt": texts[: settings.prompts], "split": "train"})
    generator = load_generator(str(settings.run / "parts" / "generator"), device="cpu", steps=1, guidance=1.0)
    plan = plan_drawings(prompts, "user", settings.images_per_prompt, settings.seed)
    drawn = draw_all(plan, generator, Sampling(1, 1.0), settings.run / "diffusiondb", 16, settings.progress)
    metrics = {"stage": STAGE, "parts": list(writers), "images": drawn}
    write_metrics(folder, metrics)
    _log.info("stand-ins: %s and %d images in %s", ", ".join(writers), drawn, settings.run)
    return metrics


def write_t5(folder: Path, texts: list[str]) -> None:
    """Write a tiny Flan-T5 and its tokenizer."""
    tokenizer = train_encoder_tokenizer(texts, VOCABULARY)
    config = t5_config(tokenizer, T5)
    config.decoder_start_token_id = tokenizer.pad_token_id
    T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_llama(folder: Path, texts: list[str]) -> None:
    """Write a tiny Llama and its tokenizer."""
    tokenizer = train_decoder_tokenizer(texts, VOCABULARY)
    LlamaForCausalLM(llama_config(tokenizer, LLAMA)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
