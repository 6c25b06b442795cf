"""Parts that wait on the CPU while others work: real modules, and where their parameters are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from made_parts import write_parts
from made_rl import GROUP, ROLLOUTS, make_parts, rl_settings, warm_up
from safetensors.torch import load_file
from torch import nn

from prip.fingerprints import modules_inside
from prip.generators import load_generator
from prip.rewards import load_reward
from prip.training.rl import stage as rl
from prip.training.rl.parts import RlParts
from prip.training.rollouts.offloading import Offloading, move

OFFLOAD = ("generator", "rewards", "decoder")


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A run whose encoder and decoder are warmed up."""
    return warm_up(tmp_path_factory.mktemp("warm"), data)


def devices(part: object) -> set[str]:
    found = [one for each in (part if isinstance(part, list) else [part]) for one in modules_inside(each)]
    return {value.device.type for module in found for value in (*module.parameters(), *module.buffers())}


def test_every_module_of_a_real_part_is_moved(tmp_path: Path, warm: Path) -> None:
    """To `meta`, the one device besides the CPU that every machine has."""
    write_parts(tmp_path)
    generator = load_generator(str(tmp_path / "parts" / "generator"), "cpu")
    rewards = [load_reward(path, "cpu") for path in sorted((tmp_path / "parts" / "rewards").iterdir())]
    decoder = make_parts(warm).model.decoder
    for part in (generator, rewards, decoder, [nn.Sequential(nn.BatchNorm1d(2))]):
        assert devices(part) == {"cpu"}
        move(part, "meta")
        assert devices(part) == {"meta"}


def test_a_part_is_on_the_device_while_it_is_used_and_offloaded_parts_alone_move() -> None:
    offloaded, other = nn.Linear(2, 2), nn.Linear(2, 2)
    offloading = Offloading({"decoder": offloaded, "rewards": [other]}, ["decoder"], "meta")
    offloading.settle()
    assert (devices(offloaded), devices(other)) == ({"cpu"}, {"meta"})
    using = offloading.using("decoder")
    using.__enter__()
    assert devices(offloaded) == {"meta"}
    with offloading.using("rewards"), offloading.using("unknown"), offloading.using("decoder"):
        assert devices(offloaded) == {"meta"}
    assert devices(offloaded) == {"meta"}, "the first user is still there"
    offloading.parts["decoder"] = nn.Linear(2, 2)  # what has been on meta holds nothing that could come back
    using.__exit__(None, None, None)
    assert devices(offloading.parts["decoder"]) == {"cpu"}


def run_watched(folder: Path, warm: Path, offload: tuple[str, ...], device: str) -> dict[str, Any]:
    """Runs rl and notes, as the generator draws and the rewards score, on which devices the parts are."""
    parts = make_parts(warm)
    places: dict[str, set[tuple[str, ...]]] = {"draw": set(), "score": set()}

    def note(phase: str) -> None:
        found = (parts.generator, parts.rewards[0], parts.model.decoder)
        places[phase].add(tuple("/".join(sorted(devices(one))) for one in found))

    generator_class, reward_class = type(parts.generator), type(parts.rewards[0])

    class WatchedGenerator(generator_class):  # type: ignore[misc, valid-type]
        def __call__(self, *given: Any) -> torch.Tensor:
            note("draw")
            return super().__call__(*given)

    class WatchedReward(reward_class):  # type: ignore[misc, valid-type]
        def __call__(self, *given: Any) -> torch.Tensor:
            note("score")
            return super().__call__(*given)

    parts.generator.__class__ = WatchedGenerator
    for reward in parts.rewards:
        reward.__class__ = WatchedReward
    settings = rl_settings(folder, ppo=GROUP, offload=offload, device=device, rollouts=replace(ROLLOUTS))
    rl.run(settings, parts)
    return {"parts": parts, "places": places, "rl": folder / "rl"}


def test_offloaded_or_not_the_results_are_equal(tmp_path: Path, warm: Path) -> None:
    plain, offloaded = (
        run_watched(tmp_path / name, warm, chosen, "cpu") for name, chosen in (("plain", ()), ("offloaded", OFFLOAD))
    )
    assert (plain["rl"] / "logs" / "metrics.csv").read_text() == (offloaded["rl"] / "logs" / "metrics.csv").read_text()
    weights = [load_file(one["rl"] / "part" / "model.safetensors") for one in (plain, offloaded)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    pd.testing.assert_frame_equal(*(pd.read_parquet(one["rl"] / "rollouts") for one in (plain, offloaded)))


@pytest.mark.gpu
def test_on_a_gpu_the_parts_take_turns(tmp_path: Path, warm: Path) -> None:
    done = run_watched(tmp_path, warm, OFFLOAD, "cuda")
    assert done["places"] == {"draw": {("cuda", "cpu", "cpu")}, "score": {("cpu", "cuda", "cpu")}}
    parts: RlParts = done["parts"]
    assert devices(parts.generator) == devices(list(parts.rewards)) == devices(parts.model.decoder) == {"cpu"}
