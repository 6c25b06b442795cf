"""Frozen parts from the Hub, each at the revision that its name tells."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_server import LocalHub, serving
from tiny_blip2 import tiny_blip2_config
from tiny_rewards import tiny_reward

from prip.pivot_encoders import load_pivot_encoder
from prip.pivot_encoders.blip2 import Blip2PivotEncoder
from prip.rewards import load_reward

IMAGES = torch.randint(0, 256, (2, 3, 40, 48), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def publish(hub: LocalHub, name: str, folder: Path, write: Callable[[], Any]) -> list[Any]:
    """Puts what `write` makes with two seeds on the Hub, the first as v1 and the second on main; returns both."""
    made = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        made.append(write())
        commit = hub.add(name, folder)
        hub.repositories[name].refs.setdefault("v1", commit)
    return made


GENERATORS = """
import json, sys
from prip.generators import load_generator

for name, unet in json.loads(sys.argv[1]):
    generator = load_generator(name, device="cpu", unet=unet, safety_checker=False)
    print(generator.pipeline.unet.state_dict()["conv_in.weight"].double().sum().item())
"""


def test_a_generator_and_a_unet_of_its_own(tmp_path: Path) -> None:
    """In a process of its own: diffusers keeps the address of the Hub that it was imported with."""
    pytest.importorskip("diffusers", reason="the generate extra is not installed")
    from tiny_pipelines import stable_diffusion

    def write() -> float:
        pipeline = stable_diffusion()
        pipeline.save_pretrained(tmp_path / "sd")
        return pipeline.unet.state_dict()["conv_in.weight"].double().sum().item()

    with serving() as hub:
        first, second = publish(hub, "org/sd", tmp_path / "sd", write)
        names = [("org/sd@v1", None), ("org/sd", "org/sd@v1"), ("org/sd", None)]
        own = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        words = [sys.executable, "-c", GENERATORS, json.dumps(names)]
        done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, **own})
    assert done.returncode == 0, done.stderr
    assert [float(line) for line in done.stdout.split()[-3:]] == [first, first, second]


def test_a_pivot_encoder(hub: LocalHub, tmp_path: Path) -> None:
    def write() -> torch.Tensor:
        encoder = Blip2PivotEncoder(tiny_blip2_config()).eval()
        encoder.save_pretrained(tmp_path / "blip2")
        return encoder(IMAGES)

    first, second = publish(hub, "org/blip2", tmp_path / "blip2", write)
    assert torch.equal(load_pivot_encoder("org/blip2@v1", device="cpu")(IMAGES), first)
    assert torch.equal(load_pivot_encoder("org/blip2", device="cpu")(IMAGES), second)


def test_rewards_in_our_format_and_in_their_authors(hub: LocalHub, tmp_path: Path) -> None:
    users = ["a cat", "a dog"]

    def write(folder: Path, name: str, seeds: list[int]) -> torch.Tensor:
        reward = tiny_reward(name, seeds.pop())
        (reward if folder.name == "own" else reward.clip).save_pretrained(folder)
        return reward(users, IMAGES)

    own, clip, seeds = tmp_path / "own", tmp_path / "clip", [3, 2, 1, 0]
    first, second = publish(hub, "org/own", own, lambda: write(own, "hps-v2.0", seeds))
    assert torch.equal(load_reward("org/own@v1")(users, IMAGES), first)
    assert torch.equal(load_reward("org/own")(users, IMAGES), second)
    first, second = publish(hub, "org/clip", clip, lambda: write(clip, "clip-score", seeds))
    assert torch.equal(load_reward("clip-score=org/clip@v1")(users, IMAGES), first)
    assert torch.equal(load_reward("clip-score=org/clip")(users, IMAGES), second)
