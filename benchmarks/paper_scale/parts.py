"""Models with random weights, of the paper's sizes and small ones, and the device that they are measured on."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import CLIPConfig, CLIPImageProcessor, CLIPTextConfig, CLIPTextModel, LlamaConfig, T5Config

from prip.errors import InputError
from prip.generators.diffusion import DiffusersGenerator, DrawingOptions
from prip.generators.schedulers import DEFAULT, make_scheduler
from prip.modeling import PreferenceEncoder, PromptDecoder
from prip.modeling.prompt_decoder import PromptDecoderConfig
from prip.modeling.strict_model import nested_config
from prip.processing import PripProcessor
from prip.rewards.clip_scorer import VIT_L_14
from prip.rewards.hps_v2 import HpsV2, HpsV2Config
from prip.rewards.image_reward import ImageReward, ImageRewardConfig
from prip.training.from_scratch import train_decoder_tokenizer, train_encoder_tokenizer
from prip.training.stand_ins.pictures import CLIP, IMAGE_REWARD, TEXT, UNET, bert_tokenizer, clip_prompt_tokenizer

PEAK_BF16 = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}
"""Dense bf16 FLOP/s by a part of the device's name, from data sheets."""
GIB = 2**30


@dataclass(frozen=True)
class Sizes:
    """Sizes of models and texts; batches and all other settings are the preset's."""

    preset: str
    """Preset of the rows' settings."""
    t5: dict[str, Any]
    llama: dict[str, Any]
    unet: dict[str, Any]
    autoencoder: dict[str, Any]
    text: dict[str, Any]
    safety: dict[str, Any]
    image_reward: dict[str, Any]
    hps: dict[str, Any]
    pivot: dict[str, Any]
    user_tokens: int
    system_tokens: int


def paper_sizes() -> Sizes:
    """Flan-T5-Large, Llama-2-7B, Stable Diffusion 1.4 at 512 pixels, ImageReward, HPSv2; pivots of BLIP-2."""
    width = {"d_model": 1024, "d_kv": 64, "d_ff": 2816, "num_layers": 24, "num_heads": 16}
    layers = {"num_hidden_layers": 32, "num_attention_heads": 32}
    channels = (320, 640, 1280, 1280)
    return Sizes(
        preset="paper",
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
        safety=VIT_L_14,
        image_reward={},
        hps={},
        pivot={"pivot_length": 32, "pivot_width": 768},
        user_tokens=32,
        system_tokens=96,
    )


def small_sizes() -> Sizes:
    """The same architectures, small enough for a CPU."""
    return Sizes(
        preset="paper-dry",
        t5={"vocab_size": 700, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2},
        llama={"vocab_size": 700, **TEXT},
        unet={"sample_size": 8, **UNET},
        autoencoder={"block_out_channels": (16,) * 4, "norm_num_groups": 8},
        text=TEXT,
        safety=CLIP,
        image_reward=IMAGE_REWARD,
        hps={"clip": CLIP},
        pivot={"pivot_length": 4, "pivot_width": 16},
        user_tokens=16,
        system_tokens=32,
    )


SIZES = {"paper": paper_sizes, "small": small_sizes}


class Device:
    """A device's clock, memory and peak FLOP/s."""

    def __init__(self, name: str | None = None) -> None:
        self.torch = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.cuda = self.torch.type == "cuda"
        if self.cuda:
            self.torch = torch.device("cuda", self.torch.index or 0)
        self.name = torch.cuda.get_device_name(self.torch) if self.cuda else self.torch.type.upper()
        self.peak = next((peak for part, peak in PEAK_BF16.items() if part in self.name), None)

    def now(self) -> float:
        """Return the time in seconds after all queued work."""
        if self.cuda:
            torch.cuda.synchronize(self.torch)
        return time.perf_counter()

    def forget_peak(self) -> None:
        """Reset `peak_gib` on a GPU."""
        if self.cuda:
            torch.cuda.reset_peak_memory_stats(self.torch)

    def peak_gib(self) -> float:
        """Return the peak memory of tensors since `forget_peak`; without a GPU, the process's peak."""
        if self.cuda:
            return torch.cuda.max_memory_allocated(self.torch) / GIB
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB

    @contextmanager
    def building(self, dtype: torch.dtype) -> Iterator[None]:
        """Create modules on the device and in `dtype` inside the context."""
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            with self.torch:
                yield
        finally:
            torch.set_default_dtype(before)


