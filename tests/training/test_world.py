"""The world's parts: an interrupted one goes on as if it had not been, and each learns what it should."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from prip.files import hash_of
from prip.loading.folders import whole_folder
from prip.miniature.preference import preference_table
from prip.miniature.prompts import combinations
from prip.miniature.scene import parse
from prip.miniature.vocabulary import PLACES, SUBJECTS
from prip.training.cli.command import main, parse_settings
from prip.training.data.diffusiondb import SCHEMA
from prip.training.data.rewrites import rewrites_of_sessions
from prip.training.data.sessions import find_sessions, read_log
from prip.training.settings import LoopSettings, WorldSettings
from prip.training.world.generator import GeneratorPart, held_out_prompts
from prip.training.world.log import write_log
from prip.training.world.renders import OPEN, make_renders, requested
from prip.training.world.rewards import OPEN_PLACE, RewardPart

FLAGS = ("--config", "smoke", "--no_progress")


def world(run: Path, parts: str, *flags: str) -> int:
    return main(["world", *FLAGS, "--run", str(run), f"--parts=[{parts}]", *flags])


def test_an_interrupted_generator_resumes_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert world(whole, "text_encoder,generator") == 0
    step_of = GeneratorPart.training_step

    def interrupted(self: GeneratorPart, batch: list[int], step: int) -> torch.Tensor:
        if step == 6:
            raise RuntimeError("the power went")
        return step_of(self, batch, step)

    with monkeypatch.context() as patch:
        patch.setattr(GeneratorPart, "training_step", interrupted)
        with pytest.raises(RuntimeError, match="power"):
            world(cut, "text_encoder,generator")
    assert (cut / "world" / "generator" / "state" / "last.ckpt").is_file()
    assert world(cut, "text_encoder,generator", "--resume") == 0
    weights = [
        load_file(run / "world" / "generator" / "part" / "unet" / "diffusion_pytorch_model.safetensors")
        for run in (whole, cut)
    ]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_finished_part_is_kept_only_under_the_settings_it_was_made_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert world(tmp_path, "text_encoder") == 0
    assert world(tmp_path, "text_encoder", "--resume") == 0
    assert world(tmp_path, "text_encoder", "--resume", "--unet.text_width=16") == 2
    assert "text_width" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--unet.patch_size=6", "unet.patch_size: expected a power of two, got 6"),
        ("--unet.latent_channels=4000", "unet.latent_channels: expected at most"),
        ("--unet.channels=[24]", "unet.channels: expected multiples of 16"),
        ("--unet.channels=[16,16,16,16,16]", "unet.channels: expected at most as many levels"),
        ("--unet.text_width=30", "unet.text_width: expected a multiple"),
        ("--trunk_width=40", "trunk_width: expected a multiple of 16"),
        ("--label_noise=0", "label_noise: expected a number above 0"),
        ("--image_size=36", "image_size: expected a multiple of 8"),
    ],
)
def test_sizes_that_cannot_be_built_are_told_at_once(
    flag: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert world(tmp_path, "text_encoder", flag) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_text_encoder_is_frozen_while_the_generator_learns(tmp_path: Path) -> None:
    assert world(tmp_path, "text_encoder,generator") == 0
    folder = tmp_path / "world"
    before = load_file(folder / "text_encoder" / "part" / "model.safetensors")
    after = load_file(folder / "generator" / "part" / "text_encoder" / "model.safetensors")
    assert before and all(torch.equal(before[name], after[name]) for name in before)


def test_a_part_that_is_needed_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert world(tmp_path, "generator") == 2
    assert "expected text_encoder to be trained first" in capsys.readouterr().err
    assert not (tmp_path / "parts").exists(), "a refused command leaves nothing behind"


def test_renders_are_a_function_of_their_key() -> None:
    first, second = (make_renders(20, 32, "key", 1) for _ in range(2))
    assert first.captions == second.captions and torch.equal(first.images, second.images)
    assert not torch.equal(first.images, make_renders(20, 32, "key", 2).images)
    asked = requested(first.captions)
    assert ((asked == OPEN) | (asked == first.scenes)).all(), "an image shows what its caption asks for"


def test_no_user_prompt_of_the_test_split_trains_a_reward(tmp_path: Path) -> None:
    assert world(tmp_path, "trunk") == 0
    settings = WorldSettings(run=tmp_path, renders=2000, reward_loop=LoopSettings(steps=2))
    settings = replace(settings, trunk_width=parse_settings("world", [*FLAGS, f"--run={tmp_path}"]).trunk_width)
    part = RewardPart("mini-reward", settings, begins_with="trunk")
    held_back = {(SUBJECTS.index(s), PLACES.index(p)) for s, p in combinations("test")}
    assert not {parse(prompt).values[:2] for prompt in part.prompts} & held_back
    prompts, first, second = part.pairs(part.renders, 4000, 1)
    asked, shown = part.asked[prompts], part.renders.scenes
    assert (asked[:, 0] == shown[first, 0]).all()
    named = asked[:, 1] != OPEN_PLACE
    assert named.float().mean() > 0.5 and (asked[named, 1] == shown[first[named], 1]).all()
    assert 0.55 < (shown[second, 0] == asked[:, 0]).float().mean() < 0.7, "some second images show another subject"


def test_the_log_is_of_users_who_change_their_prompts(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_log(tmp_path / name, 60, 4, seed)
    tables = [pq.read_table(tmp_path / name / "metadata.parquet") for name in "abc"]
    assert tables[0].schema.equals(SCHEMA) and tables[0].equals(tables[1]) and not tables[0].equals(tables[2])
    log, counts = read_log(tmp_path / "a" / "metadata.parquet")
    assert counts["no_time"] == 0 and 50 < log["user_name"].nunique() <= 60
    held_back = {(SUBJECTS.index(s), PLACES.index(p)) for split in ("dev", "test") for s, p in combinations(split)}
    assert not {parse(prompt).values[:2] for prompt in log["prompt"]} & held_back
    sessions = find_sessions(log, 30, 0.5)
    counts = rewrites_of_sessions(sessions)[2]
    assert 200 < counts["sessions"] < 300 and counts["extended"] > 100 and counts["carried"] > 10
    assert all(counts[kind] > 0 for kind in ("single", "unchanged"))


def test_users_of_the_log_have_a_taste_and_some_of_it_is_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mean worth of the modifiers in all prompts, where .45 is that of a value at random."""
    worth = {}
    for share in (0.0, 0.5, 1.0):
        monkeypatch.setattr("prip.training.world.log.FOLLOWERS", share)
        write_log(tmp_path / str(share), 80, 4, 0)
        asked = requested(pd.read_parquet(tmp_path / str(share) / "metadata.parquet")["prompt"].tolist())
        table = preference_table()[asked[:, 0]]
        chosen = asked[:, 2:] != OPEN
        values = table.gather(2, asked[:, 2:].clamp(min=0).unsqueeze(2)).squeeze(2)
        worth[share] = values[chosen].mean().item()
    assert worth[0.0] == pytest.approx(0.45, abs=0.04)
    assert worth[0.0] + 0.03 < worth[0.5] < worth[1.0] - 0.03 < 0.65


