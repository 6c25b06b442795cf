"""Reinforcement learning of the decoder: behind a frozen encoder, by adapters, and alone, as the paper's peers do."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from made_rl import GROUP, LOOP, VALUE, finished_rl, make_parts, make_peer, rl_settings, warm_up, warm_up_peer
from safetensors.torch import load_file
from test_rl import log_rows

from prip.errors import CheckpointError, InputError, PripError
from prip.fingerprints import fingerprint
from prip.processing import PripProcessor
from prip.refiner import Refiner
from prip.training.rl import stage as rl
from prip.training.rl.parts import RlParts, load_parts
from prip.training.settings import DecoderSettings, LoraSettings
from prip.training.warmup import decoder
from prip.training.warmup.decoder import add_adapters

KINDS = ("behind an encoder", "adapters", "alone")


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A run with an encoder and a decoder."""
    return warm_up(tmp_path_factory.mktemp("warm"), data)


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A run with a decoder that reads no pivot."""
    return warm_up_peer(tmp_path_factory.mktemp("peer"), data)


def parts_of(kind: str, warm: Path, peer: Path) -> RlParts:
    if kind == "alone":
        return make_peer(peer)
    parts = make_parts(warm)
    if kind == "adapters":
        with torch.random.fork_rng():
            torch.manual_seed(0)
            add_adapters(parts.model.decoder, LoraSettings(rank=2))
        parts.model.decoder.eval()
    return parts


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, warm: Path, peer: Path) -> dict[str, Any]:
    """A finished run of each kind: its folder, its parts, and what they were before."""
    runs = {}
    for kind in KINDS:
        folder, parts = tmp_path_factory.mktemp("run"), parts_of(kind, warm, peer)
        before = copy.deepcopy(parts)
        metrics = rl.run(rl_settings(folder, ppo=GROUP, learns="decoder"), parts)
        runs[kind] = {"rl": folder / "rl", "parts": parts, "before": before, "metrics": metrics}
    return runs


@pytest.mark.parametrize("kind", KINDS)
def test_the_decoder_alone_moves(finished: dict[str, Any], kind: str) -> None:
    now, before = finished[kind]["parts"], finished[kind]["before"]
    assert fingerprint(now.generator) == fingerprint(before.generator)
    assert [fingerprint(one) for one in now.rewards] == [fingerprint(one) for one in before.rewards]
    if kind == "alone":
        assert now.model.encoder is None
    else:
        assert fingerprint(now.model.encoder) == fingerprint(before.model.encoder)
    weights = dict(now.model.decoder.named_parameters())
    moved = {name for name, value in before.model.decoder.named_parameters() if not torch.equal(value, weights[name])}
    own = {
        "behind an encoder": set(weights),
        "adapters": {name for name in weights if ".lora_" in name or name.startswith("projection.")},
        "alone": {name for name in weights if name.startswith("lm.")},
    }[kind]
    assert moved == own
    assert finished[kind]["metrics"]["trained_parameters"] == sum(weights[name].numel() for name in own)


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_kl_is_nothing(finished: dict[str, Any], kind: str) -> None:
    first, *rows = log_rows(finished[kind]["rl"])
    assert first["step"] == "-1" and float(first["dev_kl"]) == 0 and len(rows) == LOOP.steps
    assert abs(float(rows[0]["kl"])) < 1e-5 < 1e-4 < abs(float(rows[-1]["kl"]))
    best = finished[kind]["metrics"]["best"]["dev_reward"]
    assert best >= float(first["dev_reward"]) * (1 - 1e-5), "the log has six digits"


@pytest.mark.parametrize("kind", KINDS)
def test_the_refiner_is_a_whole_checkpoint(finished: dict[str, Any], kind: str) -> None:
    folder, parts = finished[kind]["rl"], finished[kind]["parts"]
    refiner = Refiner.from_pretrained(folder / "refiner", device="cpu")
    prompts = list(parts.dev_prompts)
    assert all(text.startswith(f"{one}, ") for one, text in zip(prompts, refiner.refine(prompts), strict=True))
    assert (folder / "refiner" / "encoder").is_dir() == (kind != "alone") == (refiner.model.encoder is not None)
    name = "adapter/adapter_model.safetensors" if kind == "adapters" else "model.safetensors"
    exported, stored = load_file(folder / "part" / name), load_file(folder / "refiner" / "decoder" / name)
    assert exported.keys() == stored.keys() and all(torch.equal(exported[key], stored[key]) for key in exported)
    record = json.loads((folder / "refiner" / "training.json").read_text())
    assert record["stages"]["rl"]["settings"]["learns"] == "decoder"


def test_rollouts_are_made_by_the_present_weights(peer: Path, tmp_path: Path) -> None:
    """Decoding has a fast path of its own: what it takes greedily is what the decoder's scores say is likeliest."""
    settings = rl_settings(tmp_path, learns="decoder", ppo=VALUE)
    module = rl.build_module(make_peer(peer), settings, tmp_path / "rl")
    prompts, learner = list(module.context.train_prompts), module.context.learner
    before = [one.actions for one in module.context.policy.refine(prompts)]
    with torch.no_grad():
        for value in filter(lambda one: one.requires_grad, learner.parameters()):
            value += 0.3 * value.std() * torch.randn(value.shape, generator=torch.Generator().manual_seed(1))
    refinements = module.context.policy.refine(prompts)
    assert [one.actions for one in refinements] != before
    batch = module.context.policy.collate(refinements)
    likeliest = {}
    for name, part in {"present": learner, "reference": module.context.reference}.items():
        logits = module.context.policy.action_logits(part, batch)[0].masked_fill(~batch.allowed, -torch.inf)
        likeliest[name] = logits.argmax(dim=-1)[batch.mask] == batch.actions[batch.mask]
    assert likeliest["present"].all() and not likeliest["reference"].all()


