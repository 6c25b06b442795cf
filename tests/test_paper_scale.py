"""What is measured at the paper's sizes: full-size models without their memory, and the schedule worked by hand."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from prip.training.cli.command import parse_settings

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def benchmarks() -> Any:
    sys.path.insert(0, str(ROOT))
    try:
        names = {"scale": "__main__", "parts": "parts", "rows": "rows", "watch": "watch"}
        modules = {name: import_module(f"benchmarks.paper_scale.{module}") for name, module in names.items()}
    finally:
        sys.path.pop(0)
    return SimpleNamespace(**modules)


def count(module: nn.Module) -> int:
    assert {value.device.type for value in (*module.parameters(), *module.buffers())} == {"meta"}, "takes no memory"
    return sum(parameter.numel() for parameter in module.parameters())


def parity_count(name: str) -> int:
    """Numbers in the authors' file, less what has no part in a score."""
    shapes = json.loads((ROOT / "tests" / "parity" / f"{name}.json").read_text())
    unused = ("blip.vision_proj.", "blip.text_proj.", "blip.text_encoder.embeddings.position_ids")
    return sum(math.prod(shape) for key, shape in shapes.items() if not key.startswith(unused))


def test_every_part_has_the_published_size(benchmarks: Any) -> None:
    parts, sizes, meta = benchmarks.parts, benchmarks.parts.paper_sizes(), benchmarks.parts.Device("meta")
    encoder = parts.build_encoder(meta, sizes)
    unused_head = 32128 * 1024
    assert count(encoder.t5) + unused_head == 783_150_080  # google/flan-t5-large
    assert count(encoder) - count(encoder.t5) == 32 * 1024 + 1024 * 768 + 768
    assert encoder.dtype == torch.float32
    decoder = parts.build_decoder(meta, sizes, torch.bfloat16)
    assert count(decoder.lm) == 6_738_415_616  # meta-llama/Llama-2-7b-hf
    assert decoder.dtype == torch.bfloat16
    networks = parts.build_networks(meta, sizes, torch.bfloat16)
    assert {name: count(network) for name, network in networks.items()} == {
        "unet": 859_520_964,
        "vae": 83_653_863,
        "text_encoder": 123_060_480,
        "safety_checker": 303_981_588,
    }  # CompVis/stable-diffusion-v1-4
    hps = parts.build_reward(meta, sizes, torch.bfloat16, "hps-v2.0")
    assert count(hps) == parity_count("hpsv2/ViT-H-14") == 986_109_441
    image_reward = parts.build_reward(meta, sizes, torch.bfloat16, "image-reward")
    assert count(image_reward) == parity_count("image_reward/ImageReward")
    assert image_reward.head[0].weight.dtype == torch.float32 and image_reward.vision.dtype == torch.bfloat16


def test_the_pivot_encoder_has_blip2s_size() -> None:
    from transformers import Blip2Config

    from prip.pivot_encoders.blip2 import Blip2PivotEncoder

    with torch.device("meta"):
        encoder = Blip2PivotEncoder(Blip2Config())
    assert count(encoder.vision_model) == 985_952_256  # EVA's ViT-g/14
    assert (encoder.pivot_length, encoder.pivot_width) == (32, 768)
    assert count(encoder) == 985_952_256 + 105_137_664 + 32 * 768  # the Q-Former's image branch, and the queries


def test_plain_images_are_those_that_the_seed_pool_leaves(benchmarks: Any) -> None:
    plain_images = benchmarks.scale.plain_images
    assert plain_images(100, 250, 1, 1) == 100, "one seed: none after the first pass"
    assert plain_images(100, 80, 1, 1) == 80, "not a whole pass"
    assert plain_images(100, 250, 1, 2) == 100 + 50 + 50 * 0.25
    assert plain_images(100, 200, 2, 8) == 2 * 100 + 2 * 100 * 0.75


def test_the_projection_is_that_of_the_presets_schedule(benchmarks: Any) -> None:
    gpu_hours = benchmarks.scale.gpu_hours
    step = {"examples": 64, "seconds": 0.5}
    assert gpu_hours("encoder", step, "paper") == pytest.approx(3516 * 4 * 0.5 / 3600)
    assert gpu_hours("full", {"examples": 16, "seconds": 0.5}, "paper") == pytest.approx(14063 * 8 * 0.5 / 3600)
    seconds = {"refine": 1.0, "draw": 4.0, "score": 2.0, "update": 3.0, "all else": 0.5}
    phases = {name: {"seconds": 64 * own} for name, own in seconds.items()}
    rollouts, dev, plain = 1000 * 512, 21 * 512, 297_000 + 2048 + 512  # each of the 297,000 train prompts once
    wanted = rollouts * 3.5 + (rollouts + dev) * 1.0 + (rollouts + dev + plain) * 6.0
    assert gpu_hours("rl", {"examples": 64, "phases": phases}, "paper") == pytest.approx(wanted / 3600)


def test_flops_are_counted_and_phases_timed(benchmarks: Any) -> None:
    watch = benchmarks.watch.Watch(benchmarks.parts.Device("cpu"), backward=2)
    left, right = torch.ones(3, 5), torch.ones(5, 7)
    multiply = watch.phase("multiply", lambda first, second: first @ second + first @ second)
    for _ in range(4):
        watch.begin()
        multiply(left, right)
        watch.end()
    figures = watch.figures(examples=3)
    assert figures["flops"] == 3 * 2 * (2 * 3 * 5 * 7) and len(watch.seconds) == 2 and figures["peak_gib"] > 0
    phases = watch.phase_figures(examples=3)
    assert set(phases) == {"multiply", "all else"} and 0 < phases["multiply"]["seconds"] <= figures["seconds"]


@pytest.mark.parametrize("row", ["encoder", "lora", "full"])
def test_a_row_has_the_presets_settings(benchmarks: Any, row: str, tmp_path: Path) -> None:
    rows, sizes = benchmarks.rows, replace(benchmarks.parts.small_sizes(), preset="paper")
    job = rows.Job(benchmarks.parts.Device("cpu"), sizes, tmp_path, 1, "auto")
    found = rows.ROWS[row](job)
    preset = parse_settings("encoder" if row == "encoder" else "decoder", ["--config", "paper", "--run", "r"])
    assert found["settings"] == {
        "optimizer": preset.optimizer.name,
        "precision": "bf16-mixed",
        "strategy": "auto",
        "gradient_checkpointing": preset.gradient_checkpointing,
    }
    assert found["examples"] == preset.loop.batch_size and found["flops"] > 0


def test_a_row_that_fails_is_told_and_the_others_stand(
    benchmarks: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.json"
    kept = {"device": "CPU", "examples": 4, "seconds": 0.5, "peak_gib": 1.0, "flops": None, "mfu": None}
    path.write_text(json.dumps({"size": "small", "rows": {"encoder": kept}}))
    arguments = ["--size", "small", "--device", "nowhere", "--only", "refine", "--json", str(path)]
    monkeypatch.setattr(sys, "argv", ["paper_scale.py", *arguments])
    assert benchmarks.scale.main() == 1
    printed = capsys.readouterr().out
    assert "encoder step                4      0.500         8.00        1.0" in printed
    assert "refine                 RuntimeError: Expected one of cpu, cuda" in printed
    assert json.loads(path.read_text())["rows"]["encoder"] == kept
