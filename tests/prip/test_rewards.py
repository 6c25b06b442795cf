"""Published rewards by name: how they are named, built, scored with, saved and loaded, and what is refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from tiny_rewards import NAMES, bert_tokenizer, tiny_reward

from prip.errors import CheckpointError, InputError
from prip.loading.published_files import read_weights
from prip.protocols import Reward
from prip.rewards import REWARDS, StandardisedSum, load_reward, parse_reward
from prip.rewards.clip_scorer import ClipScore

USERS = ["a cat in town", "one robot", "a very long prompt about a castle among dunes and more"]


@pytest.fixture()
def images() -> torch.Tensor:
    return torch.randint(0, 256, (3, 3, 40, 48), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("image-reward", ("image-reward", None, None)),
        ("image-reward@v1", ("image-reward", None, "v1")),
        ("image-reward=THUDM/ImageReward@main", ("image-reward", "THUDM/ImageReward", "main")),
        ("image-reward=THUDM/ImageReward@refs/pr/1", ("image-reward", "THUDM/ImageReward", "refs/pr/1")),
        ("hps-v2.1=/data/a@b/HPS.pt", ("hps-v2.1", "/data/a@b/HPS.pt", None)),
        ("clip-score=~/clip=1", ("clip-score", "~/clip=1", None)),
        ("org/reward@abc123", (None, "org/reward", "abc123")),
        ("org/reward", (None, "org/reward", None)),
        ("runs/x/parts/rewards/mini@1", (None, "runs/x/parts/rewards/mini@1", None)),
        ("/tmp/a=b/reward", (None, "/tmp/a=b/reward", None)),
    ],
)
def test_how_a_text_names_a_reward(text, reference):
    assert parse_reward(text) == reference


@pytest.mark.parametrize("text", ["imagereward=org/name", "imagereward"])
def test_an_unknown_name_is_told_the_known_ones(text):
    with pytest.raises(InputError, match="expected one of " + ", ".join(NAMES) + ".* got 'imagereward'"):
        load_reward(text)
    assert tuple(REWARDS) == NAMES


@pytest.mark.parametrize("text", ["image-reward=", "image-reward@"])
def test_half_a_reference_is_refused(text):
    with pytest.raises(InputError, match="reward: expected"):
        parse_reward(text)


@pytest.mark.parametrize("name", NAMES)
def test_a_reward_scores_alike_alone_in_a_batch_and_after_saving(name, tmp_path, images):
    reward = tiny_reward(name)
    assert isinstance(reward, Reward) and reward.name == name
    scores = reward(USERS, images)
    assert scores.shape == (3,) and scores.dtype == torch.float32 and scores.std() > 1e-4
    torch.testing.assert_close(reward(USERS, images, batch_size=2), scores, rtol=1e-5, atol=1e-5)
    assert reward([], images[:0]).shape == (0,)
    with pytest.raises(InputError, match="one for each of 3 user prompts, got 2"):
        reward(USERS, images[:2])

    reward.save_pretrained(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}
    for place in (tmp_path, f"{name}={tmp_path}"):
        loaded = load_reward(place)
        assert loaded.name == name
        torch.testing.assert_close(loaded(USERS, images), scores, rtol=1e-6, atol=1e-6)
        assert not any(parameter.requires_grad for parameter in loaded.parameters())
    other = "hps-v2.0" if name != "hps-v2.0" else "hps-v2.1"
    with pytest.raises(CheckpointError, match=f"expected the reward '{other}', got '{name}'"):
        load_reward(f"{other}={tmp_path}")


@pytest.mark.parametrize("name", NAMES)
def test_what_is_scored_is_the_user_prompt_and_the_image(name, images):
    reward = tiny_reward(name)
    same = images[:1].expand(3, -1, -1, -1)
    spread = reward(USERS, same).std()
    assert spread == 0 if name == "aesthetic" else spread > 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_stays_close(name, tmp_path, images):
    reward = tiny_reward(name)
    reward.save_pretrained(tmp_path)
    half = load_reward(tmp_path, dtype="bfloat16")
    kinds = {parameter.dtype for parameter in half.parameters()}
    assert kinds == ({torch.bfloat16, torch.float32} if hasattr(half, "head") else {torch.bfloat16})
    found, scores = half(USERS, images), reward(USERS, images)
    assert found.dtype == torch.float32 and not torch.equal(found, scores)
    scale = {"pick-score": 14.3, "hps-v2.0": 100, "hps-v2.1": 100}.get(name, 1)
    torch.testing.assert_close(found, scores, rtol=0, atol=0.02 * scale)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_nearer_to_float32_than_bfloat16(name, tmp_path):
    tiny_reward(name).save_pretrained(tmp_path)
    colours = torch.randint(0, 256, (48, 3, 8, 8), generator=torch.Generator().manual_seed(0)).float()
    images = torch.nn.functional.interpolate(colours, (40, 40), mode="bilinear").to(torch.uint8)
    users = [f"{number} cats in {place}" for number, place in enumerate(["town", "a forest", "space"] * 16)]
    exact, half, brain = (
        load_reward(tmp_path, dtype=dtype)(users, images).double() for dtype in ("float32", "float16", "bfloat16")
    )
    errors = [((scores - exact).square().mean().sqrt() / exact.std()).item() for scores in (half, brain)]
    print(f"{name}: float16 {errors[0]:.4f}, bfloat16 {errors[1]:.4f} deviations from float32")
    assert 0 < errors[0] < 0.006 and errors[1] > 4 * errors[0]


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_a_gpu_scores_as_the_cpu_does(name, tmp_path, images):
    reward = tiny_reward(name)
    reward.save_pretrained(tmp_path)
    scores = load_reward(tmp_path, device="cuda")(USERS, images)
    assert scores.device.type == "cpu"
    torch.testing.assert_close(scores, reward(USERS, images), rtol=1e-3, atol=1e-3)


def test_rewards_of_scales_that_differ_by_a_hundred_count_the_same(images):
    rewards = [tiny_reward("image-reward"), tiny_reward("hps-v2.0")]
    parts = {reward.name: reward(USERS, images) for reward in rewards}
    means = {name: float(scores.mean()) for name, scores in parts.items()}
    deviations = {name: float(scores.std()) for name, scores in parts.items()}
    total = StandardisedSum(rewards, means, deviations)(USERS, images)
    expected = sum((parts[name] - means[name]) / deviations[name] for name in parts) / 2
    torch.testing.assert_close(total, expected)


class Hostile:
    """Unpickling it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_that_holds_code_is_refused_and_not_run(tmp_path):
    torch.save({"state_dict": {"logit_scale": torch.ones(1), "more": Hostile(tmp_path / "ran")}}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        load_reward(f"hps-v2.0={tmp_path / 'w.pt'}")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Hostile(tmp_path / "ran"), protocol=2))
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        read_weights(tmp_path / "plain.pt")
    torch.save([torch.ones(1)], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="tensors by name"):
        read_weights(tmp_path / "list.pt")
    assert not (tmp_path / "ran").exists()


