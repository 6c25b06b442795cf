"""Rewards, judges and pivot encoder, with random weights: shapes, saving and loading, independence of the batch."""

from __future__ import annotations

import pytest
import torch

from prip.errors import CheckpointError, InputError
from prip.loading.folders import whole_folder
from prip.miniature.judges import load_judges
from prip.miniature.prompts import system_prompt, user_prompts
from prip.miniature.reader import Reader, ReaderConfig
from prip.pivot_encoders import load_pivot_encoder
from prip.pivot_encoders.qformer import QFormerPivotEncoder, QFormerPivotEncoderConfig
from prip.protocols import PivotEncoder, Reward
from prip.randomness import random_generator
from prip.rewards import StandardisedSum, load_reward
from prip.rewards.prompt_reward import TOKEN_REPEATS, PromptReward, PromptRewardConfig, occurrences, without_repeats

USERS = ["a cat in town", "one robot", "a very long prompt about a castle among dunes and more"]


@pytest.fixture()
def images() -> torch.Tensor:
    return torch.randint(0, 256, (3, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def make_reward(tiny_checkpoint, name: str = "tiny") -> PromptReward:
    from prip.processing import load_tokenizer

    tokenizer = load_tokenizer(tiny_checkpoint / "encoder")
    torch.manual_seed(0)
    model = PromptReward(PromptRewardConfig(name=name, vocab_size=len(tokenizer), trunk_width=32, width=16)).eval()
    model.tokenizer = tokenizer
    return model


def test_a_reward_scores_alike_alone_in_a_batch_and_after_saving(tiny_checkpoint, tmp_path, images):
    reward = make_reward(tiny_checkpoint)
    assert isinstance(reward, Reward)
    scores = reward(USERS, images)
    assert scores.shape == (3,) and scores.dtype == torch.float32
    alone = torch.cat([reward([user], images[i : i + 1]) for i, user in enumerate(USERS)])
    torch.testing.assert_close(scores, alone, rtol=1e-5, atol=1e-5)
    assert reward([], images[:0]).shape == (0,)
    reward.save_pretrained(tmp_path / "reward")
    loaded = load_reward(tmp_path / "reward")
    assert loaded.name == "tiny"
    torch.testing.assert_close(loaded(USERS, images), scores, rtol=1e-6, atol=1e-7)
    assert not torch.allclose(reward(USERS[::-1], images), scores)


def test_repeated_words_and_letters_are_counted() -> None:
    assert without_repeats("a cat, cat; cat cat a cat dog cat") == "a cat, cat; cat cat a dog "
    assert without_repeats("🦊 in \u96ea, cut-out") == "🦊 in \u96ea, cut-out"
    ids = torch.tensor([[7, 3, 7, 7, 3, 0, 0], [5, 5, 5, 5, 1, 2, 5]])
    assert occurrences(ids).tolist() == [[1, 1, 2, 3, 2, 1, 2], [1, 2, 3, 4, 1, 1, 5]]
    assert occurrences(ids[:, :0]).shape == (2, 0)


SHIPPED = ["rewards/mini-hps", "rewards/mini-reward", "readers/c"]


@pytest.mark.parametrize("part", SHIPPED)
def test_a_repeated_word_does_not_carry_a_score_away(part: str, images) -> None:
    reward = load_reward(whole_folder("prip-mini") / part)
    deviation = reward.config.score_deviation
    score = lambda prompt: float(reward([prompt], images[:1])) / deviation  # noqa: E731
    assert score("cat " * 1000) == score("cat " * 10) == score("cat " * 4)
    assert abs(score("cat " * 1000) - score("a cat")) < 5
    assert abs(score("cat dog " * 100) - score("a cat and a dog")) < 6
    assert score("x" * 1000) == pytest.approx(score("x" * 40), abs=1e-4)


@pytest.mark.parametrize("part", SHIPPED)
def test_ordinary_prompts_are_read_as_in_training(part: str) -> None:
    reward = load_reward(whole_folder("prip-mini") / part)
    chance = random_generator("ordinary prompts")
    texts = [prompt for prompt, _ in user_prompts("test", 1, 0, open_place=True)][:100]
    for prompt in [*texts, *(system_prompt("train", chance) for _ in range(100))]:
        ids, mask = reward.encode([prompt])
        assert ids[0].tolist() == reward.tokenizer(prompt.lower())["input_ids"] and mask.all()
    assert TOKEN_REPEATS > 9, "so often a system prompt of the miniature spells a letter"


def test_standardised_sum_by_hand(tiny_checkpoint, images):
    first, second = make_reward(tiny_checkpoint, "first"), make_reward(tiny_checkpoint, "second")
    second.config.score_mean, second.config.score_deviation = 27.0, 2.0
    total = StandardisedSum([first, second], {"first": 0.5, "second": 28.0}, {"first": 2.0, "second": 4.0})
    a, b = first(USERS, images), second(USERS, images)
    torch.testing.assert_close(total(USERS, images), ((a - 0.5) / 2 + (b - 28) / 4) / 2)
    assert set(total.parts(USERS, images)) == {"first", "second"}
    with pytest.raises(InputError, match="second"):
        StandardisedSum([first, second], {"first": 0.0}, {"first": 1.0})


def test_a_pivot_encoder_saves_loads_and_does_not_train(tmp_path, images):
    torch.manual_seed(0)
    config = QFormerPivotEncoderConfig(pivot_length=4, pivot_width=32, trunk_width=32, layers=1)
    encoder = QFormerPivotEncoder(config).eval()
    assert isinstance(encoder, PivotEncoder)
    pivots = encoder(images)
    assert pivots.shape == (3, 4, 32) and pivots.dtype == torch.float32
    torch.testing.assert_close(encoder(images[1:2])[0], pivots[1], rtol=1e-4, atol=1e-5)
    encoder.save_pretrained(tmp_path)
    loaded = load_pivot_encoder(tmp_path)
    torch.testing.assert_close(loaded(images), pivots, rtol=0, atol=0)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    with pytest.raises(CheckpointError, match="expected a reward's model_type"):
        load_reward(tmp_path)


def test_judges_read_what_readers_see(tiny_checkpoint, tmp_path, images):
    torch.manual_seed(0)
    Reader(ReaderConfig(trunk_width=32, width=16)).save_pretrained(tmp_path / "b")
    make_reward(tiny_checkpoint, "second_reward").save_pretrained(tmp_path / "c")
    judges = load_judges(tmp_path)
    for name, judge in judges._asdict().items():
        assert judge.name == name and judge(USERS, images).shape == (3,)
    assert ((judges.truth(USERS, images) >= 0) & (judges.truth(USERS, images) <= 1)).all()
    with pytest.raises(ValueError, match="an unknown thing"):
        judges.truth(["an unknown thing"], images[:1])
