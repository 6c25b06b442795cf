"""GRPO and RLOO through TRL: PRIP's rollouts and rewards, TRL's losses, the encoder alone trained."""

from __future__ import annotations

import copy
import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from made_rl import LOOP, ROLLOUTS, assert_same_rollouts, finished_rl, make_parts, rl_settings, warm_up
from safetensors.torch import load_file

from prip.errors import InputError
from prip.fingerprints import fingerprint
from prip.refiner import Refiner
from prip.training.rl import ppo
from prip.training.rl import stage as rl
from prip.training.rl.context import build_context
from prip.training.rl.trl_policy import NO_LABEL
from prip.training.rl.trl_trainer import TrlRun, train_by_trl
from prip.training.settings import ChunkSettings, PpoSettings

UPDATES = PpoSettings(epochs=2, minibatch=6, kl=0.03)
pytest.importorskip("trl", reason="needs trl, from the train extra")


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A run whose encoder and decoder are warmed up."""
    return warm_up(tmp_path_factory.mktemp("warm"), data)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, warm: Path) -> dict[str, dict[str, Any]]:
    """A finished run for each algorithm."""
    runs = {}
    for name in ("ppo", "grpo", "rloo"):
        folder, parts = tmp_path_factory.mktemp(name), make_parts(warm)
        before = copy.deepcopy(parts)
        metrics = rl.run(rl_settings(folder, algorithm=name, ppo=UPDATES), parts)
        runs[name] = {"rl": folder / "rl", "parts": parts, "before": before, "metrics": metrics}
    return runs


def log_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "logs" / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", ["grpo", "rloo"])
def test_the_encoder_alone_moves(finished: dict[str, Any], name: str) -> None:
    now, before = finished[name]["parts"], finished[name]["before"]
    assert fingerprint(now.generator) == fingerprint(before.generator)
    assert [fingerprint(one) for one in now.rewards] == [fingerprint(one) for one in before.rewards]
    decoder = now.model.decoder.state_dict()
    assert all(torch.equal(value, decoder[key]) for key, value in before.model.decoder.state_dict().items())
    moved = dict(now.model.encoder.named_parameters())
    assert [key for key, value in before.model.encoder.named_parameters() if torch.equal(value, moved[key])] == []


@pytest.mark.parametrize("name", ["grpo", "rloo"])
def test_the_first_rollouts_are_those_of_ppo(finished: dict[str, Any], name: str) -> None:
    tables = [pd.read_parquet(finished[one]["rl"] / "rollouts") for one in ("ppo", name)]
    firsts = [table[table.iteration == 0].reset_index(drop=True) for table in tables]
    assert_same_rollouts(*firsts, tolerance=1e-4)
    both = ["iteration", "user_prompt"]
    pd.testing.assert_frame_equal(*(table.sort_values(both)[both].reset_index(drop=True) for table in tables))


@pytest.mark.parametrize("name", ["grpo", "rloo"])
def test_log_metrics_and_refiner_are_as_under_ppo(finished: dict[str, Any], name: str) -> None:
    done, other = finished[name], finished["ppo"]
    first, *rows = log_rows(done["rl"])
    assert first["step"] == "-1" and float(first["dev_kl"]) == 0 and len(rows) == LOOP.steps
    assert abs(float(rows[0]["kl"])) < 1e-5 < abs(float(rows[-1]["kl"]))
    for column in ("reward", "reward_red", "entropy", "drawn_refined", "gradient_norm", "clip_fraction"):
        assert all(row[column] for row in rows), column
    assert rows[2]["dev_reward"] and rows[3]["dev_reward"] and not rows[1]["dev_reward"]
    measured, expected = (
        {key: row[key] for key in row if key.startswith("dev_")} for row in (first, log_rows(other["rl"])[0])
    )
    assert measured == expected, "the warmed-up encoder is measured alike"
    assert done["metrics"].keys() == other["metrics"].keys()
    assert json.loads((done["rl"] / "metrics.json").read_text()) == done["metrics"]
    prompts = list(done["parts"].dev_prompts)
    refined = Refiner.from_pretrained(done["rl"] / "refiner", device="cpu").refine(prompts)
    assert all(text.startswith(f"{one}, ") for one, text in zip(prompts, refined, strict=True))


def test_the_policy_scores_what_it_generates_as_ppo_does(tmp_path: Path, warm: Path) -> None:
    settings = rl_settings(tmp_path, algorithm="grpo", ppo=UPDATES)
    run = TrlRun(build_context(make_parts(warm), settings, tmp_path / "rl"))
    policy, batch = run.trainer.model, run.context.whole_batch(0, 1)
    run.rollouts.due = batch
    tokenizer = run.context.policy.refiner.processor.decoder_tokenizer
    prompts = tokenizer(text=batch.user_prompts, padding=True, padding_side="left", return_tensors="pt")
    policy.train()
    assert policy.training and not policy.encoder.training
    ids = policy.generate(prompts["input_ids"], prompts["attention_mask"], generation_config=None)
    expected = run.context.policy.refine(batch.user_prompts, 1.0, batch.sample_seeds)
    width = prompts["input_ids"].shape[1]
    assert [row[width : width + len(one.actions)].tolist() for row, one in zip(ids, expected, strict=True)] == [
        one.actions for one in expected
    ]
    completion = torch.zeros(len(ids), ids.shape[1] - width, dtype=torch.long)
    for row, one in zip(completion, expected, strict=True):
        row[: len(one.actions)] = 1
    mask = torch.cat([prompts["attention_mask"], completion], dim=1)
    labels = ids.masked_fill(mask == 0, NO_LABEL)
    labels[:, :width] = NO_LABEL
    output = policy(input_ids=ids[4:], attention_mask=mask[4:], labels=labels[4:], fused_lm_head=True)
    actions = run.context.policy.collate(expected).rows(torch.arange(4, 12))
    logits, _ = run.context.policy.action_logits(run.encoder, actions)
    own = ppo.token_log_probabilities(logits, actions.allowed, actions.actions, actions.mask)
    found = output.log_probs[:, -completion.shape[1] :]
    assert torch.allclose(found, own[:, : found.shape[1]], atol=1e-6)
    padding = completion[4:] == 0
    assert not found[padding].any() and not output.entropy[:, -completion.shape[1] :][padding].any()
    output.log_probs.sum().backward()
    assert run.encoder.projection.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["grpo", "rloo"])
def test_resume_comes_to_the_same_weights(
    tmp_path: Path, warm: Path, finished: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken off in iteration 3, after the checkpoint of iteration 2."""
    settings = rl_settings(tmp_path, algorithm=name, ppo=UPDATES)
    real = TrlRun.reward

    def reward(self: TrlRun, prompts: Any, completion_ids: Any, **options: Any) -> list[float]:
        if self.rollouts.current.batch.iteration == 3:
            raise KeyboardInterrupt
        return real(self, prompts, completion_ids, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(TrlRun, "reward", reward)
        rl.run(settings, make_parts(warm))
    rl.run(replace(settings, resume=True), make_parts(warm))
    whole, cut = finished[name]["rl"], tmp_path / "rl"
    weights = [load_file(folder / "part" / "model.safetensors") for folder in (whole, cut)]
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
    pd.testing.assert_frame_equal(pd.read_parquet(whole / "rollouts"), pd.read_parquet(cut / "rollouts"))
    assert (whole / "logs" / "metrics.csv").read_text() == (cut / "logs" / "metrics.csv").read_text()
    assert train_by_trl(build_context(make_parts(warm), settings, cut))["steps"] == LOOP.steps


def test_micro_batches_are_divisors(tmp_path: Path, warm: Path) -> None:
    rollouts = replace(ROLLOUTS, chunk=ChunkSettings(update=4))
    settings = rl_settings(tmp_path, algorithm="rloo", ppo=UPDATES, rollouts=rollouts)
    run = TrlRun(build_context(make_parts(warm), settings, tmp_path / "rl"))
    arguments = run.trainer.args
    assert (arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps) == (3, 2)
    assert arguments.generation_batch_size == 12 and arguments.max_steps == LOOP.steps * 2 * 2
    assert run.trainer.beta == 0.03 and run.trainer.ref_model.encoder is run.context.reference
    with pytest.raises(InputError, match=r"minibatch: expected 1 \(processes\) times a divisor of 12"):
        replace(settings, ppo=replace(UPDATES, minibatch=5))


def test_a_wrong_number_of_processes_is_refused_before_anything_is_deleted(tmp_path: Path, warm: Path) -> None:
    kept = finished_rl(tmp_path)
    settings = rl_settings(tmp_path, algorithm="grpo", ppo=UPDATES, devices=2, overwrite=True)
    with pytest.raises(InputError, match="devices: expected 1, the number of processes started by torchrun"):
        rl.run(settings, make_parts(warm))
    assert kept.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"algorithm": "grpo", "ppo": PpoSettings(baseline="value")}, "baseline: expected group for algorithm: grpo"),
        ({"algorithm": "rloo", "ppo": PpoSettings(entropy=0.1)}, "entropy: expected 0 for algorithm: rloo, got 0.1"),
        ({"algorithm": "rloo", "offload": ("decoder",)}, "offload: expected none for algorithm: rloo, got decoder"),
        (
            {"algorithm": "grpo", "strategy": "deepspeed-2"},
            "strategy: expected auto or ddp for algorithm: grpo, got deepspeed-2",
        ),
    ],
)
def test_settings_that_trl_cannot_follow_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        rl_settings(Path("r"), **options)
