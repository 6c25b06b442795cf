"""What makes a stage fit a machine must not change what it learns: accumulation, recomputation, 16 bits, buckets."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from stage_jobs import LLAMA, STAGES, T5, cut_stage, logged, train_stage
from torch import nn

from prip.errors import InputError
from prip.modeling import PreferenceEncoder, PromptDecoder
from prip.training.data.pairs import read_preferred_images, read_system_prompts
from prip.training.engine.loop import train
from prip.training.engine.optimizers import checkpoint_activations
from prip.training.engine.stage_module import StageModule
from prip.training.settings import (
    EncoderSettings,
    LoopSettings,
    OptimizerSettings,
    RlSettings,
    RunSettings,
    TrainSettings,
)
from prip.training.warmup.decoder import build_decoder
from prip.training.warmup.encoder import build_encoder


def part(run: Path, stage: str) -> dict[str, torch.Tensor]:
    return load_file(run / stage / "part" / "model.safetensors")


@pytest.mark.parametrize("stage", STAGES)
def test_batch_times_accumulation_leaves_the_steps_unchanged(tmp_path: Path, data: Path, stage: str) -> None:
    train_stage(stage, tmp_path / "whole", data)
    train_stage(stage, tmp_path / "parts", data, loop={"batch_size": 2, "accumulate": 4})
    for whole, parts in zip(logged(tmp_path / "whole", stage), logged(tmp_path / "parts", stage), strict=True):
        assert whole.keys() == parts.keys()
        for name in whole.keys() - {"padding_share"}:
            assert parts[name] == pytest.approx(whole[name], rel=1e-5, abs=1e-6), (whole["step"], name)
    whole, parts = part(tmp_path / "whole", stage), part(tmp_path / "parts", stage)
    assert all(torch.allclose(value, parts[name], rtol=0, atol=1e-5) for name, value in whole.items())


def test_an_accumulating_run_may_be_resumed_with_other_batches(tmp_path: Path, data: Path) -> None:
    train_stage("decoder", tmp_path / "whole", data, bucket_window=3)
    loop = {"batch_size": 4, "accumulate": 2}
    second_of_the_fifth_step = 9
    cut_stage("decoder", tmp_path / "cut", data, bucket_window=3, loop=loop, at=second_of_the_fifth_step)
    with pytest.raises(InputError, match="devices x loop.accumulate x loop.batch_size was 8, is 4"):
        train_stage("decoder", tmp_path / "cut", data, bucket_window=3, resume=True, loop={"batch_size": 4})
    train_stage("decoder", tmp_path / "cut", data, bucket_window=3, resume=True)
    whole, cut = part(tmp_path / "whole", "decoder"), part(tmp_path / "cut", "decoder")
    assert all(torch.allclose(value, cut[name], rtol=0, atol=1e-5) for name, value in whole.items())


def test_accumulation_is_refused_where_a_stage_makes_its_own_steps(tmp_path: Path) -> None:
    class Manual(StageModule):
        stage = "manual"

        def batch_at(self, step: int) -> None: ...
        def evaluate(self) -> dict[str, float]:
            return {}

        def export(self, folder: Path) -> None: ...

    module = Manual()
    module.automatic_optimization = False
    loop = LoopSettings(accumulate=2)
    with pytest.raises(InputError, match="accumulate: expected 1"):
        train(module, RunSettings(run=tmp_path), loop, tmp_path, monitor="x", mode="min")


class Counted(nn.Module):
    """Counts how often a layer runs."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.calls = 0
        layer.register_forward_pre_hook(self.count)

    def count(self, *_: Any) -> None:
        self.calls += 1


