"""Every setting that takes a name on the Hub takes ID@REVISION, and the run's settings tell its commit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hub_server import LocalHub, Repository
from made_data import write_data
from tiny_parts import t5_config
from transformers import T5ForConditionalGeneration

from prip.training.runs.pinned_settings import pin_base, pin_prepare, pin_rl
from prip.training.settings import DecoderSettings, EncoderSettings, LoopSettings, PrepareSettings, RlSettings
from prip.training.settings.rl import PartsSettings
from prip.training.warmup import encoder

RUN = Path("r")


@pytest.fixture
def commits(hub: LocalHub) -> tuple[str, str]:
    """Of everything/HUB: the commits of v1 and of main."""
    names = ("org/name", "THUDM/ImageReward", "xswu/HPSv2", "trl-lib/ddpo-aesthetic-predictor")
    for name in names:
        hub.repositories[name] = Repository()
        first, second = (hub.repositories[name].commit({"file": bytes(number)}) for number in range(2))
        hub.repositories[name].refs["v1"] = first
    return first, second


def test_prepare_tells_the_commits_of_all_that_it_takes_from_the_hub(commits: tuple[str, str]) -> None:
    first, second = commits
    rewards = ("image-reward", "hps-v2.0@v1", "pick-score=org/name@v1", "org/name", "clip-score=/here", "/there")
    settings = PrepareSettings(
        run=RUN,
        diffusiondb="org/name@v1",
        generator="org/name",
        generator_options={"unet": "org/name@v1", "steps": 3},
        pivot_encoder="org/name@v1",
        rewards=rewards,
    )
    found = pin_prepare(settings)
    assert found.diffusiondb == found.pivot_encoder == f"org/name@{first}" and found.generator == f"org/name@{second}"
    assert found.generator_options == {"unet": f"org/name@{first}", "steps": 3}
    assert found.rewards == (
        f"image-reward=THUDM/ImageReward@{second}",
        f"hps-v2.0=xswu/HPSv2@{first}",
        f"pick-score=org/name@{first}",
        f"org/name@{second}",
        "clip-score=/here",
        "/there",
    )
    assert pin_prepare(found) == found


def test_the_other_stages_do_so_too(commits: tuple[str, str]) -> None:
    first, second = commits
    assert pin_base(EncoderSettings(run=RUN, base="org/name")).base == f"org/name@{second}"
    assert pin_base(DecoderSettings(run=RUN, base="org/name@v1")).base == f"org/name@{first}"
    options = {"unet": "org/name"}
    named = PartsSettings(generator="org/name@v1", generator_options=options, rewards=("aesthetic", "hps-v2.1@v1"))
    parts = pin_rl(RlSettings(run=RUN, parts=named)).parts
    assert parts.generator == f"org/name@{first}" and parts.generator_options == {"unet": f"org/name@{second}"}
    rewards = (f"aesthetic=trl-lib/ddpo-aesthetic-predictor@{second}", f"hps-v2.1=xswu/HPSv2@{first}")
    assert parts.rewards == rewards


def test_what_names_nothing_on_the_hub_stays(hub: LocalHub) -> None:
    for settings, pin in (
        (PrepareSettings(run=RUN, diffusiondb=Path("/here")), pin_prepare),
        (EncoderSettings(run=RUN), pin_base),
        (DecoderSettings(run=RUN, base="/here"), pin_base),
        (RlSettings(run=RUN, parts=PartsSettings(rewards=("/here",))), pin_rl),
    ):
        assert pin(settings) == settings
    assert not hub.requests


def test_an_encoder_around_a_base_on_the_hub_tells_its_commit(hub: LocalHub, tmp_path: Path) -> None:
    write_data(tmp_path / "data")
    T5ForConditionalGeneration(t5_config()).save_pretrained(tmp_path / "t5")
    encoder.train_encoder_tokenizer(["a cat"], 300).save_pretrained(tmp_path / "t5")
    commit = hub.add("org/t5", tmp_path / "t5")
    loop = LoopSettings(steps=1, batch_size=2)
    settings = EncoderSettings(
        run=tmp_path, data=tmp_path / "data", base="org/t5", loop=loop, progress=False, device="cpu"
    )
    encoder.run(settings)
    written = yaml.safe_load((tmp_path / "encoder" / "settings.yaml").read_text())
    inputs = json.loads((tmp_path / "encoder" / "inputs.json").read_text())
    assert written["base"] == inputs["base"] == f"org/t5@{commit}"
