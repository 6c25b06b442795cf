"""The presets of the paper's size: they say its figures, and run on stand-ins of the same architectures."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from hub_server import LocalHub

from prip.refiner import Refiner
from prip.rewards import parse_reward
from prip.training.cli.command import CONFIGS, main, parse_settings
from prip.training.runs.pinned_settings import pin_base, pin_prepare, pin_rl, pin_tune

STAGES = ("prepare", "encoder", "decoder", "rl")


def test_the_paper_preset_says_the_papers_figures() -> None:
    prepare, encoder, decoder, rl = (parse_settings(stage, ["--config", "paper", "--run", "r"]) for stage in STAGES)
    assert prepare.system.thresholds == {"clip-score": 0.28, "aesthetic": 5.2} and prepare.preferred_by == (
        "image-reward",
    )
    for settings, examples in ((encoder, 3 * 300_000), (decoder, 2 * 900_000)):
        batch = settings.devices * settings.loop.batch_size * settings.loop.accumulate
        assert abs(settings.loop.steps * batch - examples) < batch
    assert (encoder.optimizer.lr, decoder.optimizer.lr) == (1e-3, 2e-5)
    assert encoder.base is not None and encoder.base.startswith("google/flan-t5-large@")
    assert rl.loop.steps == 1000 and rl.devices * rl.loop.batch_size * rl.rollouts.samples_per_prompt == 512
    assert rl.optimizer.schedule == "constant" and rl.ppo.baseline == "value" and rl.algorithm == "ppo"
    assert [parse_reward(reward).name for reward in rl.parts.rewards] == ["image-reward", "hps-v2.0"]
    assert [Path(str(file)).stem for file in prepare.evaluation.files] == ["anime", "concept-art", "paintings", "photo"]
    tune = parse_settings("tune", ["--config", "paper", "--run", "r"])
    assert tune.devices * tune.loop.batch_size * tune.loop.accumulate == 64 and tune.optimizer.lr == 1e-5
    assert tune.pull.weight == 1e-3 and tune.rewards == rl.parts.rewards


@pytest.mark.parametrize(
    ("preset", "stage"), sorted((path.parent.name, path.stem) for path in CONFIGS.glob("*/*.yaml"))
)
def test_every_preset_parses(preset: str, stage: str) -> None:
    assert parse_settings(stage, ["--config", preset, "--run", "r"]).run == Path("r")


@pytest.mark.parametrize("preset", ["paper", "tinyllama", "modern"])
def test_presets_pin_all_that_comes_from_the_hub(preset: str, hub: LocalHub) -> None:
    """A name without a commit would be asked for, and the hub knows none of them."""
    for stage, pin in zip(STAGES, (pin_prepare, pin_base, pin_base, pin_rl), strict=True):
        pin(parse_settings(stage, ["--config", preset, "--run", "r"]))
    pin_tune(parse_settings("tune", ["--config", "paper", "--run", "r"]))
    assert not hub.requests


def test_the_paper_is_rehearsed_on_stand_ins(tmp_path: Path) -> None:
    assert main(["stand-ins", "--run", str(tmp_path), "--no_progress"]) == 0
    for stage in (*STAGES, "tune"):
        arguments = ["--config", "paper-dry", "--run", str(tmp_path), "--no_progress", "--device", "cpu"]
        assert main([stage, *arguments]) == 0, stage
        assert json.loads((tmp_path / stage / "metrics.json").read_text())["stage"] == stage
    refined = Refiner.from_pretrained(tmp_path / "rl" / "refiner", device="cpu").refine("a cat", max_new_tokens=12)
    assert refined.startswith("a cat, ")
    rollouts = pd.read_parquet(tmp_path / "rl" / "rollouts")
    assert len(rollouts) == 2 * 4 and {"image-reward", "hps-v2.0", "hps-v2.0_plain"} <= set(rollouts.columns)
    assert len(pd.read_parquet(tmp_path / "data" / "system_prompts.parquet")) > 16