def build(stage: str, data: Path) -> tuple[Any, Any, nn.Module]:
    """Returns a model, a function from it to a loss, and one of its layers."""
    torch.manual_seed(0)
    ids, mask = torch.randint(5, 200, (2, 7)), torch.ones(2, 7, dtype=torch.long)
    if stage == "encoder":
        splits = read_preferred_images(data, "preferred")
        encoder: PreferenceEncoder = build_encoder(None, replace(T5, dropout=0.1), splits)[0]
        return encoder, lambda: encoder(ids, mask).square().mean(), encoder.t5.encoder.block[0].layer[1]
    splits = read_system_prompts(data)
    decoder: PromptDecoder = build_decoder(None, LLAMA, "{pivot}", splits)[0]
    pivot = torch.ones(2, splits.pivots.pivot_length, splits.pivots.pivot_width)
    return decoder, lambda: decoder(pivot, ids, mask).logits.square().mean(), decoder.lm.model.layers[0].mlp


@pytest.mark.filterwarnings("error::FutureWarning")
@pytest.mark.parametrize("stage", STAGES)
def test_gradient_checkpointing_computes_twice_and_gives_the_same(data: Path, stage: str) -> None:
    gradients, calls = [], []
    for checkpointing in (False, True):
        model, loss, layer = build(stage, data)
        counted = Counted(layer)
        if checkpointing:
            checkpoint_activations(model)
        model.train()
        torch.manual_seed(1)
        loss().backward()
        gradients.append({name: value.grad for name, value in model.named_parameters()})
        calls.append(counted.calls)
    assert calls == [1, 2]
    assert all(torch.equal(value, gradients[1][name]) for name, value in gradients[0].items())


@pytest.mark.parametrize("stage", STAGES)
def test_gradient_checkpointing_is_a_setting(tmp_path: Path, data: Path, stage: str) -> None:
    modules = []
    module, kind, _, _ = STAGES[stage]
    real = kind.training_step

    def training_step(self: Any, batch: Any, step: int) -> Any:
        modules.append(any(getattr(part, "gradient_checkpointing", False) for part in self.modules()))
        return real(self, batch, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "training_step", training_step)
        for switch in (False, True):
            train_stage(stage, tmp_path / str(switch), data, gradient_checkpointing=switch, loop={"steps": 1})
    assert modules == [False, True]
    plain, twice = part(tmp_path / "False", stage), part(tmp_path / "True", stage)
    assert all(torch.allclose(value, twice[name], rtol=0, atol=1e-6) for name, value in plain.items())


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_16_bits_come_near_32(tmp_path: Path, data: Path, stage: str, precision: str) -> None:
    train_stage(stage, tmp_path / "32", data)
    train_stage(stage, tmp_path / "16", data, loop={"precision": precision})
    stored = {value.dtype for value in part(tmp_path / "16", stage).values()}
    assert stored == {torch.bfloat16 if precision == "bf16-true" else torch.float32}
    losses = [[row["loss"] for row in logged(tmp_path / bits, stage)] for bits in ("32", "16")]
    assert losses[1] == pytest.approx(losses[0], rel=0.03) and losses[1] != losses[0]


def test_buckets_leave_less_padding_and_the_share_is_told(tmp_path: Path, data: Path, caplog: Any) -> None:
    shares = []
    for window in (0, 1):
        with caplog.at_level("INFO", "prip"):
            loop = {"batch_size": 2, "accumulate": 4}
            metrics = train_stage("decoder", tmp_path / str(window), data, bucket_window=window, loop=loop)
        rows = [row["padding_share"] for row in logged(tmp_path / str(window), "decoder")]
        assert min(rows) <= metrics["padding_share"] <= max(rows)
        assert json.loads((tmp_path / str(window) / "decoder" / "metrics.json").read_text()) == metrics
        assert f"{metrics['padding_share']:.1%} of the input was padding" in caplog.text
        shares.append(metrics["padding_share"])
    assert 0 < shares[1] < shares[0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrainSettings(run=Path("r"), devices=0), "devices: expected at least 1, got 0"),
        (lambda: LoopSettings(accumulate=0), "accumulate: expected at least 1, got 0"),
        (
            lambda: RlSettings(run=Path("r"), loop=LoopSettings(accumulate=2)),
            "accumulate: expected 1 for rl, which takes",
        ),
        (
            lambda: EncoderSettings(
                run=Path("r"), strategy="deepspeed-2", optimizer=OptimizerSettings(name="adafactor")
            ),
            "optimizer.name: expected adamw with strategy: deepspeed-2, got adafactor",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
