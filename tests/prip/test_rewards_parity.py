"""The published rewards against the packages they come from: golden files of tests/parity, their own weight names."""

from __future__ import annotations

import json

import pytest
import torch
from golden import PARITY, Golden, read_golden, read_shapes
from tiny_rewards import bert_tokenizer, clip_fields, image_reward_config

from prip.rewards import load_reward
from prip.rewards.aesthetic import Aesthetic, AestheticConfig
from prip.rewards.clip_scorer import (
    ClipScore,
    ClipScoreConfig,
    PickScore,
    PickScoreConfig,
    clean_text,
    clip_token_ids,
    inside,
)
from prip.rewards.hps_v2 import HpsV2, HpsV2Config, from_open_clip
from prip.rewards.image_reward import ImageReward, ImageRewardConfig, from_blip
from prip.rewards.preprocessing import clip_pixels, padded_pixels
from prip.rewards.scorer import head_name

CLOSE = {"rtol": 1e-6, "atol": 2e-6}


def scores(reward, golden: Golden) -> torch.Tensor:
    """Every prompt with every image: float32 (prompts, images)."""
    rows = [torch.cat([reward([prompt], image) for image in golden.images]) for prompt in golden.notes["prompts"]]
    return torch.stack(rows)


def differ(values: torch.Tensor) -> bool:
    """Whether both the prompt and the image make a difference, so that agreement means something."""
    return bool(values.std(0).min() > 1e-4 and values.std(1).min() > 1e-4)


@pytest.fixture(scope="module")
def image_reward(tmp_path_factory) -> tuple[ImageReward, Golden]:
    """ImageReward, read from a pickled file as its authors publish it."""
    golden = read_golden("image_reward/image_reward.safetensors")
    folder = tmp_path_factory.mktemp("image_reward")
    torch.save(golden.weights, folder / "ImageReward.pt")
    tokens = (PARITY / "image_reward" / "vocab.txt").read_text(encoding="utf-8").split()
    from prip.processing import save_tokenizer

    save_tokenizer(bert_tokenizer(tokens), folder)
    config = image_reward_config()
    config.text = {**config.text, "num_attention_heads": 3, "max_position_embeddings": 48}
    return ImageReward.from_original(str(folder), config=config), golden


def test_image_reward_scores_as_its_package_does(image_reward):
    reward, golden = image_reward
    assert differ(golden.values["scores"])
    torch.testing.assert_close(scores(reward, golden), golden.values["scores"], **CLOSE)
    first = torch.cat([reward([prompt], golden.images[0]) for prompt in golden.notes["prompts"]])
    torch.testing.assert_close(first, golden.values["scores_of_one"], **CLOSE)


def test_image_reward_gives_a_list_of_one_a_tensor_of_one(image_reward):
    reward, golden = image_reward
    one = reward(golden.notes["prompts"][:1], golden.images[0])
    assert one.shape == (1,)
    torch.testing.assert_close(one[0], golden.values["score_of_a_list_of_one"], **CLOSE)


def test_image_reward_cuts_and_pads_as_its_package_does(image_reward):
    reward, golden = image_reward
    input_ids, mask = reward.encode(golden.notes["prompts"])
    assert input_ids.shape == (3, 35) and bool(mask[2].all()) and not bool(mask[0].all())
    assert torch.equal(input_ids, golden.values["ids"]) and torch.equal(mask, golden.values["mask"])


def test_hps_v2_scores_as_its_package_does(tmp_path):
    golden = read_golden("hpsv2/tiny.safetensors")
    torch.save({"state_dict": golden.weights, "epoch": 3, "name": "HPS"}, tmp_path / "HPS_v2.1_compressed.pt")
    reward = HpsV2.from_original(str(tmp_path), release="hps-v2.1", clip=clip_fields())
    assert reward.name == "hps-v2.1" and differ(golden.values["scores"])
    torch.testing.assert_close(scores(reward, golden) / 100, golden.values["scores"], **CLOSE)


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_clip_score_is_open_clip_s_cosine(activation):
    golden = read_golden(f"open_clip/{activation}.safetensors")
    weights = inside("clip", from_open_clip(golden.weights))
    reward = ClipScore.from_weights(ClipScoreConfig(clip=clip_fields(activation)), weights, "golden")
    assert differ(golden.values["cosines"])
    torch.testing.assert_close(scores(reward, golden), golden.values["cosines"], **CLOSE)


def test_clip_and_aesthetic_score_as_image_reward_s_package_does(tmp_path):
    golden = read_golden("image_reward/clip_scores.safetensors")
    head = {k.removeprefix("aesthetic."): v for k, v in golden.weights.items() if k.startswith("aesthetic.")}
    clip = from_open_clip({k: v for k, v in golden.weights.items() if not k.startswith("aesthetic.")})
    cosine = ClipScore.from_weights(ClipScoreConfig(clip=clip_fields("quick_gelu")), inside("clip", clip), "golden")
    torch.testing.assert_close(scores(cosine, golden), golden.values["cosines"], **CLOSE)

    (tmp_path / "clip").mkdir()
    cosine.clip.save_pretrained(tmp_path / "clip")
    torch.save(head, tmp_path / "sac+logos+ava1-l14-linearMSE.pth")
    reward = Aesthetic.from_original(str(tmp_path), head=[32, 16, 8, 4])
    found = scores(reward, golden)
    assert golden.values["aesthetics"].std() > 1e-3
    torch.testing.assert_close(found, golden.values["aesthetics"].expand_as(found), **CLOSE)


