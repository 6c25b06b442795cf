"""Reinforcement learning of the encoder, end to end on a generator that paints its prompt."""

from __future__ import annotations

import copy
import csv
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from made_data import PLACES
from made_rl import (
    GROUP,
    LOOP,
    ROLLOUTS,
    VALUE,
    WANTED,
    assert_same_rollouts,
    finished_rl,
    make_parts,
    rl_settings,
    warm_up,
)
from PIL import Image
from safetensors.torch import load_file

import prip.fingerprints
from prip.errors import CheckpointError, InputError, PripError
from prip.fingerprints import fingerprint
from prip.refiner import Refiner
from prip.training.data.reward_statistics import RewardStatistics
from prip.training.engine.callbacks import NonFiniteError
from prip.training.rl import ppo
from prip.training.rl import stage as rl
from prip.training.runs.seeds import CONFIRMING_SEED, DEV_SEED, image_seed
from prip.training.settings import ChunkSettings, OptimizerSettings, PartsSettings, PpoSettings, RolloutSettings

BASELINES = {"group": GROUP, "value": VALUE}


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A run whose encoder and decoder are warmed up."""
    return warm_up(tmp_path_factory.mktemp("warm"), data)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, warm: Path) -> dict[str, Any]:
    """A finished run for each baseline: its folder, its parts, and what they were before."""
    runs = {}
    for name, settings in BASELINES.items():
        folder, parts = tmp_path_factory.mktemp(name), make_parts(warm)
        before = copy.deepcopy(parts)
        chosen = replace(ROLLOUTS, preview_every=2, preview_prompts=3)
        metrics = rl.run(rl_settings(folder, ppo=settings, rollouts=chosen), parts)
        runs[name] = {"run": folder, "rl": folder / "rl", "parts": parts, "before": before, "metrics": metrics}
    return runs


def log_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "logs" / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("baseline", BASELINES)
def test_the_encoder_alone_moves(finished: dict[str, Any], baseline: str) -> None:
    done = finished[baseline]
    now, before = done["parts"], done["before"]
    assert fingerprint(now.generator) == fingerprint(before.generator)
    assert [fingerprint(one) for one in now.rewards] == [fingerprint(one) for one in before.rewards]
    frozen, decoder = before.model.decoder.state_dict(), now.model.decoder.state_dict()
    assert all(torch.equal(value, decoder[name]) for name, value in frozen.items())
    encoder, moved = dict(before.model.encoder.named_parameters()), dict(now.model.encoder.named_parameters())
    assert [name for name, value in encoder.items() if torch.equal(value, moved[name])] == []
    heads = {"group": 0, "value": 49}
    trained = sum(value.numel() for value in now.model.encoder.parameters()) + heads[baseline]
    assert done["metrics"]["trained_parameters"] == trained


@pytest.mark.parametrize("baseline", BASELINES)
def test_the_first_kl_is_nothing_and_the_log_is_full(finished: dict[str, Any], baseline: str) -> None:
    first, *rows = log_rows(finished[baseline]["rl"])
    assert first["step"] == "-1" and len(rows) == LOOP.steps
    assert abs(float(rows[0]["kl"])) < 1e-5
    assert abs(float(rows[-1]["kl"])) > 1e-4
    own = {"group": {"kl_loss"}, "value": {"value_loss", "explained_variance"}}[baseline]
    both = {"reward", "reward_red", "reward_green", "clip_fraction", "entropy", "policy_loss", "response_length"}
    for row in rows:
        assert all(row[name] for name in own | both)
    assert rows[2]["dev_reward"] and rows[3]["dev_reward"] and not rows[1]["dev_reward"]


def test_rollouts_are_kept(finished: dict[str, Any]) -> None:
    done = finished["group"]
    table = pd.read_parquet(done["rl"] / "rollouts")
    assert len(table) == LOOP.steps * LOOP.batch_size * ROLLOUTS.samples_per_prompt
    assert sorted(set(table.iteration)) == list(range(LOOP.steps))
    assert all(row.refined_prompt.startswith(f"{row.user_prompt}, ") for row in table.itertuples())
    assert set(table.user_prompt) <= set(done["parts"].train_prompts)
    assert (table.log_probability <= 0).all()
    groups = table.groupby(["iteration", "user_prompt"])
    assert (groups.seeds.agg(lambda seeds: len({tuple(one) for one in seeds})) == 1).all()
    rows = {row["step"]: row for row in log_rows(done["rl"])}
    assert table.reward[table.iteration == 0].mean() == pytest.approx(float(rows["0"]["reward"]), rel=1e-4)


def test_seeds_of_training_dev_and_evaluation_are_apart(finished: dict[str, Any]) -> None:
    drawn = finished["group"]["parts"].generator.drawn
    dev = {seed for prompt, seed in drawn if prompt.split(",")[0].endswith(PLACES[-1])}
    train = {seed for prompt, seed in drawn if not prompt.split(",")[0].endswith(PLACES[-1])}
    assert dev == {first + number for first in (DEV_SEED, CONFIRMING_SEED) for number in (0, 1)}
    assert train and max(train) < DEV_SEED
    pool = {image_seed("a cat", place, 8) for place in range(8)}
    assert len(pool) == 8 and max(pool) < DEV_SEED and pool.isdisjoint(image_seed("a dog", n, 8) for n in range(8))


def test_the_refiner_is_a_whole_checkpoint(finished: dict[str, Any]) -> None:
    done = finished["group"]
    refiner = Refiner.from_pretrained(done["rl"] / "refiner", device="cpu")
    prompts = list(done["parts"].dev_prompts)
    assert all(text.startswith(f"{one}, ") for one, text in zip(prompts, refiner.refine(prompts), strict=True))
    exported = load_file(done["rl"] / "part" / "model.safetensors")
    stored = load_file(done["rl"] / "refiner" / "encoder" / "model.safetensors")
    assert all(torch.equal(value, stored[name]) for name, value in exported.items())
    record = json.loads((done["rl"] / "refiner" / "training.json").read_text())
    assert record["stages"]["rl"]["metrics"]["best"]["dev_reward"] == done["metrics"]["best"]["dev_reward"]
    assert record["stages"]["rl"]["seed"] == 0 and str(done["run"]) not in json.dumps(record)


def test_previews_and_statistics_are_kept(finished: dict[str, Any]) -> None:
    folder = finished["group"]["rl"]
    names = sorted(path.name for path in (folder / "previews").iterdir())
    assert names == ["iteration-000000.png", "iteration-000002.png", "iteration-000003.png"]
    with Image.open(folder / "previews" / names[0]) as picture:
        assert picture.width > 3 * 224 and picture.height > 2 * 224 and len(set(picture.convert("L").getdata())) > 20
    statistics = json.loads((folder / "reward_statistics.json").read_text())
    assert statistics["means"].keys() == statistics["deviations"].keys() == {"red", "green"}


def test_the_warmed_up_encoder_is_measured_first_and_stays_the_best_until_a_better_one_comes(
    finished: dict[str, Any],
) -> None:
    first = log_rows(finished["group"]["rl"])[0]
    assert first["step"] == "-1" and float(first["dev_kl"]) == 0
    best = finished["group"]["metrics"]["best"]["dev_reward"]
    assert best >= float(first["dev_reward"]) * (1 - 1e-5), "the log has six digits"


@pytest.mark.parametrize("baseline", BASELINES)
def test_the_best_encoder_is_measured_again_on_other_seeds(finished: dict[str, Any], baseline: str) -> None:
    metrics, painter = finished[baseline]["metrics"], finished[baseline]["parts"].generator
    confirmed = metrics["confirmed"]
    assert list(confirmed) == ["first", "last", "best"] and confirmed["first"]["dev_kl"] == 0
    for name in ("best", "last"):
        assert confirmed[name]["dev_kl"] == pytest.approx(metrics[name]["dev_kl"], rel=1e-5), "the same texts"
    seeds = {seed for _, seed in painter.drawn}
    assert {DEV_SEED, DEV_SEED + 1, CONFIRMING_SEED, CONFIRMING_SEED + 1} <= seeds
    stored = json.loads((finished[baseline]["rl"] / "metrics.json").read_text())
    assert stored["confirmed"] == confirmed


def test_a_best_encoder_of_an_earlier_step_is_read_from_its_part(tmp_path: Path, warm: Path) -> None:
    module = rl.build_module(make_parts(warm), rl_settings(tmp_path), tmp_path / "rl")
    context, cpu = module.context, torch.device("cpu")
    context.save_learner(tmp_path / "rl" / "part")
    with torch.no_grad():
        for parameter in context.learner.parameters():
            parameter.mul_(1.5)
    confirmed = context.confirm(2, 4, cpu)
    assert confirmed["best"] == confirmed["first"] and confirmed["last"]["dev_kl"] > 0
    assert context.confirm(4, 4, cpu)["best"] == confirmed["last"]


def test_statistics_of_prepare_are_taken(tmp_path: Path, warm: Path) -> None:
    given = {"means": {"red": 1.0, "green": 2.0}, "deviations": {"red": 3.0, "green": 4.0}, "more": 5}
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rewards.json").write_text(json.dumps(given))
    module = rl.build_module(make_parts(warm), rl_settings(tmp_path), tmp_path / "rl")
    total = module.context.scorer.total
    assert (total.means, total.deviations) == (given["means"], given["deviations"])
    assert module.context.parts.generator.drawn == []
    absent = PartsSettings(statistics=tmp_path / "none.json")
    with pytest.raises(CheckpointError, match="none.json: expected the means and deviations of red, green"):
        rl.build_module(make_parts(warm), rl_settings(tmp_path / "other", parts=absent), tmp_path / "other" / "rl")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums in one order: Adam's first steps make the sign of a gradient near 0 as large as any other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_first_process_measures_the_rewards_and_the_others_wait(
    tmp_path: Path, warm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, parts = rl_settings(tmp_path), make_parts(warm)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with monkeypatch.context() as patch, pytest.raises(PripError, match="waited 0 s for the first process to measure"):
        patch.setattr("prip.training.rl.parts.STATISTICS_TIMEOUT_S", 0)
        rl.build_module(parts, settings, tmp_path / "rl")
    with ThreadPoolExecutor(1) as waiting:
        other = waiting.submit(rl.build_module, parts, settings, tmp_path / "rl")
        RewardStatistics({"red": 1.0, "green": 2.0}, {"red": 3.0, "green": 4.0}).write(
            tmp_path / "rl" / "reward_statistics.json"
        )
        assert other.result(timeout=60).context.scorer.total.means == {"red": 1.0, "green": 2.0}
    assert parts.generator.drawn == []


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("baseline", BASELINES)
def test_it_learns_what_is_rewarded(tmp_path: Path, warm: Path, baseline: str) -> None:
    """A painted light, from the second iteration on in most prompts, however many threads there are."""
    loop = replace(LOOP, steps=24, batch_size=8, validate_every=24, checkpoint_every=24)
    chosen = replace(ROLLOUTS, samples_per_prompt=4)
    settings = PpoSettings(baseline=baseline, minibatch=16, epochs=3)
    optimizer = OptimizerSettings(lr=1e-3, warmup_steps=2)
    options = {"loop": loop, "rollouts": chosen, "ppo": settings, "optimizer": optimizer}
    rl.run(rl_settings(tmp_path, **options), make_parts(warm))
    table = pd.read_parquet(tmp_path / "rl" / "rollouts")
    share = table.refined_prompt.str.contains(WANTED).groupby(table.iteration).mean()
    assert share[:2].mean() < 0.5
    assert share[-5:].mean() > 0.8


@pytest.mark.usefixtures("one_thread")
@pytest.mark.usefixtures("one_thread")
def test_results_do_not_depend_on_the_chunks(tmp_path: Path, data: Path) -> None:
    """Of each of the four: several chunks, the last of which is smaller."""
    warm = warm_up(tmp_path / "warm", data)
    chunks = {"whole": ROLLOUTS.chunk, "cut": ChunkSettings(refine=5, images=7, score=5, update=4)}
    for baseline, settings in BASELINES.items():
        for name, chunk in chunks.items():
            chosen = replace(ROLLOUTS, preview_every=2, preview_prompts=3, chunk=chunk)
            rl.run(rl_settings(tmp_path / baseline / name, ppo=settings, rollouts=chosen), make_parts(warm))
        whole, cut = (tmp_path / baseline / name / "rl" for name in chunks)
        tables = [pd.read_parquet(folder / "rollouts") for folder in (whole, cut)]
        assert_same_rollouts(*tables, tolerance=1e-3)
        for one, other in zip(log_rows(whole), log_rows(cut), strict=True):
            assert {name: bool(value) for name, value in one.items()} == {name: bool(other[name]) for name in other}
            for name, value in one.items():
                if value:
                    assert float(other[name]) == pytest.approx(float(value), rel=1e-3, abs=1e-4), name


def test_a_minibatch_in_chunks_has_the_gradient_of_the_whole(tmp_path: Path, warm: Path) -> None:
    for baseline in (GROUP, VALUE):
        module = make_module(tmp_path / baseline.baseline, warm, ppo=replace(baseline, entropy=0.1))
        experience = make_experience(module)
        with torch.no_grad():
            module.encoder.projection.bias += 0.05  # away from the warmed-up encoder, where the KL has a gradient
        rows = torch.tensor([3, 0, 7, 11, 5])
        module(experience, rows)[0].backward()
        whole = [one.grad.clone() for one in module.trained]
        module.zero_grad()
        actions, figures = int(experience.lengths[rows].sum()), []
        for some in (rows[:3], rows[3:]):
            loss, metrics = module(experience, some, actions)
            loss.backward()
            figures.append(metrics)
        assert all(torch.allclose(one.grad, other, atol=1e-6) for one, other in zip(module.trained, whole, strict=True))
        expected = module(experience, rows)[1]
        summed = {name: sum(one[name] for one in figures) for name in expected}
        assert summed == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_from_the_second_pass_on_half_the_images_are_drawn(
    tmp_path: Path, warm: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One refinement and one seed a user prompt: as many refined as plain images, and the plain ones but once."""
    (tmp_path / "data").mkdir()
    scales = {"means": {"red": 0.0, "green": 0.0}, "deviations": {"red": 1.0, "green": 1.0}}
    (tmp_path / "data" / "rewards.json").write_text(json.dumps(scales))
    parts = make_parts(warm, prompts=8)
    chosen = replace(ROLLOUTS, samples_per_prompt=1, seed_pool=1)
    loop = replace(LOOP, steps=6, validate_every=6)
    with caplog.at_level(logging.INFO, logger="prip"):
        metrics = rl.run(rl_settings(tmp_path, ppo=VALUE, rollouts=chosen, loop=loop), parts)
    assert "rl: drew 24 distinct images of refined prompts and 8 of plain ones" in caplog.messages
    rows = log_rows(tmp_path / "rl")[1:]
    drawn = [(float(row["drawn_refined"]), float(row["drawn_plain"])) for row in rows]
    assert drawn == [(4, 4), (4, 4), (4, 0), (4, 0), (4, 0), (4, 0)]
    assert (metrics["last"]["images_refined"], metrics["last"]["images_plain"]) == (24, 8)
    own = [(prompt, seed) for prompt, seed in parts.generator.drawn if seed < DEV_SEED]
    assert len(own) == 24 + 8 and len([prompt for prompt, _ in own if "," not in prompt]) == 8