def test_a_killed_run_resumes_to_the_same_weights(tmp_path: Path, peer: Path) -> None:
    rl.run(rl_settings(tmp_path / "whole", ppo=VALUE, learns="decoder"), make_peer(peer))
    script = f"""
import os, signal, sys
sys.path[:0] = {[str(Path(__file__).parent)]}
from pathlib import Path
from made_rl import make_peer, rl_settings, VALUE
from prip.training.rl import stage as rl
real = rl.RlModule.learn
def learn(self, experience, iteration):
    if iteration == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, experience, iteration)
rl.RlModule.learn = learn
rl.run(rl_settings(Path({str(tmp_path / "cut")!r}), ppo=VALUE, learns="decoder"), make_peer(Path({str(peer)!r})))
"""
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    killed = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    rl.run(rl_settings(tmp_path / "cut", ppo=VALUE, learns="decoder", resume=True), make_peer(peer))
    whole, cut = tmp_path / "whole" / "rl", tmp_path / "cut" / "rl"
    weights = [load_file(folder / "part" / "model.safetensors") for folder in (whole, cut)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert (whole / "logs" / "metrics.csv").read_text() == (cut / "logs" / "metrics.csv").read_text()
    pd.testing.assert_frame_equal(pd.read_parquet(whole / "rollouts"), pd.read_parquet(cut / "rollouts"))


def test_a_frozen_encoder_that_moves_is_found_out(tmp_path: Path, warm: Path) -> None:
    parts = make_parts(warm)
    real = parts.rewards[0]

    def sabotage(*given: Any) -> torch.Tensor:
        with torch.no_grad():
            parts.model.encoder.projection.bias[0] += 1e-3
        return real(*given)

    sabotage.name = real.name  # type: ignore[attr-defined]
    settings = rl_settings(tmp_path, learns="decoder", loop=replace(LOOP, steps=1))
    with pytest.raises(PripError, match="frozen parts changed during training: encoder"):
        rl.run(settings, replace(parts, rewards=[sabotage, *parts.rewards[1:]]))


def test_where_there_is_no_encoder_none_can_learn(tmp_path: Path, peer: Path) -> None:
    kept = finished_rl(tmp_path)
    with pytest.raises(InputError, match="learns: expected decoder for a decoder that reads no pivot"):
        rl.run(rl_settings(tmp_path, overwrite=True), make_peer(peer))
    assert kept.exists()


def test_no_encoder_is_loaded_for_a_decoder_that_reads_no_pivot(tmp_path: Path, peer: Path, warm: Path) -> None:
    (tmp_path / "parts" / "prompts").mkdir(parents=True)
    rows = [("a cat in a park", "train"), ("a dog in a park", "dev")]
    table = pd.DataFrame(rows, columns=["user_prompt", "split"])
    table.to_parquet(tmp_path / "parts" / "prompts" / "user_prompts.parquet")
    settings = rl_settings(tmp_path, learns="decoder")
    (tmp_path / "decoder").symlink_to(warm / "decoder")
    with pytest.raises(CheckpointError, match=r"encoder/part is missing: run `prip-train encoder` first"):
        load_parts(settings)
    (tmp_path / "decoder").unlink()
    (tmp_path / "decoder").symlink_to(peer / "decoder")
    with pytest.raises(CheckpointError, match="generator"):
        load_parts(settings)


def test_the_warmed_up_peer_is_a_refiner(peer: Path, data: Path) -> None:
    refiner = Refiner.from_pretrained(peer / "decoder" / "refiner", device="cpu")
    assert refiner.model.encoder is None and refiner.processor.encoder_tokenizer is None
    text = refiner.refine("a cat in a park")
    assert text.startswith("a cat in a park, ") and len(text.split(", ")) >= 2
    metrics = json.loads((peer / "decoder" / "metrics.json").read_text())
    assert metrics["best"]["dev_modifier_loss"] < 2 and "dev_pivot_gain" not in metrics["best"]


def test_a_refiner_without_an_encoder_comes_back_equal(peer: Path, tmp_path: Path) -> None:
    refiner = Refiner.from_pretrained(peer / "decoder" / "refiner", device="cpu")
    refiner.save_pretrained(tmp_path)
    assert not (tmp_path / "encoder").exists()
    again = Refiner.from_pretrained(tmp_path, device="cpu")
    assert again.refine("a cat in a park") == refiner.refine("a cat in a park")
    (tmp_path / "decoder" / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match="tokenizer.json is missing"):
        Refiner.from_pretrained(tmp_path, device="cpu")


def test_an_encoder_that_is_wanted_must_be_there(peer: Path, warm: Path, tmp_path: Path) -> None:
    whole = make_parts(warm)
    with pytest.raises(InputError, match="there is no encoder, the decoder reads pivots"):
        type(whole.model)(None, whole.model.decoder)
    alone = make_peer(peer)
    with pytest.raises(CheckpointError, match="encoder: expected both a model and a tokenizer, or neither"):
        Refiner(alone.model, PripProcessor(whole.processor.encoder_tokenizer, alone.processor.decoder_tokenizer))
    Refiner(whole.model, whole.processor).save_pretrained(tmp_path)
    for file in (tmp_path / "encoder").iterdir():
        file.unlink()
    (tmp_path / "encoder").rmdir()
    with pytest.raises(CheckpointError, match="encoder is missing"):
        Refiner.from_pretrained(tmp_path, device="cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"algorithm": "grpo"}, "algorithm: expected ppo for learns: decoder, got grpo"),
        ({"strategy": "deepspeed-2"}, "strategy: expected auto or ddp for learns: decoder, got deepspeed-2"),
        ({"offload": ("generator", "decoder")}, "offload: expected no decoder for learns: decoder, got generator, dec"),
    ],
)
def test_settings_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        rl_settings(Path("r"), learns="decoder", **options)


def test_rewrites_go_without_pivots(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pivot: expected none where rewrites is given, got image"):
        DecoderSettings(run=tmp_path, rewrites=tmp_path / "rewrites.parquet")
    settings = DecoderSettings(run=tmp_path, rewrites=tmp_path / "rewrites.parquet", pivot="none")
    with pytest.raises(CheckpointError, match=r"rewrites: expected a table .*rewrites.parquet"):
        decoder.run(settings)
    pd.DataFrame({"system_prompt": ["a cat"], "split": ["train"]}).to_parquet(settings.rewrites)
    with pytest.raises(CheckpointError, match="missing columns: user_prompt"):
        decoder.run(settings)
