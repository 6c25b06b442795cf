"""The stage tune, on a small Stable Diffusion and two rewards with random weights."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from made_parts import system_prompts, write_parts
from made_rl import Brightness
from processes import run_script
from safetensors.torch import load_file

from prip.errors import CheckpointError, InputError, PripError
from prip.generators import load_generator
from prip.generators.diffusion import DiffusersGenerator
from prip.training.settings import (
    AnchorSettings,
    LoopSettings,
    OptimizerSettings,
    PullSettings,
    TuneDevSettings,
    TuneSettings,
)
from prip.training.tune import stage as tune
from prip.training.tune.diffusion import TunableDiffusion
from prip.training.tune.parts import TuneParts, load_tune_parts, scored_for

PROMPTS, SEEDS = ["a cat", "a dog, golden hour"], [3, 4]
LOOP = LoopSettings(steps=4, batch_size=4, log_every=1, validate_every=4, checkpoint_every=2)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with parts and data; its generator predicts clean latents, so that few pixels of its images are cut off."""
    run = tmp_path_factory.mktemp("made")
    write_parts(run)
    scheduler = run / "parts" / "generator" / "scheduler" / "scheduler_config.json"
    scheduler.write_text(json.dumps(json.loads(scheduler.read_text()) | {"prediction_type": "sample"}))
    (run / "data").mkdir()
    system_prompts().to_parquet(run / "data" / "system_prompts.parquet")
    scales = {"means": {"mini-reward": 0.0, "mini-hps": 27.0}, "deviations": {"mini-reward": 0.1, "mini-hps": 0.1}}
    (run / "data" / "rewards.json").write_text(json.dumps(scales))
    (run / "parts" / "generator" / "obedience.json").write_text('{"subject": 0.5}')
    return run


def begin(made: Path, run: Path) -> Path:
    """Returns a run of its own with these parts and data."""
    run.mkdir()
    for name in ("parts", "data"):
        (run / name).symlink_to(made / name)
    return run


def tune_settings(run: Path, **options: Any) -> TuneSettings:
    chosen: dict[str, Any] = {"device": "cpu", "progress": False, "loop": LOOP}
    chosen["generator_options"] = {"steps": 4, "guidance": 2.0}
    chosen["pull"] = PullSettings(weight=1.0, cap=100.0, last_steps=3)
    chosen["anchor"] = AnchorSettings(images=6)
    chosen["dev"] = TuneDevSettings(prompts=2, preview_prompts=1)
    chosen["optimizer"] = OptimizerSettings(lr=1e-3)
    return TuneSettings(run=run, **(chosen | options))


def weights(run: Path, part: str = "unet") -> dict[str, torch.Tensor]:
    names = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
    return load_file(run / part / f"{names[part]}.safetensors")


@pytest.mark.parametrize("kind", ["epsilon", "sample"])
def test_the_stopped_sampler_ends_where_the_generator_does(made: Path, kind: str) -> None:
    generator = load_generator(str(made / "parts" / "generator"), steps=4, guidance=2.0)
    scheduler = generator.pipeline.scheduler
    generator.pipeline.scheduler = type(scheduler).from_config(scheduler.config, prediction_type=kind)
    tunable = TunableDiffusion(generator)
    drawn = tunable.draw(PROMPTS, SEEDS, tunable.steps())
    images = tunable.decode(drawn.latents)
    assert torch.equal(images.round().to(torch.uint8), generator(PROMPTS, SEEDS))
    # from its last step DDIM goes to the clean latents that the network sees there
    seen = tunable.images(tunable.draw(PROMPTS, SEEDS, tunable.steps() - 1))
    torch.testing.assert_close(seen.detach(), images, rtol=0, atol=0.01)
    first = tunable.images(tunable.draw(PROMPTS, SEEDS, 0))
    assert not torch.allclose(first, images, atol=1.0)


