"""Rollouts: the same text as the refiner's, the probabilities it was sampled with, rewards against the plain prompt."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from made_rl import Brightness, Painter
from tiny_parts import options_with

from prip.decoding.mask_bits import pack_bits, unpack_bits
from prip.errors import CheckpointError, InputError
from prip.refiner import Refiner
from prip.rewards import StandardisedSum
from prip.training.data.reward_statistics import RewardStatistics
from prip.training.rl import ppo
from prip.training.rollouts.image_scorer import ImageScorer, PlainScoreCache
from prip.training.rollouts.policy import Policy, Refinement
from prip.training.rollouts.scores import GainScorer, read_rollouts, rollout_table, write_rollouts

PROMPTS = ["a cat", "a dog on the beach.", "two red apples in a bowl", "a cat"]


@pytest.fixture
def policy(tiny_model, tiny_processor) -> Policy:
    return Policy(Refiner(tiny_model, tiny_processor), max_new_tokens=14, token_budget=40)


@pytest.fixture
def scorer(tmp_path: Path) -> ImageScorer:
    return ImageScorer(Painter(), [Brightness("red", 0, 1.0), Brightness("green", 1, 0.01)], cache(tmp_path))


def cache(folder: Path) -> PlainScoreCache:
    return PlainScoreCache(folder / "baseline")


def test_greedy_refinements_are_the_refiners(policy: Policy) -> None:
    texts = [one.refined_prompt for one in policy.refine(PROMPTS)]
    assert texts == policy.refiner.refine(PROMPTS, max_new_tokens=14, token_budget=40)


def test_a_sample_depends_on_its_own_seed_alone(policy: Policy) -> None:
    seeds = [(3, 0), (3, 1), (3, 2), (3, 3)]
    together = policy.refine(PROMPTS, 1.0, seeds)
    alone = policy.refine(PROMPTS[3:], 1.0, seeds[3:])
    assert together[3] == alone[0]
    assert together[0].actions != together[3].actions


def test_actions_are_scored_as_they_were_chosen(policy: Policy) -> None:
    """One row at a time, token by token, without padding: the log-probabilities of the batch."""
    refinements = policy.refine(PROMPTS, 1.0, [(0, place) for place in range(4)])
    batch = policy.collate(refinements)
    logits, hidden = policy.action_logits(policy.refiner.model.encoder, batch)
    found = ppo.token_log_probabilities(logits, batch.allowed, batch.actions, batch.mask)
    assert hidden.shape == (*found.shape, 32)
    assert batch.mask.sum(dim=1).tolist() == [len(one.actions) for one in refinements]
    for row, one in enumerate(refinements):
        expected = independent_log_probabilities(policy, one.user_prompt, one.actions)
        assert found[row, : len(one.actions)].tolist() == pytest.approx(expected, abs=1e-4)
        assert (found[row, len(one.actions) :] == 0).all()


def independent_log_probabilities(policy: Policy, user_prompt: str, actions: list[int]) -> list[float]:
    """Log-probabilities of the actions, token by token."""
    model, constraints = policy.refiner.model, policy.refiner.sampler.constraints
    rows = constraints.begin([user_prompt], options_with(token_budget=40, max_new_tokens=14))
    ids, mask = policy.refiner.processor.encode_user_prompts([user_prompt])
    pivot = model.encoder(ids, mask)
    tokens, found = policy.refiner.processor.prefix_ids(user_prompt), []
    for action in actions:
        chosen = model.decoder(pivot, torch.tensor([[*tokens, action]])).logits[0, -1]
        allowed = constraints.allowed(rows)[0]
        found.append(chosen.masked_fill(~allowed, -torch.inf).log_softmax(-1)[action].item())
        constraints.advance(rows, [action])
        tokens = [*tokens, action]
    return found


def test_the_gradient_reaches_the_encoder_through_the_frozen_decoder(policy: Policy) -> None:
    model = policy.refiner.model
    batch = policy.collate(policy.refine(PROMPTS))
    logits, _ = policy.action_logits(model.encoder, batch)
    loss = ppo.token_log_probabilities(logits, batch.allowed, batch.actions, batch.mask).sum()
    gradients = torch.autograd.grad(loss, [model.encoder.queries, model.encoder.projection.weight])
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_rows_without_room_have_no_actions(policy: Policy) -> None:
    full = "a cat " * 40 + "a cat"
    assert policy.has_room(["a cat", full]) == [True, False]
    refinements = policy.refine(["a cat", full])
    assert refinements[1] == Refinement(full, full, [])
    assert policy.collate(refinements).mask.any(dim=1).tolist() == [True, False]


def test_rows_are_chosen_together(policy: Policy) -> None:
    batch = policy.collate(policy.refine(PROMPTS))
    some = batch.rows(torch.tensor([2, 0]))
    assert len(some) == 2 and torch.equal(some.input_ids, batch.input_ids[[2, 0]])
    assert torch.equal(some.allowed, batch.allowed[[2, 0]])


def test_constraints_are_held_as_bits(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """An eighth of their bytes, replayed a few refinements at a time."""
    refinements = policy.refine(PROMPTS)
    monkeypatch.setattr("prip.decoding.sampler.REPLAYED_AT_ONCE", 2)
    batch = policy.collate(refinements)
    actions = [one.actions for one in refinements]
    expected = policy.refiner.sampler.constraints.replay(
        PROMPTS,
        actions,
        options_with(token_budget=policy.token_budget, max_new_tokens=policy.max_new_tokens),
    )
    assert len(PROMPTS) > 2 and not expected.all() and torch.equal(batch.allowed, expected)
    assert batch.allowed_bits.nbytes == expected[..., ::8].numel()


@pytest.mark.parametrize("count", [1, 7, 8, 9, 320])
def test_bits_come_back(count: int) -> None:
    values = torch.rand(3, 2, count, generator=torch.Generator().manual_seed(count)) < 0.5
    packed = pack_bits(values)
    assert packed.dtype == torch.uint8 and packed.shape == (3, 2, -(-count // 8))
    assert torch.equal(unpack_bits(packed, count), values)
    assert pack_bits(torch.tensor([True, False, False, True])).item() == 0b1001


def test_the_reward_is_the_gain_over_the_plain_image_of_the_same_seed(scorer: ImageScorer) -> None:
    total = StandardisedSum(scorer.rewards, {"red": 10.0, "green": 0.2}, {"red": 5.0, "green": 0.1})
    refinements = [Refinement("a cat", "a cat, neon light", [5]), Refinement("a dog", "a dog, soft focus", [6])]
    scores = GainScorer(scorer, total).score(refinements, [[1, 2], [3, 4]])
    painter, (red, green) = Painter(), scorer.rewards
    for row, one in enumerate(refinements):
        gains = []
        for seed in ([1, 2], [3, 4])[row]:
            pair = painter([one.refined_prompt, one.user_prompt], [seed, seed])
            raw = [reward(["", ""], pair) for reward in (red, green)]
            gains.append((raw[0][0] - raw[0][1]) / 5 / 2 + (raw[1][0] - raw[1][1]) / 0.1 / 2)
        assert scores.gain[row].item() == pytest.approx(sum(gains).item() / 2, abs=1e-4)
    assert scores.gain[0] > 1 and scores.gain[1] > 1
    assert scores.refined["red"].shape == scores.plain["green"].shape == (2,)


def test_plain_images_are_drawn_once_and_equal_ones_too(tmp_path: Path, scorer: ImageScorer) -> None:
    first = scorer.score_plain(["a cat", "a dog", "a cat"], [1, 1, 1])
    assert scorer.generator.drawn == [("a cat", 1), ("a dog", 1)]
    later = ImageScorer(Painter(), scorer.rewards, cache(tmp_path))
    again = later.score_plain(["a dog", "a cat", "a cat"], [1, 1, 2])
    assert later.generator.drawn == [("a cat", 2)]
    assert all(torch.equal(again[name][:2], first[name][[1, 0]]) for name in ("red", "green"))
    assert len(later.cache) == 3 * 2


def test_a_process_finds_what_another_has_drawn(tmp_path: Path, scorer: ImageScorer) -> None:
    other = ImageScorer(Painter(), scorer.rewards, cache(tmp_path))
    assert len(other.cache) == 0
    first = scorer.score_plain(["a cat", "a dog"], [1, 1], "iteration 0")
    (tmp_path / "baseline" / ".half.json.tmp").write_text("[")
    again = other.score_plain(["a dog", "a cat", "a fox"], [1, 1, 1], "iteration 1")
    assert other.generator.drawn == [("a fox", 1)]
    assert torch.equal(again["red"][:2], first["red"][[1, 0]])
    asked = [("a cat", 1), ("a dog", 1), ("a fox", 1), ("a fox", 2)]
    assert (other.cache.added_at("iteration 0", asked), other.cache.added_at("iteration 1", asked)) == (2, 1)
    (tmp_path / "baseline" / "broken.json").write_text("{}")
    with pytest.raises(CheckpointError, match="broken.json: expected scores of plain images"):
        cache(tmp_path).read([("a cat", 1)], ["red"])


def test_chunks_of_images_bound_what_is_drawn_at_once(tmp_path: Path, scorer: ImageScorer) -> None:
    calls: list[int] = []

    class Counting(Painter):
        def __call__(self, prompts: Any, seeds: Any) -> torch.Tensor:
            calls.append(len(prompts))
            return super().__call__(prompts, seeds)

    chunked = ImageScorer(Counting(), scorer.rewards, PlainScoreCache(tmp_path / "other"), chunk=2)
    jobs = (
        ["a cat"] * 4 + ["a dog"],
        ["a cat, 8k", "a cat, neon light", "a cat, 8k", "a cat", "a dog"],
        [1, 1, 1, 1, 1],
    )
    found, expected = chunked.score(*jobs), scorer.score(*jobs)
    assert calls == [2, 2] and all(torch.equal(found[name], expected[name]) for name in expected)
    plain = chunked.score_plain(["a cat", "a dog", "a fox"], [1, 1, 1])
    assert calls == [2, 2, 2, 1]
    assert torch.equal(plain["red"], scorer.score_plain(["a cat", "a dog", "a fox"], [1, 1, 1])["red"])


def test_chunks_of_prompts_bound_what_is_refined_at_once(policy: Policy) -> None:
    seeds = [(3, place) for place in range(4)]
    assert replace(policy, chunk=3).refine(PROMPTS, 1.0, seeds) == policy.refine(PROMPTS, 1.0, seeds)


def test_a_new_reward_is_not_taken_for_known(tmp_path: Path, scorer: ImageScorer) -> None:
    scorer.score_plain(["a cat"], [1])
    more = ImageScorer(Painter(), [*scorer.rewards, Brightness("blue", 2, 1.0)], cache(tmp_path))
    assert more.score_plain(["a cat"], [1])["blue"].shape == (1,)


def test_rewards_need_names_of_their_own(tmp_path: Path) -> None:
    for rewards in ([], [Brightness("red", 0, 1.0), Brightness("red", 1, 1.0)]):
        with pytest.raises(InputError, match="rewards: expected one or more with distinct names"):
            ImageScorer(Painter(), rewards, cache(tmp_path))


def test_statistics_come_back_from_their_file(tmp_path: Path) -> None:
    path = tmp_path / "statistics.json"
    assert RewardStatistics.read(path, ["red"]) is None
    measured = RewardStatistics.measure({"red": torch.tensor([1.0, 1.0, 3.0, 3.0]), "green": torch.tensor([0.0, 4.0])})
    assert measured == RewardStatistics({"red": 2.0, "green": 2.0}, {"red": 1.0, "green": 2.0})
    measured.write(path)
    assert RewardStatistics.read(path, ["red", "green"]) == measured
    assert RewardStatistics.read(path, ["red", "blue"]) is None
    with pytest.raises(InputError, match="red gave one value only"):
        RewardStatistics.measure({"red": torch.ones(3)})


def rows(scorer: ImageScorer, refinements: list[Refinement], log_probabilities: torch.Tensor) -> pd.DataFrame:
    """The table of refinements drawn with seed 7, which the reference finds half as likely at each action."""
    total = StandardisedSum(scorer.rewards, {"red": 10.0, "green": 0.2}, {"red": 5.0, "green": 0.1})
    seeds = [[7]] * len(refinements)
    scores = GainScorer(scorer, total).score(refinements, seeds)
    return rollout_table(
        refinements,
        scores,
        image_seeds=seeds,
        log_probabilities=log_probabilities,
        reference=log_probabilities + math.log(0.5),
    )


def test_an_iteration_written_twice_is_there_once(tmp_path: Path, scorer: ImageScorer) -> None:
    refinements = [Refinement("a cat", "a cat, neon light", [5, 1])]
    table = rows(scorer, refinements, torch.tensor([[-1.0, -0.5, 0.0]]))
    for iteration in (0, 1, 1):
        write_rollouts(tmp_path / "rollouts", iteration, table)
    (tmp_path / "rollouts" / ".iteration-000002.parquet.tmp").write_bytes(b"half a file")
    table = pd.read_parquet(tmp_path / "rollouts")
    assert table.iteration.tolist() == [0, 1]
    assert table.refined_prompt[0] == "a cat, neon light" and table.seeds[0].tolist() == [7]
    gain = (table.red[0] - table.red_plain[0]) / 5 / 2 + (table.green[0] - table.green_plain[0]) / 0.1 / 2
    assert table.log_probability[0] == -1.5 and table.reward[0] == pytest.approx(gain, abs=1e-4)
    assert {"red", "green", "red_plain", "green_plain"} <= set(table.columns)


def test_processes_write_rollouts_beside_each_other(tmp_path: Path, scorer: ImageScorer) -> None:
    folder = tmp_path / "rollouts"
    cat, dog = (
        rows(scorer, [Refinement(prompt, f"{prompt}, 8k", [5, 1])], torch.tensor([[-1.0, -0.5]]))
        for prompt in ("a cat", "a dog")
    )
    write_rollouts(folder, 0, cat)
    for process, table in ((1, dog), (0, cat)):
        write_rollouts(folder, 0, table, process, 2)
    assert sorted(path.name for path in folder.iterdir()) == [f"iteration-000000-{n}-of-2.parquet" for n in (1, 2)]
    assert sorted(pd.read_parquet(folder).user_prompt) == ["a cat", "a dog"]
    write_rollouts(folder, 0, cat)
    assert [path.name for path in folder.iterdir()] == ["iteration-000000.parquet"]


def test_actions_and_reference_are_read_back(tmp_path: Path, policy: Policy, scorer: ImageScorer) -> None:
    """The text and the reference's log-probabilities can be computed again from what is stored."""
    full = "a cat " * 40 + "a cat"
    prompts = [*PROMPTS, full]
    refinements = policy.refine(prompts, 1.0, [(5, number) for number in range(len(prompts))])
    batch, encoder = policy.collate(refinements), policy.refiner.model.encoder
    with torch.no_grad():
        logits, _ = policy.action_logits(encoder, batch)
    figures = ppo.token_log_probabilities(logits, batch.allowed, batch.actions, batch.mask)
    write_rollouts(
        tmp_path,
        0,
        rows(scorer, refinements, figures).assign(
            reference_log_probability=[
                row[: len(one.actions)] for row, one in zip(figures.tolist(), refinements, strict=True)
            ]
        ),
    )
    schema = pq.read_schema(tmp_path / "iteration-000000.parquet")
    assert schema.field("actions").type == pa.list_(pa.int32())
    assert schema.field("reference_log_probability").type == pa.list_(pa.float32())
    table = read_rollouts(tmp_path)
    assert table.actions[4].tolist() == table.reference_log_probability[4].tolist() == []
    for row in table.itertuples():
        assert row.refined_prompt == policy.refiner.sampler.text(row.user_prompt, row.actions.tolist())
        assert len(row.actions) == len(row.reference_log_probability) == row.tokens
        assert row.reference_log_probability == pytest.approx(
            independent_log_probabilities(policy, row.user_prompt, row.actions.tolist()), abs=1e-4
        )


def test_rollouts_without_actions_are_refused(tmp_path: Path, scorer: ImageScorer) -> None:
    with pytest.raises(CheckpointError, match="expected rollouts, got no file"):
        read_rollouts(tmp_path)
    table = rows(scorer, [Refinement("a cat", "a cat, 8k", [5, 1])], torch.tensor([[-1.0, -0.5]]))
    write_rollouts(tmp_path, 1, table)
    table.drop(columns=["actions", "reference_log_probability"]).to_parquet(tmp_path / "iteration-000000.parquet")
    with pytest.raises(CheckpointError, match="iteration-000000.parquet: expected the columns actions, reference_log_"):
        read_rollouts(tmp_path)
