"""What the paper's sizes cost on one GPU: encoder and decoder steps, an RL rollout, and refine, with random weights.

    python benchmarks/paper_scale.py                   # the paper's sizes, in bf16, on a GPU
    python benchmarks/paper_scale.py --size small      # the same code on small models, anywhere

FLOPs are counted by torch on a step of its own; MFU is their rate against the device's peak in bf16. The projected
GPU-hours are those of the paper's schedule at the measured rates, beside the paper's own on an A100.
"""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, T5Config

from prip.modeling import PreferenceEncoder, PromptDecoder
from prip.training.decoder import add_adapters
from prip.training.optimizers import build_optimizer, train_only
from prip.training.settings import LoraSettings, OptimizerSettings

PEAK_BF16 = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}
"""Dense bf16 FLOPs a second, by what the device's name holds; from the makers' data sheets."""
PAPER_HOURS = {"encoder": 24, "decoder": 144, "rl": 384}
"""A100-hours of the paper's three stages."""
PAPER_EXAMPLES = {"encoder": 300_000 * 3, "decoder": 900_000 * 2, "rl": 1000 * 512}
"""Examples of the three stages: pairs, prompts and rollouts, times epochs."""


@dataclass(frozen=True)
class Sizes:
    """Models and batches."""

    t5: T5Config
    llama: LlamaConfig
    pivot_length: int
    pivot_width: int
    encoder_batch: int
    decoder_batch: int
    user_tokens: int
    system_tokens: int


def paper_sizes() -> Sizes:
    """Flan-T5-XL, Llama-2-7B and BLIP-2's pivots."""
    return Sizes(
        T5Config(
            vocab_size=32128,
            d_model=2048,
            d_kv=64,
            d_ff=5120,
            num_layers=24,
            num_heads=32,
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
        ),
        LlamaConfig(
            vocab_size=32000,
            hidden_size=4096,
            intermediate_size=11008,
            num_hidden_layers=32,
            num_attention_heads=32,
        ),
        pivot_length=32,
        pivot_width=768,
        encoder_batch=64,
        decoder_batch=16,
        user_tokens=32,
        system_tokens=96,
    )


def small_sizes() -> Sizes:
    """The same architectures, small enough for a CPU."""
    return Sizes(
        T5Config(
            vocab_size=600, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu"
        ),
        LlamaConfig(vocab_size=600, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2),
        pivot_length=4,
        pivot_width=16,
        encoder_batch=8,
        decoder_batch=8,
        user_tokens=16,
        system_tokens=32,
    )


@dataclass(frozen=True)
class Cost:
    """What one step takes."""

    seconds: float
    peak_gib: float
    flops: float
    examples: int

    @property
    def rate(self) -> float:
        """Examples a second."""
        return self.examples / self.seconds


class Device:
    """Where it runs: clock, memory and peak."""

    def __init__(self, name: str) -> None:
        self.torch = torch.device(name)
        self.cuda = self.torch.type == "cuda"
        self.dtype = torch.bfloat16 if self.cuda else torch.float32
        self.name = torch.cuda.get_device_name(self.torch) if self.cuda else "CPU"
        self.peak = next((peak for part, peak in PEAK_BF16.items() if part in self.name), None)

    def now(self) -> float:
        """Seconds, after all queued work."""
        if self.cuda:
            torch.cuda.synchronize(self.torch)
        return time.perf_counter()

    def start_memory(self) -> None:
        """Forgets earlier peaks."""
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.torch)

    def peak_gib(self) -> float:
        """Highest memory since start_memory; of the whole process, where there is no GPU."""
        if self.cuda:
            return torch.cuda.max_memory_allocated(self.torch) / 2**30
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

    @contextmanager
    def building(self) -> Any:
        """Parameters made inside are on the device, in its dtype."""
        before = torch.get_default_dtype()
        torch.set_default_dtype(self.dtype)
        try:
            with self.torch:
                yield
        finally:
            torch.set_default_dtype(before)


def measure(device: Device, step: Callable[[], Any], examples: int, repeats: int) -> Cost:
    """Median seconds of `step` after two runs to warm up, its peak memory and its FLOPs."""
    device.start_memory()
    step()
    with FlopCounterMode(display=False) as counter:
        step()
    times = []
    for _ in range(repeats):
        began = device.now()
        step()
        times.append(device.now() - began)
    return Cost(sorted(times)[len(times) // 2], device.peak_gib(), counter.get_total_flops(), examples)


def train_step(loss: Callable[[], Tensor], parameters: list[torch.nn.Parameter], settings: OptimizerSettings) -> Any:
    """A function that takes one optimizer step."""
    optimizer = build_optimizer(settings, parameters)

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return step


def encoder_cost(device: Device, sizes: Sizes, repeats: int) -> Cost:
    """A step of stage 1 on random user prompts and pivots, by Adafactor."""
    with device.building():
        encoder = PreferenceEncoder.from_t5(sizes.t5, sizes.pivot_length, sizes.pivot_width).train()
    shape = sizes.encoder_batch, sizes.user_tokens
    ids = torch.randint(2, sizes.t5.vocab_size, shape, device=device.torch)
    target = torch.randn(shape[0], sizes.pivot_length, sizes.pivot_width, device=device.torch, dtype=device.dtype)
    step = train_step(
        lambda: mse_loss(encoder(input_ids=ids, attention_mask=torch.ones_like(ids)), target),
        train_only(encoder, "*"),
        OptimizerSettings(name="adafactor"),
    )
    return measure(device, step, shape[0], repeats)


def decoder_cost(device: Device, sizes: Sizes, lora_rank: int, repeats: int) -> Cost:
    """A step of stage 2 on random system prompts and pivots: all weights by Adafactor, or LoRA adapters by AdamW."""
    decoder = build_decoder(device, sizes)
    decoder.lm.gradient_checkpointing_enable({"use_reentrant": False})
    patterns = ["*"]
    if lora_rank:
        with device.building():
            add_adapters(decoder, LoraSettings(rank=lora_rank))
        patterns = ["lm.*lora_*", "projection.*"]
    decoder.train()
    shape = sizes.decoder_batch, sizes.system_tokens
    ids = torch.randint(2, sizes.llama.vocab_size, shape, device=device.torch)
    pivot = torch.randn(shape[0], sizes.pivot_length, sizes.pivot_width, device=device.torch, dtype=device.dtype)
    step = train_step(
        lambda: cross_entropy(decoder(pivot, ids).logits.transpose(1, 2).float(), ids),
        train_only(decoder, *patterns),
        OptimizerSettings(name="adamw" if lora_rank else "adafactor"),
    )
    return measure(device, step, shape[0], repeats)


def build_decoder(device: Device, sizes: Sizes) -> PromptDecoder:
    """D with random weights on the device."""
    shape = {"pivot_length": sizes.pivot_length, "pivot_width": sizes.pivot_width}
    with device.building():
        return PromptDecoder(
            PromptDecoderConfig(lm=nested_config(sizes.llama), template_before_ids=[1], template_after_ids=[], **shape)
        )