@pytest.mark.parametrize(
    ("name", "prepare"),
    [
        ("image_reward/image_reward.safetensors", clip_pixels),
        ("image_reward/clip_scores.safetensors", clip_pixels),
        ("open_clip/gelu.safetensors", clip_pixels),
        ("hpsv2/tiny.safetensors", padded_pixels),
    ],
)
def test_images_of_any_size_are_prepared_as_the_packages_do(name, prepare):
    golden = read_golden(name)
    pixels = torch.cat([prepare(image, 32) for image in golden.images])
    torch.testing.assert_close(pixels, golden.values["pixels"], rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    "name", ["open_clip/gelu.safetensors", "hpsv2/tiny.safetensors", "image_reward/clip_scores.safetensors"]
)
def test_prompts_are_tokenized_as_the_packages_do(name):
    golden = read_golden(name)
    ids = clip_token_ids([clean_text(prompt) for prompt in golden.notes["prompts"]], 77)
    theirs = golden.values["ids"].long()
    last = theirs.argmax(1)
    assert last.max() == 76 and torch.equal(ids.argmax(1), last)
    for ours, reference, end in zip(ids, theirs, last.tolist(), strict=True):
        assert torch.equal(ours[: end + 1], reference[: end + 1])


def own_shapes(build) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(weight.shape) for name, weight in build().state_dict().items()}


def shapes(weights) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.shape) for name, weight in weights.items()}


def test_every_weight_of_the_published_sizes_has_its_place():
    head = {head_name(name): weight for name, weight in read_shapes("image_reward/aesthetic.json").items()}
    vit_l_14 = from_open_clip(read_shapes("open_clip/ViT-L-14.json"))
    vit_h_14 = inside("clip", from_open_clip(read_shapes("hpsv2/ViT-H-14.json")))
    vision = {k: v for k, v in vit_l_14.items() if k.startswith(("vision_model.", "visual_projection."))}
    blip = from_blip(read_shapes("image_reward/ImageReward.json"))

    assert shapes(blip) == own_shapes(lambda: ImageReward(ImageRewardConfig()))
    assert shapes(vit_h_14) == own_shapes(lambda: HpsV2(HpsV2Config()))
    assert shapes(vit_h_14) == own_shapes(lambda: PickScore(PickScoreConfig()))
    assert shapes(inside("clip", vit_l_14)) == own_shapes(lambda: ClipScore(ClipScoreConfig()))
    found = shapes({**inside("clip", vision), **inside("head", head)})
    assert found == own_shapes(lambda: Aesthetic(AestheticConfig()))


OLD_TEXT = {"_name_or_path": "", "architectures": None, "bad_words_ids": None, "do_sample": False, "dropout": 0.0}
OLD_TEXT |= {"eos_token_id": 2, "num_beams": 1, "top_k": 50, "torch_dtype": None, "transformers_version": "4.16.0.dev0"}
"""Of what openai/clip-vit-large-patch14's config.json says of its text tower, what transformers writes no more."""


def test_pick_score_reads_a_clip_of_transformers_of_today_and_of_old(tmp_path):
    from transformers import CLIPConfig, CLIPModel

    golden = read_golden("open_clip/gelu.safetensors")
    weights, config = from_open_clip(golden.weights), CLIPConfig(**clip_fields())
    CLIPModel.from_pretrained(None, config=config, state_dict=weights).save_pretrained(tmp_path)
    images, prompts = golden.images[2], golden.notes["prompts"][:1]
    expected = weights["logit_scale"].exp() * golden.values["cosines"][:1, 2]
    reward = PickScore.from_original(str(tmp_path))
    torch.testing.assert_close(reward(prompts, images), expected, rtol=1e-5, atol=1e-5)

    positions = {f"{tower}_model.embeddings.position_ids": torch.arange(9)[None] for tower in ("text", "vision")}
    (tmp_path / "model.safetensors").unlink()
    torch.save({**weights, **positions}, tmp_path / "pytorch_model.bin")
    told = json.loads((tmp_path / "config.json").read_text())
    told["text_config"] |= OLD_TEXT
    told |= {"text_config_dict": clip_fields()["text_config"], "torch_dtype": "float32"}
    (tmp_path / "config.json").write_text(json.dumps(told))
    old = PickScore.from_original(str(tmp_path))
    torch.testing.assert_close(old(prompts, images), expected, rtol=1e-5, atol=1e-5)
    old.save_pretrained(tmp_path / "own")
    torch.testing.assert_close(load_reward(tmp_path / "own")(prompts, images), expected, rtol=1e-5, atol=1e-5)
