"""Models of the paper's sizes and small ones, with random weights, and the device that they are measured on."""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import CLIPTextConfig, CLIPTextModel, LlamaConfig, T5Config

from prip.generators.diffusion import DiffusersGenerator
from prip.modeling import PreferenceEncoder, PromptDecoder
from prip.processing import PripProcessor
from prip.prompt_decoder import PromptDecoderConfig
from prip.rewards.hps_v2 import HpsV2, HpsV2Config
from prip.rewards.image_reward import ImageReward, ImageRewardConfig
from prip.strict_model import nested_config
from prip.training.stand_ins.pictures import CLIP, HEAD, TEXT, VISION, bert_tokenizer, clip_prompt_tokenizer
from prip.training.tokenizers import train_decoder_tokenizer, train_encoder_tokenizer

PEAK_BF16 = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}
"""Dense bf16 FLOPs a second by what the device's name holds, from the makers' data sheets."""


@dataclass(frozen=True)
class Sizes:
    """Models and batches."""

    t5: dict[str, Any]
    llama: dict[str, Any]
    unet: dict[str, Any]
    autoencoder: dict[str, Any]
    text: dict[str, Any]
    image_reward: dict[str, Any]
    hps: dict[str, Any]
    pivot: dict[str, int]
    encoder_batch: int
    decoder_batch: int
    rollouts: int
    user_tokens: int
    system_tokens: int
    new_tokens: int
    drawing_steps: int


def paper_sizes() -> Sizes:
    """Flan-T5-XL, Llama-2-7B, Stable Diffusion 1.4 at 512 pixels, ImageReward, HPSv2; pivots of BLIP-2."""
    width = {"d_model": 2048, "d_kv": 64, "d_ff": 5120, "num_layers": 24, "num_heads": 32}
    layers = {"num_hidden_layers": 32, "num_attention_heads": 32}
    channels = (320, 640, 1280, 1280)
    return Sizes(
        t5={"vocab_size": 32128, "feed_forward_proj": "gated-gelu", **width},
        llama={"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, **layers},
        unet={
            "sample_size": 64,
            "block_out_channels": channels,
            "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
            "cross_attention_dim": 768,
            "attention_head_dim": 8,
        },
        autoencoder={"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2},
        text={"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
        image_reward={},
        hps={},
        pivot={"pivot_length": 32, "pivot_width": 768},
        encoder_batch=64,
        decoder_batch=16,
        rollouts=64,
        user_tokens=32,
        system_tokens=96,
        new_tokens=60,
        drawing_steps=20,
    )


def small_sizes() -> Sizes:
    """The same architectures, small enough for a CPU."""
    text = {**TEXT, "vocab_size": 128, "encoder_hidden_size": VISION["hidden_size"], "bos_token_id": None}
    return Sizes(
        t5={"vocab_size": 700, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2},
        llama={"vocab_size": 700, **TEXT},
        unet={
            "sample_size": 8,
            "block_out_channels": (16, 32),
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            "layers_per_block": 1,
            "cross_attention_dim": TEXT["hidden_size"],
            "attention_head_dim": 2,
            "norm_num_groups": 8,
        },
        autoencoder={"block_out_channels": (16,) * 4, "norm_num_groups": 8},
        text=TEXT,
        image_reward={
            "vision": {**VISION, "layer_norm_eps": 1e-6},
            "text": {**text, "sep_token_id": 3},
            "head": HEAD,
        },
        hps={"clip": CLIP},
        pivot={"pivot_length": 4, "pivot_width": 16},
        encoder_batch=8,
        decoder_batch=8,
        rollouts=8,
        user_tokens=16,
        system_tokens=32,
        new_tokens=12,
        drawing_steps=2,
    )


SIZES = {"paper": paper_sizes, "small": small_sizes}


class Device:
    """Where it runs: clock, memory and peak."""

    def __init__(self, name: str | None = None) -> None:
        self.torch = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.cuda = self.torch.type == "cuda"
        self.dtype = torch.bfloat16 if self.cuda else torch.float32
        self.name = torch.cuda.get_device_name(self.torch) if self.cuda else "CPU"
        self.peak = next((peak for part, peak in PEAK_BF16.items() if part in self.name), None)

    def now(self) -> float:
        """Seconds, after all queued work."""
        if self.cuda:
            torch.cuda.synchronize(self.torch)
        return time.perf_counter()

    def forget(self) -> None:
        """Frees what nothing holds any more, and forgets earlier peaks."""
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.torch)

    def peak_gib(self) -> float:
        """Highest memory since `forget`; that of the process where there is no GPU."""
        if self.cuda:
            return torch.cuda.max_memory_allocated(self.torch) / 2**30
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

    @contextmanager
    def building(self) -> Iterator[None]:
        """What is made inside is on the device, in its dtype."""
        before = torch.get_default_dtype()
        torch.set_default_dtype(self.dtype)
        try:
            with self.torch:
                yield
        finally:
            torch.set_default_dtype(before)


def build_encoder(device: Device, sizes: Sizes) -> PreferenceEncoder:
    """E with random weights."""
    with device.building():
        return PreferenceEncoder.from_t5(T5Config(**sizes.t5), **sizes.pivot)


def build_decoder(device: Device, sizes: Sizes) -> PromptDecoder:
    """D with random weights."""
    lm = nested_config(LlamaConfig(bos_token_id=None, eos_token_id=1, pad_token_id=0, **sizes.llama))
    config = PromptDecoderConfig(lm=lm, template_before_ids=[1], template_after_ids=[], **sizes.pivot)
    with device.building():
        return PromptDecoder(config)


def build_processor(prompts: list[str]) -> PripProcessor:
    """Tokenizers of some hundred tokens: what a token costs does not depend on which it is."""
    return PripProcessor(train_encoder_tokenizer(prompts, 600), train_decoder_tokenizer(prompts, 600))


def build_generator(device: Device, sizes: Sizes) -> DiffusersGenerator:
    """Stable Diffusion with random weights, sampled by DPM-Solver++."""
    from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel

    levels = len(sizes.autoencoder["block_out_channels"])
    with device.building():
        parts = {
            "unet": UNet2DConditionModel(**sizes.unet),
            "vae": AutoencoderKL(
                down_block_types=("DownEncoderBlock2D",) * levels,
                up_block_types=("UpDecoderBlock2D",) * levels,
                latent_channels=4,
                **sizes.autoencoder,
            ),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**sizes.text)),
        }
    pipeline = StableDiffusionPipeline(
        **parts,
        tokenizer=clip_prompt_tokenizer(),
        scheduler=DPMSolverMultistepScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return DiffusersGenerator(pipeline, steps=sizes.drawing_steps, guidance=7.5, batch_size=16)


def build_rewards(device: Device, sizes: Sizes) -> list[Any]:
    """ImageReward and HPSv2 with random weights."""
    rewards = [
        ImageReward.from_config(ImageRewardConfig(**sizes.image_reward), bert_tokenizer()),
        HpsV2.from_config(HpsV2Config(name="hps-v2.0", **sizes.hps)),
    ]
    for reward in rewards:
        torch.nn.Module.to(reward, device.torch, device.dtype)
    return rewards
