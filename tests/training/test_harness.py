"""The shared training loop: exact resume wherever it is cut off, the guard against NaN, the best part, settings."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import yaml
from torch import Tensor, nn

from prip.errors import CheckpointError, InputError, MissingExtraError
from prip.training.cli.command import parse_settings
from prip.training.engine import callbacks
from prip.training.engine.callbacks import NonFiniteError
from prip.training.engine.loop import train
from prip.training.engine.optimizers import build_optimizer, build_scheduler, train_only
from prip.training.engine.stage_module import StageModule
from prip.training.runs.run_folder import stage_folder
from prip.training.runs.seeds import derive_seed, seed_everything
from prip.training.settings import LoopSettings, OptimizerSettings, RunSettings, TrainSettings

STEPS = 7


class Cut(BaseException):
    """Ends a run where it stands; like SIGKILL, nothing that the run does afterwards reaches the disk."""


@dataclass(frozen=True, kw_only=True)
class ToySettings(RunSettings):
    lr: float = 0.05
    loop: LoopSettings = field(
        default_factory=lambda: LoopSettings(
            steps=STEPS, batch_size=4, log_every=1, validate_every=2, checkpoint_every=3
        )
    )


class Toy(StageModule):
    """Linear regression with dropout, Adam and a schedule; the frozen layer is not to be stored."""

    stage = "toy"
    mode: Literal["min", "max"] = "min"
    cut: Callable[[str, int], None] = staticmethod(lambda place, step: None)

    def __init__(self, settings: ToySettings) -> None:
        super().__init__()
        seed_everything(settings.seed, "weights")
        self.settings = settings
        self.frozen, self.linear, self.dropout = nn.Linear(6, 6), nn.Linear(6, 1), nn.Dropout(0.5)
        self.trained = train_only(self, "linear.*")

    def batch_at(self, step: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(derive_seed(self.settings.seed, self.stage, step, self.global_rank))
        inputs = torch.randn(self.settings.loop.batch_size, 6, generator=generator)
        return {"inputs": inputs, "target": inputs.sum(dim=1, keepdim=True)}

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        return (self.linear(self.dropout(self.frozen(batch["inputs"]))) - batch["target"]).square().mean()

    def training_step(self, batch: dict[str, Tensor], step: int) -> Tensor:
        self.cut("step", step)
        loss = self.loss(batch)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        settings = OptimizerSettings(lr=self.settings.lr, warmup_steps=2, schedule="cosine")
        optimizer = build_optimizer(settings, self.trained)
        scheduler = build_scheduler(settings, optimizer, self.settings.loop.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def evaluate(self) -> dict[str, float]:
        assert not self.training and not torch.is_grad_enabled()
        torch.rand(3)  # the dev split must not disturb the training's randomness
        self.cut("evaluate", self.trainer.fit_loop.epoch_loop.batch_idx)
        return {"dev_loss": self.loss(self.batch_at(1000)).item()}

    def export(self, folder: Path) -> None:
        torch.save(self.linear.state_dict(), folder / "linear.pt")
        self.cut("export", self.trainer.fit_loop.epoch_loop.batch_idx)


class ManualToy(Toy):
    """The same under manual optimization, two optimizer steps a training step, as PPO has several.

    Its best is where the dev loss is largest: at the first measurement, which a resumed run must remember.
    """

    mode = "max"

    def __init__(self, settings: ToySettings) -> None:
        super().__init__(settings)
        self.automatic_optimization = False

    def training_step(self, batch: dict[str, Tensor], step: int) -> None:  # type: ignore[override]
        optimizer, scheduler = self.optimizers(), self.lr_schedulers()
        for _ in range(2):
            self.cut("step", step)
            loss = self.loss(batch)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        scheduler.step()
        self.log("loss", loss)


def settings_in(folder: Path, **options: Any) -> ToySettings:
    return ToySettings(run=folder, device="cpu", progress=False, seed=3, **options)


def go(kind: type[Toy], settings: ToySettings) -> tuple[Toy, dict[str, Any]]:
    module = kind(settings)
    folder = stage_folder(settings, module.stage)
    return module, train(module, settings, settings.loop, folder, monitor="dev_loss", mode=kind.mode)


def metrics_rows(folder: Path) -> str:
    return (folder / "toy" / "logs" / "metrics.csv").read_text()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[type[Toy]], tuple[Path, Toy, dict[str, Any]]]:
    """Uninterrupted runs, one for each kind of module."""
    runs: dict[type[Toy], tuple[Path, Toy, dict[str, Any]]] = {}

    def get(kind: type[Toy]) -> tuple[Path, Toy, dict[str, Any]]:
        if kind not in runs:
            folder = tmp_path_factory.mktemp(kind.__name__)
            runs[kind] = (folder, *go(kind, settings_in(folder)))
        return runs[kind]

    return get


def test_the_toys_are_best_at_other_ends(whole: Any) -> None:
    assert whole(Toy)[2]["best_step"] > 3 and whole(ManualToy)[2]["best_step"] == 2


PLACES = [("step", step) for step in range(STEPS)] + [
    ("evaluate", 1),
    ("evaluate", 5),
    ("export", 1),
    ("evaluate", 6),
    ("checkpoint", 2),
    ("checkpoint", 5),
]


@pytest.mark.parametrize("kind", [Toy, ManualToy])
@pytest.mark.parametrize("place", PLACES, ids=lambda place: "-".join(map(str, place)))
def test_a_run_cut_off_anywhere_resumes_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Any, kind: type[Toy], place: tuple[str, int]
) -> None:
    reference, expected, expected_metrics = whole(kind)

    def cut(where: str, step: int) -> None:
        if (where, step) == place:
            raise Cut

    with monkeypatch.context() as patch:
        patch.setattr(kind, "cut", staticmethod(cut))
        if place[0] == "checkpoint":
            written = []

            def half(path: Path, write: Callable[[Path], None]) -> None:
                written.append(path)
                if len(written) == place[1] // 3 + 1:
                    path.parent.mkdir(exist_ok=True)
                    path.with_name(f"{path.name}.tmp").write_bytes(b"half a checkpoint")
                    raise Cut
                real(path, write)

            real = callbacks.replace_file
            patch.setattr(callbacks, "replace_file", half)
        with pytest.raises(Cut):
            go(kind, settings_in(tmp_path))
    assert not (tmp_path / "toy" / "metrics.json").exists()
    found, metrics = go(kind, settings_in(tmp_path, resume=True))
    for name, value in expected.state_dict().items():
        assert torch.equal(value, found.state_dict()[name]), name
    timeless = {name: value for name, value in metrics.items() if name != "seconds"}
    assert timeless == {name: value for name, value in expected_metrics.items() if name != "seconds"}
    best = [torch.load(folder / "toy" / "part" / "linear.pt") for folder in (reference, tmp_path)]
    assert all(torch.equal(best[0][name], best[1][name]) for name in best[0])
    assert metrics_rows(tmp_path) == metrics_rows(reference)


def test_training_moves_what_it_trains_and_nothing_else(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    before = {name: value.clone() for name, value in Toy(settings).state_dict().items()}
    after = go(Toy, settings)[0].state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"linear.weight", "linear.bias"}


def test_metrics_say_which_step_was_best(whole: Any) -> None:
    folder, _, metrics = whole(Toy)
    assert json.loads((folder / "toy" / "metrics.json").read_text()) == metrics
    rows = [line.split(",") for line in metrics_rows(folder).splitlines()]
    losses = {int(row[0]) + 1: float(row[rows[0].index("dev_loss")]) for row in rows[1:] if row[-1]}
    assert sorted(losses) == [2, 4, 6, 7]
    assert metrics["best_step"] == min(losses, key=losses.__getitem__)
    assert metrics["best"]["dev_loss"] == pytest.approx(min(losses.values()), rel=1e-5)
    assert (metrics["trained_parameters"], metrics["parameters"]) == (7, 49)


def test_mode_max_keeps_the_largest(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, lr=0.0)
    values = iter([1.0, 3.0, 2.0, 0.0])

    class Measured(Toy):
        def evaluate(self) -> dict[str, float]:
            return {"dev_reward": next(values)}

    folder = stage_folder(settings, "toy")
    metrics = train(Measured(settings), settings, settings.loop, folder, monitor="dev_reward", mode="max")
    assert (metrics["best_step"], metrics["best"], metrics["last"]) == (4, {"dev_reward": 3.0}, {"dev_reward": 0.0})


def test_the_part_of_every_measurement_is_kept_where_that_is_asked_for(tmp_path: Path, whole: Any) -> None:
    kept = settings_in(tmp_path).loop
    go(Toy, settings_in(tmp_path, loop=replace(kept, keep_parts=True)))
    history = sorted((tmp_path / "toy" / "history").iterdir())
    assert [path.name for path in history] == ["step-000002", "step-000004", "step-000006", "step-000007"]
    parts = [torch.load(path / "linear.pt", weights_only=True)["weight"] for path in history]
    assert len({tuple(part.flatten().tolist()) for part in parts}) == 4
    folder, module, metrics = whole(Toy)
    torch.testing.assert_close(parts[-1], module.linear.weight.detach(), rtol=0, atol=0)
    best = torch.load(folder / "toy" / "part" / "linear.pt", weights_only=True)["weight"]
    assert torch.equal(parts[[2, 4, 6, 7].index(metrics["best_step"])], best)
    assert not (folder / "toy" / "history").exists()


def test_frozen_parameters_are_left_out_of_the_checkpoint(whole: Any) -> None:
    folder, _, _ = whole(Toy)
    checkpoint = torch.load(folder / "toy" / "state" / "last.ckpt", weights_only=True)
    assert set(checkpoint["state_dict"]) == {"linear.weight", "linear.bias"}


def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(where: str, step: int) -> None:
        if step == 5:
            raise Cut

    with monkeypatch.context() as patch, pytest.raises(Cut):
        patch.setattr(Toy, "cut", staticmethod(cut))
        go(Toy, settings_in(tmp_path))
    path = tmp_path / "toy" / "state" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["state_dict"]["linear.bias"]
    torch.save(checkpoint, path)
    with pytest.raises(CheckpointError, match="linear.bias"):
        go(Toy, settings_in(tmp_path, resume=True))


@pytest.mark.parametrize("kind", [Toy, ManualToy])
@pytest.mark.parametrize("what", ["loss", "gradient norm"])
def test_nan_stops_the_run_and_saves_the_batch(tmp_path: Path, kind: type[Toy], what: str) -> None:
    class Sick(kind):  # type: ignore[misc, valid-type]
        def loss(self, batch: dict[str, Tensor]) -> Tensor:
            loss = super().loss(batch)
            if self.trainer.fit_loop.epoch_loop.batch_idx != 4 or not self.training:
                return loss
            return loss * torch.nan if what == "loss" else loss + (self.linear.bias * 0).abs().sqrt().sum()

    settings = settings_in(tmp_path)
    module = Sick(settings)
    with pytest.raises(NonFiniteError, match=f"toy: the {what} of step 4 is nan"):
        train(module, settings, settings.loop, stage_folder(settings, "toy"), monitor="dev_loss", mode="min")
    saved = torch.load(tmp_path / "toy" / "state" / "bad_batch_4.pt", weights_only=True)
    assert torch.equal(saved["batch"]["inputs"], Toy.batch_at(module, 4)["inputs"])
    assert all(value.isfinite().all() for value in module.state_dict().values())


def test_a_dev_measure_that_is_nan_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Toy, "evaluate", lambda self: {"dev_loss": float("nan")})
    with pytest.raises(NonFiniteError, match="dev_loss is nan after 2 steps"):
        go(Toy, settings_in(tmp_path))


def test_an_earlier_run_is_neither_lost_nor_mixed(tmp_path: Path) -> None:
    go(Toy, settings_in(tmp_path))
    with pytest.raises(InputError, match="--resume to continue or --overwrite"):
        go(Toy, settings_in(tmp_path))
    with pytest.raises(InputError, match="lr was 0.05, is 0.1"):
        go(Toy, settings_in(tmp_path, lr=0.1, resume=True))
    assert go(Toy, settings_in(tmp_path, resume=True))[1]["steps"] == STEPS
    assert go(Toy, settings_in(tmp_path, lr=0.1, overwrite=True))[1]["steps"] == STEPS
    assert yaml.safe_load((tmp_path / "toy" / "settings.yaml").read_text())["lr"] == 0.1


def test_a_run_of_an_earlier_version_resumes_without_settings_that_it_did_not_have(tmp_path: Path) -> None:
    go(Toy, settings_in(tmp_path))
    path = tmp_path / "toy" / "settings.yaml"
    stored = yaml.safe_load(path.read_text())
    del stored["loop"]["keep_parts"]
    path.write_text(yaml.safe_dump(stored))
    loop = replace(settings_in(tmp_path).loop, keep_parts=True)
    with pytest.raises(InputError, match="but loop.keep_parts was False, is True$"):
        go(Toy, settings_in(tmp_path, loop=loop, resume=True))
    assert go(Toy, settings_in(tmp_path, resume=True))[1]["steps"] == STEPS


def test_another_seed_gives_other_weights(tmp_path: Path, whole: Any) -> None:
    settings = ToySettings(run=tmp_path, device="cpu", progress=False, seed=4)
    assert not torch.equal(go(Toy, settings)[0].linear.weight, whole(Toy)[1].linear.weight)


def test_a_pattern_that_fits_nothing_is_an_error() -> None:
    with pytest.raises(InputError, match="'nothing"):
        train_only(nn.Linear(2, 2), "nothing.*")


@pytest.mark.parametrize("name", ["adafactor", "adamw"])
def test_optimizers_lower_a_loss(name: str) -> None:
    weight = nn.Parameter(torch.ones(4, 4))
    optimizer = build_optimizer(OptimizerSettings(name=name, lr=0.1), [weight])
    for _ in range(30):
        optimizer.zero_grad()
        weight.square().sum().backward()
        optimizer.step()
    assert weight.square().sum().item() < 1.0


def test_scaled_steps_are_relative_to_a_matrix_and_others_are_not() -> None:
    """With scale_parameter, a rate of .01 changes a matrix by 1 %, whatever its scale; parameters that start at 0 move
    by the rate itself."""
    settings = OptimizerSettings(name="adafactor", lr=0.01, scale_parameter=True)
    small, large, head = (nn.Parameter(torch.full((4, 4), scale)) for scale in (0.02, 5.0, 0.0))
    optimizer = build_optimizer(settings, [small, large], new=[head])
    (small.sum() + large.sum() + head.sum()).backward()
    optimizer.step()
    steps = [start - value[0, 0].item() for start, value in ((0.02, small), (5.0, large), (0.0, head))]
    assert steps == pytest.approx([0.0002, 0.05, 0.01], rel=1e-3)
    whole = nn.Parameter(torch.full((4, 4), 0.02))
    optimizer = build_optimizer(OptimizerSettings(name="adafactor", lr=0.01), [whole])
    whole.sum().backward()
    optimizer.step()
    assert whole[0, 0].item() == pytest.approx(0.01, rel=1e-3)


def test_learning_rate_by_hand() -> None:
    weight = nn.Parameter(torch.ones(1))
    settings = OptimizerSettings(lr=2.0, warmup_steps=2, schedule="cosine")
    optimizer = build_optimizer(settings, [weight])
    scheduler = build_scheduler(settings, optimizer, 6)
    rates = []
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([1.0, 2.0, 2.0, 1 + 0.5**0.5, 1.0, 1 - 0.5**0.5])


NEEDED = {
    "deepspeed": ("encoder", ["--strategy", "deepspeed-2", "--optimizer.name", "adamw"]),
    "peft": ("decoder", ["--lora.rank", "4"]),
    "trl": ("rl", ["--algorithm", "grpo"]),
    "datasets": ("rl", ["--algorithm", "rloo"]),
    "ray": ("prepare", ["--ray.workers", "1"]),
    "datasketch": ("rewrites", ["--evaluation.files", "[prompts.txt]"]),
}
"""Optional packages by a stage and flags that need them."""


@pytest.mark.parametrize("package", NEEDED)
def test_a_missing_package_is_reported_before_anything_is_deleted(
    tmp_path: Path, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(package)
    stage, flags = NEEDED[package]
    settings = parse_settings(stage, ["--run", str(tmp_path), "--overwrite", *flags])
    assert isinstance(settings, RunSettings)
    finished = stage_folder(settings, stage) / "finished"
    finished.touch()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=f"{package} is not installed"):
        stage_folder(settings, stage)
    assert finished.exists()


def test_a_gpu_that_is_not_there_is_refused_before_anything_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TrainSettings(run=tmp_path, overwrite=True)
    finished = stage_folder(settings, "toy") / "finished"
    finished.touch()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="device: expected auto or cpu, since torch finds no GPU, got cuda"):
        stage_folder(replace(settings, device="cuda"), "toy")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError, match="devices: expected at most 1, the number of GPUs, got 2"):
        stage_folder(replace(settings, devices=2), "toy")
    assert finished.exists()
