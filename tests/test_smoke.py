"""All of PRIP from nothing: every stage by its command at the smoke preset, then the checkpoint that comes out."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
from hub_server import WRITER, serving, stand_in

pytest.importorskip("diffusers", reason="the train extra is not installed")
STAGES = ("world", "prepare", "encoder", "decoder", "rl")


@pytest.fixture(scope="module")
def smoke_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A finished smoke run, and the seconds that it took."""
    from prip.training.cli.command import main

    run = tmp_path_factory.mktemp("smoke") / "run"
    began = time.monotonic()
    for stage in STAGES:
        assert main([stage, "--config", "smoke", "--run", str(run), "--no_progress"]) == 0, stage
    assert main(["export", "--run", str(run), "--to", str(run / "checkpoint")]) == 0
    return run, time.monotonic() - began


def test_smoke_takes_less_than_90_seconds(smoke_run):
    assert smoke_run[1] < 90


def test_world_prints_and_stores_obedience(smoke_run):
    shares = json.loads((smoke_run[0] / "parts" / "generator" / "obedience.json").read_text())
    assert set(shares) == {"subject", "place", "light", "color", "style", "focus", "composition"}
    assert all(0 <= share <= 1 for share in shares.values())


def test_world_is_not_trained_again_on_resume(smoke_run):
    from prip.training.cli.command import main

    file = smoke_run[0] / "world" / "generator" / "metrics.json"
    before = file.stat().st_mtime_ns
    command = ["world", "--config", "smoke", "--run", str(smoke_run[0]), "--no_progress"]
    assert main([*command, "--resume"]) == 0
    assert file.stat().st_mtime_ns == before
    assert main(command) == 2


def test_the_checkpoint_refines_and_says_how_it_was_made(smoke_run):
    from prip.refiner import Refiner

    folder = smoke_run[0] / "checkpoint"
    refined = Refiner.from_pretrained(str(folder / "refiner")).refine("a cat")
    assert refined.startswith("a cat, ")
    record = json.loads((folder / "training.json").read_text())
    assert set(record["stages"]) >= {"prepare", "encoder", "decoder", "rl", "world/generator"}
    assert "golden hour" in (folder / "README.md").read_text()
    assert not [path for path in folder.rglob("*") if path.suffix in (".bin", ".pt", ".ckpt", ".pkl")]


def test_the_checkpoint_is_published_whole(smoke_run, tmp_path, monkeypatch, caplog):
    from prip.loading.folders import resolve_folder
    from prip.training.cli.command import main

    folder = smoke_run[0] / "checkpoint"
    with serving() as hub:
        stand_in(hub, tmp_path, monkeypatch)
        monkeypatch.setenv("HF_TOKEN", WRITER)
        command = ["export", "--run", str(smoke_run[0]), "--to", str(tmp_path / "again")]
        assert main([*command, "--push_to_hub", "someone/whole"]) == 0
        assert caplog.messages[-1].endswith(f"to try it: prip refine 'a cat' --model {tmp_path / 'again'}")
        whole = resolve_folder("someone/whole")
        taken = ["world", "--config", "smoke", "--run", str(tmp_path / "run"), "--checkpoint", "someone/whole@main"]
        assert main(taken) == 0
    files = [{path.relative_to(top) for path in top.rglob("*") if path.is_file()} for top in (folder, whole)]
    assert files[0] == files[1]
    assert not hub.repositories["someone/whole"].private
    networks = [place / "pivot_encoder" / "model.safetensors" for place in (folder, tmp_path / "run" / "parts")]
    assert networks[0].read_bytes() == networks[1].read_bytes()


def test_the_checkpoint_draws_and_judges_as_its_run_does(smoke_run):
    from prip.generators import load_generator
    from prip.miniature.judges import load_judges

    prompts, seeds = ["a cat, golden hour", "one robot in town"] * 8, list(range(16))
    drawn, scored = [], []
    for parts in (smoke_run[0] / "parts", smoke_run[0] / "checkpoint"):
        drawn.append(load_generator(str(parts / "generator"), device="cpu")(prompts, seeds).int())
        judges = load_judges(parts / "readers", device="cpu")
        scored.append([judge(prompts, drawn[0].to(torch.uint8)) for judge in judges])
    assert (drawn[0] - drawn[1]).abs().float().mean() < 2, "fp16 moves a pixel by a shade"
    for run_scores, checkpoint_scores in zip(*scored, strict=True):
        torch.testing.assert_close(run_scores, checkpoint_scores, rtol=0.02, atol=0.02)


def test_the_checkpoint_gives_its_frozen_parts_to_another_run(smoke_run, tmp_path):
    from prip.inference.cli import main as prip
    from prip.training.cli.command import main

    source, run = smoke_run[0] / "checkpoint", tmp_path / "run"
    assert main(["world", "--config", "smoke", "--run", str(run), "--checkpoint", str(source)]) == 0
    for stage in STAGES[1:]:
        assert main([stage, "--config", "smoke", "--run", str(run), "--no_progress"]) == 0, stage
    assert prip(["evaluate", "--config", "smoke", "--run", str(run), "--out", str(run / "evaluation"), "--quiet"]) == 0
    assert main(["export", "--run", str(run), "--to", str(run / "checkpoint")]) == 0
    record = json.loads((run / "checkpoint" / "training.json").read_text())
    assert {row["refiner"] for row in record["evaluation"]["rows"]} == {"none", "random", "warmup", "rl", "best"}
    assert list(record["stages"]) == ["world/checkpoint", "prepare", "encoder", "decoder", "rl"]
    assert record["stages"]["world/checkpoint"]["settings"]["checkpoint"] == "checkpoint", "its name, not its path"
    for part in ("unet/diffusion_pytorch_model", "text_encoder/model"):
        name = f"generator/{part}.safetensors"
        assert (run / "checkpoint" / name).read_bytes() == (source / name).read_bytes()


def test_the_checkpoint_is_in_fp16(smoke_run):
    from safetensors import safe_open

    files = sorted((smoke_run[0] / "checkpoint").rglob("*.safetensors"))
    assert len(files) >= 11
    for file in files:
        with safe_open(file, "pt") as tensors:
            kinds = {tensors.get_slice(key).get_dtype() for key in tensors.keys()}  # noqa: SIM118
        assert kinds <= {"F16", "I64"}, file