def test_the_network_learns_and_all_else_stays(made: Path, tmp_path: Path) -> None:
    run = begin(made, tmp_path / "run")
    loop = replace(LOOP, steps=12, validate_every=12)
    anchor = AnchorSettings(images=6, weight=0.1)
    metrics = tune.run(tune_settings(run, loop=loop, anchor=anchor, optimizer=OptimizerSettings(lr=3e-3)))
    assert metrics["best_step"] == 12 and metrics["last"] == metrics["best"]
    before, after = logged(run, "dev_reward")
    assert after == pytest.approx(metrics["best"]["dev_reward"], abs=1e-4) and after > before + 0.1
    assert metrics["trained_parameters"] == metrics["parameters"]
    part, base = run / "tune" / "part", run / "parts" / "generator"
    tuned, plain = weights(part), weights(base)
    moved = [name for name in plain if not torch.equal(tuned[name], plain[name])]
    assert len(moved) > 0.9 * len(plain)
    for name in ("vae", "text_encoder"):
        kept, was = weights(part, name), weights(base, name)
        assert all(torch.equal(kept[key], was[key]) for key in was)
    assert json.loads((part / "obedience.json").read_text()) == {"subject": 0.5}
    generator = load_generator(str(part))
    assert (generator.steps, generator.guidance) == (4, 2.0)
    assert not torch.equal(generator(PROMPTS, SEEDS), load_generator(str(base), steps=4, guidance=2.0)(PROMPTS, SEEDS))
    assert {path.name for path in (run / "tune" / "previews").iterdir()} == {"step-000000.png", "step-000012.png"}


def logged(run: Path, name: str) -> list[float]:
    with (run / "tune" / "logs" / "metrics.csv").open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


def test_the_rewards_pull_and_the_anchors_hold(made: Path, tmp_path: Path) -> None:
    plain, losses, moved = weights(made / "parts" / "generator"), {}, {}
    for name, pull, hold in (("neither", 0.0, 0.0), ("pull", 1.0, 0.0), ("both", 1.0, 20.0)):
        run = begin(made, tmp_path / name)
        chosen: dict[str, Any] = {"anchor": AnchorSettings(images=4, weight=hold, prompts="user", prompt_dropout=0.0)}
        chosen |= {"pull": PullSettings(weight=pull, cap=100.0), "optimizer": OptimizerSettings(lr=3e-3)}
        tune.run(tune_settings(run, loop=replace(LOOP, steps=8, validate_every=8, keep_parts=True), **chosen))
        last = weights(run / "tune" / "history" / "step-000008")
        moved[name] = any(not torch.equal(last[key], plain[key]) for key in plain)
        losses[name] = logged(run, "anchor_loss")
    assert moved == {"neither": False, "pull": True, "both": True}
    assert losses["both"][0] == losses["pull"][0] and losses["both"][-1] < 0.8 * losses["pull"][-1]


def test_other_ways_to_make_the_same_step(made: Path, tmp_path: Path) -> None:
    runs = {name: begin(made, tmp_path / name) for name in ("whole", "parts", "mixed")}
    loop = replace(LOOP, steps=2, validate_every=2)
    smaller = replace(loop, batch_size=2, accumulate=2)
    tune.run(tune_settings(runs["whole"], loop=loop))
    tune.run(tune_settings(runs["parts"], loop=smaller, gradient_checkpointing=True))
    tune.run(tune_settings(runs["mixed"], loop=replace(loop, precision="bf16-mixed"), reward_dtype="bfloat16"))
    whole, parts, mixed = ([logged(run, name) for name in ("reward", "anchor_loss")] for run in runs.values())
    torch.testing.assert_close(torch.tensor(parts), torch.tensor(whole), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch.tensor(mixed), torch.tensor(whole), rtol=0.1, atol=0.1)
    assert mixed != whole


@pytest.mark.slow
def test_two_processes_learn_what_one_does(made: Path, tmp_path: Path) -> None:
    runs = {name: begin(made, tmp_path / name) for name in ("one", "two")}
    tune.run(tune_settings(runs["one"]))
    script = f"""
from dataclasses import replace
from pathlib import Path
from test_tune import LOOP, tune, tune_settings

if __name__ == "__main__":
    tune.run(tune_settings(Path({str(runs["two"])!r}), devices=2, loop=replace(LOOP, batch_size=2)))
"""
    run_script(tmp_path, script)
    for name in ("reward", "anchor_loss", "gradient_norm", "dev_reward", "dev_spread"):
        one, two = (logged(run, name) for run in runs.values())
        assert two == pytest.approx(one, rel=1e-3, abs=1e-3), name


def test_a_killed_run_resumes_to_the_same_weights(made: Path, tmp_path: Path) -> None:
    runs = {name: begin(made, tmp_path / name) for name in ("whole", "cut")}
    tune.run(tune_settings(runs["whole"], loop=replace(LOOP, keep_parts=True)))
    script = f"""
import os, signal, sys
sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parent.parent / "support")]}
from dataclasses import replace
from pathlib import Path
from test_tune import LOOP, tune, tune_settings
real = tune.TuneModule.training_step
def training_step(self, batch, step):
    if step == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, batch, step)
tune.TuneModule.training_step = training_step
tune.run(tune_settings(Path({str(runs["cut"])!r}), loop=replace(LOOP, keep_parts=True)))
"""
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    killed = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (runs["cut"] / "tune" / "state" / "last.ckpt").exists()
    tune.run(tune_settings(runs["cut"], loop=replace(LOOP, keep_parts=True), resume=True))
    whole, cut = (weights(run / "tune" / "history" / "step-000004") for run in runs.values())
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    logs = [(run / "tune" / "logs" / "metrics.csv").read_text() for run in runs.values()]
    assert logs[0] == logs[1]