def test_weights_that_do_not_fit_are_listed():
    reward = tiny_reward("clip-score")
    weights = {name: weight for name, weight in reward.state_dict().items()}
    weights["clip.stranger"] = weights.pop("clip.logit_scale")
    weights["clip.visual_projection.weight"] = torch.zeros(3, 3)
    with pytest.raises(CheckpointError) as error:
        ClipScore.from_weights(reward.config, weights, "weights of somebody")
    for told in ("weights of somebody", "missing clip.logit_scale", "unexpected clip.stranger", "visual_projection"):
        assert told in str(error.value)


def test_places_without_weights(tmp_path):
    with pytest.raises(CheckpointError, match=r"expected ImageReward\.pt, found none"):
        load_reward(f"image-reward={tmp_path}")
    with pytest.raises(CheckpointError, match=r"HPS_v2\.1_compressed\.pt of checkpoint 'no/where' at revision 'r'"):
        load_reward("hps-v2.1=no/where@r")
    with pytest.raises(CheckpointError, match="no/where"):
        load_reward("pick-score=no/where")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CheckpointError, match="expected model_type 'clip', got 'bert'"):
        load_reward(f"clip-score={tmp_path}")
    with pytest.raises(CheckpointError, match="expected a reward's model_type, got 'bert'"):
        load_reward(tmp_path)


def test_a_long_user_prompt_is_cut(images):
    reward = tiny_reward("image-reward")
    start = "castle " * 60
    left, right = reward([start + "one", start + "two"], images[:1].expand(2, -1, -1, -1))
    assert left == right
    assert bert_tokenizer()("a b c")["input_ids"][0] == 2
