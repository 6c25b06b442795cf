"""Encoder and decoder in two gloo processes: the same losses and weights as in one, and one resumes what two saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from processes import run_script
from safetensors.torch import load_file
from stage_jobs import STAGES, cut_stage, logged, train_stage

from prip.errors import InputError
from prip.training.warmup import encoder

pytestmark = pytest.mark.slow
STRATEGIES = ["ddp", "deepspeed-2", "deepspeed-3"]
OPTIONAL = {"padding_share"}  # each process pads its own share


JOB = """
from pathlib import Path
from stage_jobs import STAGES, cut_stage, train_stage

if __name__ == "__main__":
    folder, data, two = Path({folder!r}), Path({data!r}), {{"devices": 2, "strategy": {strategy!r}}}
    for stage in STAGES:
        train_stage(stage, folder / "whole", data, **two, loop={{"batch_size": 4}})
        train_stage(stage, folder / "accumulated", data, **two, loop={{"batch_size": 2, "accumulate": 2}})
        for name in ("resumed", "cut"):
            cut_stage(stage, folder / name, data, **two, loop={{"batch_size": 4}}, at=4)
        train_stage(stage, folder / "resumed", data, **two, loop={{"batch_size": 4}}, resume=True)
"""


@pytest.fixture(scope="module", params=STRATEGIES)
def two(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A folder of runs in two processes with one strategy."""
    folder = tmp_path_factory.mktemp(request.param)
    run_script(folder, JOB.format(folder=str(folder), data=str(data), strategy=request.param))
    return folder


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A folder of both stages, run in one process."""
    run = tmp_path_factory.mktemp("one")
    for stage in STAGES:
        train_stage(stage, run, data)
    return run


def assert_same_run(one: Path, other: Path, stage: str) -> None:
    """Asserts that the logs and the parts of two runs agree to 1e-5."""
    rows = logged(one, stage), logged(other, stage)
    assert len(rows[0]) == len(rows[1]) == 6
    for mine, theirs in zip(*rows, strict=True):
        assert mine.keys() == theirs.keys() and {"loss", "gradient_norm"} <= mine.keys()
        for name in mine.keys() - OPTIONAL:
            assert theirs[name] == pytest.approx(mine[name], rel=1e-5, abs=1e-5), (mine["step"], name)
    parts = [load_file(run / stage / "part" / "model.safetensors") for run in (one, other)]
    assert parts[0].keys() == parts[1].keys()
    for name, value in parts[0].items():
        assert torch.allclose(value, parts[1][name], rtol=0, atol=1e-5), name


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", ["whole", "accumulated", "resumed"])
def test_two_processes_learn_what_one_does(one: Path, two: Path, stage: str, name: str) -> None:
    assert_same_run(one, two / name, stage)


@pytest.mark.parametrize("stage", STAGES)
def test_one_process_resumes_what_two_saved(one: Path, two: Path, data: Path, stage: str) -> None:
    run = two / "cut"
    saved = load_file(run / stage / "part" / "model.safetensors")
    assert not (run / stage / "metrics.json").exists()
    cut_stage(stage, run, data, resume=True, at=4)
    checkpoint = torch.load(run / stage / "state" / "last.ckpt", weights_only=True)
    (loop,) = (state for name, state in checkpoint["callbacks"].items() if name.startswith("StageLoop"))
    assert loop["steps_done"] == loop["best_step"] == 4  # the part is of the same step
    for name, value in saved.items():
        assert torch.equal(value, checkpoint["state_dict"][f"{stage}.{name}"]), name
    train_stage(stage, run, data, resume=True)
    assert_same_run(one, run, stage)


def test_a_run_of_deepspeed_is_resumed_as_it_was_or_without(two: Path, data: Path) -> None:
    if two.name.startswith("ddp"):
        pytest.skip("ddp writes what any number of processes reads")
    cut_stage("encoder", two / "other", data, strategy="deepspeed-2", at=4)
    with pytest.raises(InputError, match="devices, strategy: expected 1 devices with deepspeed-2, which wrote"):
        train_stage("encoder", two / "other", data, strategy="deepspeed-3", resume=True)


def test_deepspeed_is_given_16_bits_where_it_makes_32_of_them(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bf16-mixed; the losses are those of a module that holds 32 bits itself."""
    build, configure = encoder.build_encoder, encoder.EncoderModule.configure_optimizers
    seen: dict[str, set[torch.dtype]] = {}

    def build_in_16_bits(*given: Any) -> Any:
        model, tokenizer = build(*given)
        return model.bfloat16(), tokenizer

    def configure_optimizers(self: Any) -> Any:
        seen[type(self.trainer.strategy).__name__] = {value.dtype for value in self.trained}
        return configure(self)

    monkeypatch.setattr(encoder, "build_encoder", build_in_16_bits)
    monkeypatch.setattr(encoder.EncoderModule, "configure_optimizers", configure_optimizers)
    losses = []
    for strategy in ("auto", "deepspeed-2"):
        train_stage("encoder", tmp_path / strategy, data, strategy=strategy, loop={"precision": "bf16-mixed"})
        losses.append([row["loss"] for row in logged(tmp_path / strategy, "encoder")])
    assert seen == {"SingleDeviceStrategy": {torch.float32}, "CpuZeroStrategy": {torch.bfloat16}}
    assert losses[1] == pytest.approx(losses[0], rel=0.03)