def test_obedience_asks_for_every_subject() -> None:
    asked = requested(held_out_prompts(200))
    assert len(set(asked[:, 0].tolist())) == len(SUBJECTS) and (asked[:, :2] != OPEN).all()


def test_the_parts_of_a_checkpoint_stand_for_trained_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    command = ["world", *FLAGS, "--run", str(run), "--checkpoint", "prip-mini"]
    assert main(command) == 0
    source = whole_folder("prip-mini")
    record = json.loads((run / "world" / "checkpoint" / "metrics.json").read_text())
    for part in ("generator", "pivot_encoder", "rewards", "readers"):
        assert hash_of(run / "parts" / part) == hash_of(source / part) == record["sha256"][part]
    assert record["checkpoint"] == "prip-mini" and record["obedience"]["subject"] > 0.9
    assert {path.stem for path in (run / "parts" / "prompts").glob("*.parquet")} == {"user_prompts", "system_prompts"}
    capsys.readouterr()
    assert main(command) == 2 and "add --resume" in capsys.readouterr().err
    assert main([*command, "--resume"]) == 0
    assert main([*command, "--resume", "--system_prompts=9"]) == 2
    assert "system_prompts was 120, is 9" in capsys.readouterr().err


def test_a_run_has_its_parts_from_one_origin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained, taken = tmp_path / "trained", tmp_path / "taken"
    assert world(trained, "text_encoder") == 0
    assert main(["world", *FLAGS, "--run", str(trained), "--checkpoint", "prip-mini"]) == 2
    assert "got text_encoder in" in capsys.readouterr().err and not (trained / "parts" / "generator").exists()
    assert main(["world", *FLAGS, "--run", str(taken), "--checkpoint", "prip-mini"]) == 0
    assert world(taken, "text_encoder", "--overwrite") == 2
    assert "expected one without parts of a checkpoint" in capsys.readouterr().err
    assert world(tmp_path / "both", "text_encoder", "--checkpoint=prip-mini") == 2
    assert "parts, checkpoint: expected one of them at most" in capsys.readouterr().err


def test_a_checkpoint_that_lacks_a_part_or_is_broken_leaves_no_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, broken = tmp_path / "run", tmp_path / "broken"
    shutil.copytree(whole_folder("prip-mini"), broken)
    (broken / "rewards" / "mini-hps" / "model.safetensors").write_bytes(b"x" * 100)
    assert main(["world", *FLAGS, "--run", str(run), f"--checkpoint={broken}"]) == 1
    assert "mini-hps" in capsys.readouterr().err
    shutil.rmtree(broken / "readers")
    (broken / "generator" / "obedience.json").unlink()
    assert main(["world", *FLAGS, "--run", str(run), f"--checkpoint={broken}"]) == 1
    assert "without readers, generator/obedience.json" in capsys.readouterr().err
    assert main(["world", *FLAGS, "--run", str(run), "--checkpoint=prip-mega"]) == 1
    assert "unknown checkpoint 'prip-mega'" in capsys.readouterr().err and not run.exists()
