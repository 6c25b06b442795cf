"""What a device must hold, counted from shapes: by hand for small modules, by configs for the paper's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import (
    BlipTextConfig,
    BlipTextModel,
    BlipVisionConfig,
    BlipVisionModel,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    LlamaConfig,
    T5Config,
)

from prip.modeling import PreferenceEncoder, PreferenceEncoderConfig, PromptDecoder, PromptDecoderConfig
from prip.modeling.strict_model import nested_config
from prip.training.cli.command import parse_settings
from prip.training.rl.memory import (
    PartMemory,
    Phase,
    cache_bytes,
    logits_bytes,
    memory_table,
    optimizer_state,
    part_memory,
    phase_bytes,
    rl_parts_memory,
    rl_phases,
)

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "paper.md"


def test_a_part_is_counted_by_hand() -> None:
    layer = nn.Linear(3, 5)  # 15 + 5 parameters
    layer.bias.requires_grad_(False)
    layer.register_buffer("mean", torch.zeros(7, dtype=torch.float64))
    found = part_memory("layer", layer, "adamw")
    assert found == PartMemory(
        name="layer",
        dtypes="float32",
        parameters=20,
        weights=20 * 4 + 7 * 8,
        trainable=15,
        gradients=15 * 4,
        optimizer=2 * 15 * 4,
    )
    assert found.bytes == 136 + 60 + 120
    frozen = part_memory("layer", layer)
    assert (frozen.trainable, frozen.gradients, frozen.optimizer) == (0, 0, 0)


def test_what_is_shared_counts_once_and_formats_are_named() -> None:
    one = nn.Linear(4, 4, bias=False)
    other = nn.Linear(4, 4, bias=False).bfloat16()
    holder = type("Holder", (), {})()
    holder.first, holder.second = one, nn.Sequential(one, other)
    found = part_memory("both", [holder, one])
    assert (found.parameters, found.weights, found.dtypes) == (32, 16 * 4 + 16 * 2, "bfloat16, float32")


def test_optimizers_states() -> None:
    matrix, row = torch.zeros(6, 10, dtype=torch.bfloat16), torch.zeros(10)
    assert optimizer_state("adamw", matrix) == 2 * 60 * 2
    assert optimizer_state("adafactor", matrix) == 4 * (6 + 10)
    assert optimizer_state("adafactor", row) == 40
    from transformers.optimization import Adafactor

    weight = nn.Parameter(torch.ones(6, 10))
    optimizer = Adafactor([weight], lr=1.0, scale_parameter=False, relative_step=False, warmup_init=False)
    weight.sum().backward()
    optimizer.step()
    held = sum(value.nbytes for value in optimizer.state[weight].values() if torch.is_tensor(value) and value.dim())
    assert held == optimizer_state("adafactor", weight)


def test_a_cache_and_logits() -> None:
    config = LlamaConfig(hidden_size=64, num_hidden_layers=3, num_attention_heads=8, num_key_value_heads=2)
    assert cache_bytes(config, 5, 11, torch.bfloat16) == 2 * 3 * 2 * 8 * 5 * 11 * 2
    assert logits_bytes(100, 5, 11, 3) == 4 * 100 * 5 * 11 * 3


def test_offloaded_parts_are_held_where_they_are_used() -> None:
    parts = [
        PartMemory(name="decoder", dtypes="bfloat16", parameters=10, weights=20),
        PartMemory(name="generator", dtypes="bfloat16", parameters=50, weights=100),
    ]
    phases = [Phase("refine", frozenset({"decoder"}), 7), Phase("draw", frozenset({"generator"}), 0)]
    assert [phase_bytes(parts, one, ()) for one in phases] == [127, 120]
    assert [phase_bytes(parts, one, ("generator",)) for one in phases] == [27, 120]
    assert [phase_bytes(parts, one, ("generator", "decoder")) for one in phases] == [27, 100]
    table = memory_table([replace(parts[0], weights=20 * 10**9)], phases, (), 80 * 10**9)
    assert "at most 20.00 GB of the device's 80.00 GB (25%), in refine" in table


def test_the_papers_parts_fit_80_gb(capsys: pytest.CaptureFixture[str]) -> None:
    """The preset `paper` itself: its chunks, batch and optimizer, and the models it names by their configs."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    llama = LlamaConfig()  # its defaults are those of the 7B model
    arguments = ["--config", "paper", "--run", "r"]
    settings, base = parse_settings("rl", arguments), parse_settings("encoder", arguments).base
    assert settings.parts.dtype == "bfloat16" and settings.parts.reward_dtype == "float16" and not settings.offload
    assert str(base).startswith("google/flan-t5-large@") and "stable-diffusion-v1-4@" in str(settings.parts.generator)
    assert str(parse_settings("decoder", arguments).base).startswith("meta-llama/Llama-2-7b-hf@")
    t5 = T5Config(
        vocab_size=32128, d_model=1024, d_ff=2816, num_layers=24, num_heads=16, feed_forward_proj="gated-gelu"
    )
    hps = {
        "vision_config": {
            "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16,
            "patch_size": 14, "image_size": 224,
        },
        "text_config": {
            "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
        },
        "projection_dim": 1024,
    }  # fmt: skip
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    with torch.device("meta"):
        encoder = PreferenceEncoder(PreferenceEncoderConfig(t5=nested_config(t5)))
        decoder = PromptDecoder(PromptDecoderConfig(lm=nested_config(llama)))
        stable_diffusion = [
            UNet2DConditionModel(sample_size=64, cross_attention_dim=768),
            AutoencoderKL(
                block_out_channels=(128, 256, 512, 512),
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                layers_per_block=2,
            ),
            CLIPTextModel(
                CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
            ),
        ]
        image_reward = [
            BlipVisionModel(BlipVisionConfig(image_size=224, **vision)),
            BlipTextModel(BlipTextConfig(encoder_hidden_size=1024, is_decoder=True)),
        ]
        rewards = [*image_reward, CLIPModel(CLIPConfig(**hps))]
    for part in (decoder, *stable_diffusion):
        part.bfloat16().requires_grad_(False)
    for part in rewards:
        part.half().requires_grad_(False)
    parts = rl_parts_memory(encoder, decoder, stable_diffusion, rewards, optimizer=settings.optimizer.name)
    counts = {part.name: part.parameters / 1e9 for part in parts}
    assert counts["decoder"] == pytest.approx(6.74, abs=0.01)
    assert counts["generator"] == pytest.approx(1.066, abs=0.005)
    assert counts["rewards"] == pytest.approx(0.986 + 0.446, abs=0.02)
    assert counts["encoder"] == pytest.approx(0.751, abs=0.002)
    rows = settings.loop.batch_size * settings.rollouts.samples_per_prompt
    phases = rl_phases(llama, torch.bfloat16, settings.rollouts, settings.ppo.minibatch, rows)
    print(memory_table(parts, phases, settings.offload, 80 * 10**9))
    most, least = (
        max(phase_bytes(parts, phase, offloaded) for phase in phases)
        for offloaded in ((), ("decoder", "generator", "rewards"))
    )
    assert least < most - 2e9
    assert 25e9 < most < 40e9  # Flan-T5-XL in its place would take 55 GB
    printed = capsys.readouterr().out
    assert "decoder" in printed and "13.48" in printed
    documented = DOCUMENT.read_text(encoding="utf-8")
    for line in printed.splitlines():
        assert line.rstrip() in documented