@pytest.mark.parametrize("baseline", BASELINES)
def test_a_killed_run_resumes_to_the_same_weights(tmp_path: Path, warm: Path, baseline: str) -> None:
    rl.run(rl_settings(tmp_path / "whole", ppo=BASELINES[baseline]), make_parts(warm))
    script = f"""
import os, signal, sys
sys.path[:0] = {[str(Path(__file__).parent)]}
from pathlib import Path
from made_rl import make_parts, rl_settings, GROUP, VALUE
from prip.training.rl import stage as rl
real = rl.RlModule.learn
def learn(self, experience, iteration):
    if iteration == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, experience, iteration)
rl.RlModule.learn = learn
settings = rl_settings(Path({str(tmp_path / "cut")!r}), ppo={baseline.upper()})
rl.run(settings, make_parts(Path({str(warm)!r})))
"""
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    killed = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "cut" / "rl" / "metrics.json").exists()
    assert len(pd.read_parquet(tmp_path / "cut" / "rl" / "rollouts")) == 4 * 12
    parts = make_parts(warm)
    rl.run(rl_settings(tmp_path / "cut", ppo=BASELINES[baseline], resume=True), parts)
    plain = [prompt for prompt, seed in parts.generator.drawn if "," not in prompt and seed < CONFIRMING_SEED]
    assert plain == []  # all baselines came from the cache
    whole, cut = tmp_path / "whole" / "rl", tmp_path / "cut" / "rl"
    confirmed = [json.loads((folder / "metrics.json").read_text())["confirmed"] for folder in (whole, cut)]
    assert confirmed[0] == confirmed[1]
    weights = [load_file(folder / "part" / "model.safetensors") for folder in (whole, cut)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert (whole / "logs" / "metrics.csv").read_text() == (cut / "logs" / "metrics.csv").read_text()
    pd.testing.assert_frame_equal(pd.read_parquet(whole / "rollouts"), pd.read_parquet(cut / "rollouts"))


def make_module(folder: Path, warm: Path, **options: Any) -> rl.RlModule:
    return rl.build_module(make_parts(warm), rl_settings(folder, **options), folder / "rl")


def make_experience(module: rl.RlModule) -> rl.Experience:
    prompts = [prompt for prompt in module.context.train_prompts[:4] for _ in range(3)]
    refinements = module.context.policy.refine(prompts, 1.0, [(0, place) for place in range(12)])
    seeds = [[image_seed(prompt, 0, 8)] for prompt in prompts]
    return module.experience(refinements, module.context.scorer.score(refinements, seeds))[0]


def test_the_value_loss_does_not_reach_the_encoder(tmp_path: Path, warm: Path) -> None:
    module = make_module(tmp_path, warm, ppo=VALUE)
    experience = make_experience(module)
    without_policy = replace(experience, advantages=torch.zeros_like(experience.advantages))
    module(without_policy, torch.arange(12))[0].backward()
    assert module.value_head is not None and module.value_head.linear.weight.grad.abs().sum() > 0
    assert all(value.grad is None or not value.grad.any() for value in module.encoder.parameters())


def test_groups_share_their_mean_and_whitening_has_none(tmp_path: Path, warm: Path) -> None:
    group = make_experience(make_module(tmp_path / "group", warm, ppo=GROUP))
    rows = torch.stack([own[mask][0] for own, mask in zip(group.advantages, group.batch.mask, strict=True)])
    assert rows.view(4, 3).sum(dim=1).abs().max() < 1e-4
    assert torch.equal(group.advantages != 0, (rows != 0).unsqueeze(1) & group.batch.mask)
    value = make_experience(make_module(tmp_path / "value", warm, ppo=VALUE))
    assert ppo.masked_mean(value.advantages, value.batch.mask).abs() < 1e-5
    assert value.returns.abs().max() > 0 and (value.figures.values == 0).all()


def test_the_kl_holds_the_policy_back(tmp_path: Path, warm: Path) -> None:
    """The gradient of the penalty points from the warmed-up encoder away, and is nothing at it."""
    module = make_module(tmp_path, warm, ppo=replace(GROUP, kl=1.0))
    experience = make_experience(module)
    still = replace(experience, advantages=torch.zeros_like(experience.advantages))
    module(still, torch.arange(12))[0].backward()
    assert max(value.grad.abs().max() for value in module.encoder.parameters() if value.grad is not None) < 1e-4
    with torch.no_grad():
        module.encoder.projection.bias += 0.5
    away, metrics = module(still, torch.arange(12))
    assert metrics["kl_loss"] > 1e-3 and away.item() == pytest.approx(metrics["kl_loss"], rel=1e-4)


def test_entropy_is_a_bonus(tmp_path: Path, warm: Path) -> None:
    losses = []
    for weight in (0.0, 0.5):
        module = make_module(tmp_path / str(weight), warm, ppo=replace(GROUP, entropy=weight))
        experience = make_experience(module)
        losses.append(module(experience, torch.arange(12))[0].item())
        logits, _ = module.context.policy.action_logits(module.encoder, experience.batch)
        entropy = ppo.token_entropy(logits, experience.batch.allowed, experience.batch.mask)
    expected = 0.5 * ppo.masked_mean(entropy, experience.batch.mask).item()
    assert expected > 0.01 and losses[0] - losses[1] == pytest.approx(expected, rel=1e-3)


def test_dropout_stays_off(tmp_path: Path, warm: Path) -> None:
    module = make_module(tmp_path, warm)
    module.train()
    assert not any(part.training for part in module.modules())


def test_only_the_first_process_hashes_the_frozen_parts(
    tmp_path: Path, warm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, hashed = rl.build_module(make_parts(warm), rl_settings(tmp_path), tmp_path / "rl").context, []
    real = prip.fingerprints.fingerprint
    monkeypatch.setattr(prip.fingerprints, "fingerprint", lambda part: hashed.append(part) or real(part))
    before = context.fingerprints()
    context.check_frozen(before)
    assert len(hashed) == 2 * len(before) > 0
    hashed.clear()
    monkeypatch.setenv("RANK", "1")
    context.check_frozen(context.fingerprints())
    monkeypatch.setattr(rl, "train", lambda *_, **options: {"last": {"images_refined": 0, "images_plain": 0}})
    rl.run(rl_settings(tmp_path), make_parts(warm))
    assert hashed == []


def test_a_frozen_part_that_moves_is_found_out(tmp_path: Path, warm: Path) -> None:
    parts = make_parts(warm)

    def sabotage(prompts: Any, seeds: Any) -> torch.Tensor:
        with torch.no_grad():
            parts.model.decoder.projection.bias[0] += 1e-3
        return type(parts.generator).__call__(parts.generator, prompts, seeds)

    generator = copy.copy(parts.generator)
    generator_class = type("Sabotage", (type(generator),), {"__call__": lambda self, *given: sabotage(*given)})
    generator.__class__ = generator_class
    with pytest.raises(PripError, match="frozen parts changed during training: decoder"):
        rl.run(rl_settings(tmp_path, loop=replace(LOOP, steps=1)), replace(parts, generator=generator))


def test_nan_in_a_reward_stops_it(tmp_path: Path, warm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = make_parts(warm)
    (tmp_path / "data").mkdir()
    scales = {"means": {"red": 0.0, "green": 0.0}, "deviations": {"red": 1.0, "green": 1.0}}
    (tmp_path / "data" / "rewards.json").write_text(json.dumps(scales))
    monkeypatch.setattr(parts.rewards[0].scale, "data", torch.tensor(torch.nan))
    with pytest.raises(NonFiniteError, match="rl: dev_reward is nan after 0 steps"):
        rl.run(rl_settings(tmp_path), parts)
    monkeypatch.setattr(rl.RlModule, "starts_trained", False)
    with pytest.raises(NonFiniteError, match="rl: the loss of step 0 is nan"):
        rl.run(rl_settings(tmp_path, overwrite=True), parts)
    assert (tmp_path / "rl" / "state" / "bad_batch_0.pt").exists()


def test_prompts_without_room_are_left_out(tmp_path: Path, warm: Path) -> None:
    parts = make_parts(warm)
    full = "a cat " * 40 + "a cat"
    module = rl.build_module(
        replace(parts, train_prompts=[full, *parts.train_prompts]), rl_settings(tmp_path), tmp_path / "rl"
    )
    assert module.context.train_prompts == list(parts.train_prompts)
    kept = finished_rl(tmp_path / "other")
    with pytest.raises(InputError, match="user_prompts: expected some dev prompts with room for a modifier"):
        rl.run(rl_settings(tmp_path / "other", overwrite=True), replace(parts, dev_prompts=[full]))
    assert kept.exists()


def test_the_generators_own_tokens_bound_the_prompt(tmp_path: Path, warm: Path) -> None:
    parts = make_parts(warm)
    parts.generator.token_limit = 9
    lengths = {}
    for counted_by in ("clip", "generator"):
        rollouts = replace(ROLLOUTS, counted_by=counted_by, token_budget=75)
        module = rl.build_module(parts, rl_settings(tmp_path, rollouts=rollouts), tmp_path / "rl")
        refined = module.context.policy.refine(
            list(parts.train_prompts), 1.0, [(0, i) for i in range(len(parts.train_prompts))]
        )
        lengths[counted_by] = max(parts.generator.count_tokens(one.refined_prompt) for one in refined)
    assert lengths["generator"] <= 9 < lengths["clip"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RolloutSettings(images_per_prompt=9), r"images_per_prompt: expected at most seed_pool \(8\), got 9"),
        (lambda: RolloutSettings(token_budget=0), "token_budget: expected at least 1, got 0"),
        (lambda: PpoSettings(ratio_clip=0.0), "ratio_clip: expected a number above 0"),
        (lambda: PpoSettings(trace=1.5), "trace: expected a number between 0 and 1"),
        (
            lambda: rl_settings(Path("r"), rollouts=RolloutSettings(samples_per_prompt=1)),
            "samples_per_prompt: expected at least 2 for baseline: group, got 1",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