def build_encoder(device: Device, sizes: Sizes) -> PreferenceEncoder:
    """Build the preference encoder, in float32 as in every stage."""
    with device.building(torch.float32):
        return PreferenceEncoder.from_t5(T5Config(**sizes.t5), **sizes.pivot)


def build_decoder(device: Device, sizes: Sizes, dtype: torch.dtype) -> PromptDecoder:
    """Build the prompt decoder."""
    lm = nested_config(LlamaConfig(bos_token_id=None, eos_token_id=1, pad_token_id=0, **sizes.llama))
    config = PromptDecoderConfig(lm=lm, template_before_ids=[1], template_after_ids=[], **sizes.pivot)
    with device.building(dtype):
        return PromptDecoder(config)


def build_processor(prompts: list[str]) -> PripProcessor:
    """Train small tokenizers: the cost of a token does not depend on the vocabulary."""
    return PripProcessor(train_encoder_tokenizer(prompts, 600), train_decoder_tokenizer(prompts, 600))


def build_networks(device: Device, sizes: Sizes, dtype: torch.dtype) -> dict[str, Any]:
    """Build the networks of Stable Diffusion 1, including its safety checker."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

    levels = len(sizes.autoencoder["block_out_channels"])
    with device.building(dtype):
        return {
            "unet": UNet2DConditionModel(**sizes.unet),
            "vae": AutoencoderKL(
                down_block_types=("DownEncoderBlock2D",) * levels,
                up_block_types=("UpDecoderBlock2D",) * levels,
                latent_channels=4,
                **sizes.autoencoder,
            ),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**sizes.text)),
            "safety_checker": StableDiffusionSafetyChecker(CLIPConfig(**sizes.safety)),
        }


def build_generator(device: Device, sizes: Sizes, dtype: torch.dtype, options: Mapping[str, Any]) -> DiffusersGenerator:
    """Build Stable Diffusion with PRIP's default sampler; options are those of `DrawingOptions`, and
    safety_checker."""
    from diffusers import PNDMScheduler, StableDiffusionPipeline

    networks = build_networks(device, sizes, dtype)
    edge = networks["safety_checker"].config.vision_config.image_size
    drawing = dict(options)
    checked = drawing.pop("safety_checker", True)
    if not checked:
        networks["safety_checker"] = None
    published = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    )
    pipeline: Any = StableDiffusionPipeline(
        **networks,
        tokenizer=clip_prompt_tokenizer(),
        scheduler=make_scheduler(DEFAULT, published),
        feature_extractor=CLIPImageProcessor(size={"shortest_edge": edge}, crop_size={"height": edge, "width": edge}),
        requires_safety_checker=checked,
    )
    return DiffusersGenerator(pipeline, DrawingOptions(**drawing))


def build_reward(device: Device, sizes: Sizes, dtype: torch.dtype, name: str) -> Any:
    """Build ImageReward or HPSv2 by its registered name."""
    with device.building(dtype):
        if name == "image-reward":
            reward: Any = ImageReward.from_config(ImageRewardConfig(**sizes.image_reward), bert_tokenizer())
            reward.head.float()  # as it is loaded
        elif name.startswith("hps-"):
            reward = HpsV2.from_config(HpsV2Config(name=name, **sizes.hps))
        else:
            raise InputError(f"rewards: expected image-reward or hps-..., got {name!r}")
    return reward.requires_grad_(False)