def test_system_prompts_are_scored_for_their_start(made: Path, tmp_path: Path) -> None:
    assert scored_for(["a cat, golden hour", "a dog"], "system") == ["a cat", "a dog"]
    assert scored_for(["a cat, golden hour"], "user") == ["a cat, golden hour"]
    settings = tune_settings(begin(made, tmp_path / "run"), pull=PullSettings(prompts="system"))
    parts = load_tune_parts(settings)
    assert "a cat, golden hour" in parts.train_prompts("system") and parts.train_prompts("user")[0] == "a cat"


def test_a_frozen_part_that_changes_is_told(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = tune.TuneModule.training_step

    def training_step(self: Any, batch: Any, step: int) -> Any:
        with torch.no_grad():
            self.tunable.pipeline.vae.mean.add_(1.0)
        return real(self, batch, step)

    monkeypatch.setattr(tune.TuneModule, "training_step", training_step)
    with pytest.raises(PripError, match="tune: frozen parts changed during training: vae"):
        tune.run(tune_settings(begin(made, tmp_path / "run"), loop=replace(LOOP, steps=1)))


def with_scheduler(name: str, **changes: Any) -> Any:
    def change(generator: DiffusersGenerator) -> None:
        import diffusers

        kind = getattr(diffusers, name)
        generator.pipeline.scheduler = kind.from_config(generator.pipeline.scheduler.config, **changes)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_scheduler("EulerDiscreteScheduler"), "scheduler: expected one of ddim, .* got EulerDiscreteScheduler"),
        (with_scheduler("DPMSolverMultistepScheduler", prediction_type="flow_prediction"), "got 'flow_prediction'"),
        (lambda generator: generator.pipeline.unet.half(), "dtype: expected float32, got float16"),
        (lambda generator: setattr(generator, "upscaler", object()), "expected one pipeline, got one with an adapter"),
    ],
)
def test_generators_that_cannot_be_tuned_are_refused(made: Path, change: Any, message: str) -> None:
    generator = load_generator(str(made / "parts" / "generator"))
    change(generator)
    with pytest.raises(InputError, match=message):
        TunableDiffusion(generator)


def test_other_families_and_generators_are_refused() -> None:
    from tiny_pipelines import stable_diffusion_xl

    with pytest.raises(InputError, match="expected a StableDiffusionPipeline, got a StableDiffusionXLPipeline"):
        TunableDiffusion(DiffusersGenerator(stable_diffusion_xl()))
    with pytest.raises(InputError, match="expected a diffusers pipeline, got 'renderer'"):
        TunableDiffusion(load_generator("renderer"))


def test_what_is_missing_is_told(made: Path, tmp_path: Path) -> None:
    run = begin(made, tmp_path / "run")
    settings = tune_settings(run)
    parts = load_tune_parts(settings)
    with pytest.raises(InputError, match="rewards: expected differentiable ones .* got 'mini-hps'"):
        rewards = [parts.rewards[1], Brightness("mini-hps", 0, 1.0)]
        tune.run(settings, TuneParts(parts.generator, rewards, parts.user_prompts, [], parts.statistics))
    (tmp_path / "scales.json").write_text('{"means": {"mini-reward": 0}, "deviations": {"mini-reward": 1}}')
    with pytest.raises(CheckpointError, match="no means and deviations of mini-hps, mini-reward"):
        load_tune_parts(replace(settings, statistics=tmp_path / "scales.json"))
    with pytest.raises(CheckpointError, match="rewards is missing"):
        load_tune_parts(replace(settings, run=tmp_path))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PullSettings(last_steps=0), "last_steps: expected at least 1"),
        (lambda: AnchorSettings(prompt_dropout=2.0), "prompt_dropout: expected a number between 0 and 1"),
        (lambda: TuneDevSettings(images_per_prompt=1), "images_per_prompt: expected at least 2"),
        (lambda: TuneSettings(run=Path("r"), strategy="deepspeed-2"), "strategy: expected auto or ddp for tune"),
        (lambda: TuneSettings(run=Path("r"), loop=LoopSettings(precision="bf16-true")), "loop.precision: expected"),
    ],
)
def test_settings_that_cannot_be_are_refused(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
