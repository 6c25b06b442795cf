"""No image that a safety checker blackened is scored in training: it is left out and counted."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from made_rl import GROUP, LOOP, ROLLOUTS, VALUE, Brightness, Painter, make_parts, rl_settings, warm_up

from prip.rewards import StandardisedSum
from prip.training.cli.command import parse_settings
from prip.training.data.scoring import Scorer
from prip.training.data.workers import Job
from prip.training.rl import ppo
from prip.training.rl import stage as rl
from prip.training.rollouts.image_scorer import ImageScorer, PlainScoreCache
from prip.training.rollouts.policy import Refinement
from prip.training.rollouts.scores import GainScorer

BASELINES = {"group": GROUP, "value": VALUE}


class Checked(Painter):
    """Paints the prompts; its checker blackens some of the images."""

    has_safety_checker = True

    def __init__(self, unsafe: str) -> None:
        super().__init__()
        self.unsafe = unsafe

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> torch.Tensor:
        images = super().__call__(prompts, seeds)
        for row, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
            if self.is_unsafe(prompt, seed):
                images[row] = 0
        return images

    def is_unsafe(self, prompt: str, seed: int) -> bool:
        return self.unsafe in prompt


class Strict(Brightness):
    """Fails for a black image."""

    def __call__(self, user_prompts: Sequence[str], images: torch.Tensor) -> torch.Tensor:
        assert len(images) and (images.flatten(1).amax(dim=1) > 0).all()
        return super().__call__(user_prompts, images)


def gain_scorer(folder: Path, generator: Painter) -> GainScorer:
    rewards = [Strict("red", 0, 1.0), Strict("green", 1, 0.01)]
    total = StandardisedSum(rewards, {"red": 0.0, "green": 0.0}, {"red": 1.0, "green": 1.0})
    return GainScorer(ImageScorer(generator, rewards, PlainScoreCache(folder)), total)


def test_blackened_images_have_no_score(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Half(Checked):
        def is_unsafe(self, prompt: str, seed: int) -> bool:
            return self.unsafe in prompt and seed == 2

    texts = [("a cat", "a cat, gore"), ("a dog", "a dog, fog"), ("gore", "gore, fog")]
    refinements = [Refinement(user, refined, [1]) for user, refined in texts]
    seeds = [[1, 2], [1, 2], [2, 2]]
    scores = gain_scorer(tmp_path / "half", Half("gore")).score(refinements, seeds)
    assert scores.blackened.tolist() == [False, False, True] and scores.left_out == 3
    assert scores.gain.isnan().tolist() == [False, False, True]
    assert "the safety checker blackened" in caplog.text
    alone = gain_scorer(tmp_path / "alone", Painter()).score(refinements[:1], [[1]])
    assert scores.gain[0] == pytest.approx(alone.gain[0].item()), "the mean is over the seeds that are left"
    later = gain_scorer(tmp_path / "half", Half("nothing"))
    assert later.images.score_plain(["gore"], [2]).blackened.tolist() == [True], "the cache knows it"


def test_a_black_image_without_a_checker_is_an_image(tmp_path: Path) -> None:
    generator = Checked("fog")
    generator.has_safety_checker = False
    scorer = ImageScorer(generator, [Brightness("red", 0, 1.0)], PlainScoreCache(tmp_path))
    assert scorer.score(["a dog"], ["a dog, fog"], [1])["red"].tolist() == [0.0]


def test_a_group_is_of_those_that_have_a_score() -> None:
    scores = torch.tensor([1.0, torch.nan, 3.0, 7.0, torch.nan, torch.nan])
    advantages = ppo.group_advantages(scores, 3, epsilon=1e-12, scored=scores.isfinite())
    torch.testing.assert_close(advantages, torch.tensor([-(0.5**0.5), 0.0, 0.5**0.5, 0.0, 0.0, 0.0]))


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    return warm_up(tmp_path_factory.mktemp("warm"), data)


@pytest.mark.parametrize("baseline", BASELINES)
def test_rl_leaves_blackened_rollouts_out_and_counts_them(tmp_path: Path, warm: Path, baseline: str) -> None:
    class Often(Checked):
        def is_unsafe(self, prompt: str, seed: int) -> bool:
            return "," in prompt and len(prompt) % 3 == 0

    parts = replace(make_parts(warm), generator=Often(""), rewards=[Strict("red", 0, 1.0), Strict("green", 1, 0.01)])
    settings = rl_settings(tmp_path, loop=replace(LOOP, steps=2), rollouts=ROLLOUTS, ppo=BASELINES[baseline])
    metrics = rl.run(settings, parts)
    assert torch.isfinite(torch.tensor([metrics["last"]["dev_reward"], metrics["best"]["dev_reward"]])).all()
    table = pd.read_parquet(tmp_path / "rl" / "rollouts")
    assert table.reward.isna().any() and table.reward.notna().any()
    assert (table.reward.isna() == (table.refined_prompt.str.len() % 3 == 0)).all()
    with (tmp_path / "rl" / "logs" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["reward"]]
    by_iteration = table.groupby("iteration").reward
    assert [int(float(row["blackened"])) for row in rows] == by_iteration.apply(lambda each: each.isna().sum()).tolist()
    assert [float(row["reward"]) for row in rows] == pytest.approx(by_iteration.mean().tolist(), abs=1e-4)


@pytest.mark.parametrize("baseline", BASELINES)
def test_rollouts_without_a_score_take_no_part_in_the_loss(tmp_path: Path, warm: Path, baseline: str) -> None:
    module = rl.build_module(make_parts(warm), rl_settings(tmp_path, ppo=BASELINES[baseline]), tmp_path / "rl")
    prompts = [prompt for prompt in module.context.train_prompts[:4] for _ in range(3)]
    refinements = module.context.policy.refine(prompts, 1.0, [(0, number) for number in range(12)])
    scores = module.context.scorer.score(refinements, [[0]] * 12)
    unscored = torch.arange(12) % 4 == 0
    scores = replace(scores, gain=scores.gain.masked_fill(unscored, torch.nan), blackened=unscored)
    experience, metrics = module.experience(refinements, scores)
    assert not experience.batch.mask[unscored].any() and experience.batch.mask[~unscored].any(dim=1).all()
    assert experience.lengths[unscored].eq(0).all() and experience.advantages.isfinite().all()
    assert metrics["reward"] == pytest.approx(scores.gain[~unscored].mean().item(), rel=1e-5)
    loss, _ = module(experience, unscored.nonzero().squeeze(1))
    assert loss.item() == 0
    assert module(experience, torch.arange(12))[0].isfinite()


def test_prepare_sets_black_images_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    from prip.training.data import scoring
    from prip.training.data.images import ImageBatch

    images = torch.full((3, 3, 4, 4), 90, dtype=torch.uint8)
    images[1] = 0
    monkeypatch.setattr(scoring, "job_batches", lambda *given: iter([ImageBatch([0, 1, 2], images)]))
    rows = pd.DataFrame({"image_name": ["a", "b", "c"], "part": "p", "text": "t"})
    table = Scorer([Strict("red", 0, 1.0)], 8)(Job("p", rows, {}))
    assert table.reason.tolist() == ["", "every pixel is black, as a safety checker leaves it", ""]
    assert table.red.notna().tolist() == [True, False, True]


@pytest.mark.parametrize("preset", ["paper", "tinyllama", "modern", "paper-dry"])
def test_presets_draw_without_a_checker(preset: str) -> None:
    settings: Any = parse_settings("rl", ["--config", preset, "--run", "r"])
    assert settings.parts.generator_options["safety_checker"] is False
    if preset.startswith("paper"):
        settings = parse_settings("tune", ["--config", preset, "--run", "r"])
        assert settings.generator_options["safety_checker"] is False
