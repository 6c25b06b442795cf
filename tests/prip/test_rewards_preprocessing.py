"""How images and prompts are prepared: against Pillow, transformers' CLIP processor, and numbers worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from prip.errors import InputError
from prip.rewards.clip_scorer import clean_text, clip_token_ids
from prip.rewards.preprocessing import (
    check_pairs,
    clip_pixels,
    normalise,
    padded_pixels,
    processor_pixels,
    size_of_longer_edge,
    size_of_shorter_edge,
)


def make_images(height: int, width: int) -> torch.Tensor:
    source = torch.Generator().manual_seed(height * width)
    return torch.randint(0, 256, (2, 3, height, width), generator=source, dtype=torch.uint8)


@pytest.mark.parametrize("size", [(33, 53), (40, 22), (32, 32), (57, 57), (20, 31), (64, 96)])
def test_pick_score_s_pixels_are_those_of_transformers(size):
    from transformers import CLIPImageProcessorPil

    images = make_images(*size)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    theirs = processor([image.permute(1, 2, 0).numpy() for image in images], return_tensors="pt")["pixel_values"]
    ours = processor_pixels(images, 32)
    assert ours.shape == (2, 3, 32, 32) and ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)


@pytest.mark.parametrize("pixels_of", [clip_pixels, processor_pixels])
def test_lines_come_first_in_tall_images_whatever_pillow_does(pixels_of):
    images = make_images(512, 100)  # Pillow 13 begins with the columns of this one
    expected = []
    for image in images:
        lines = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((32, 512), Image.Resampling.BICUBIC)
        columns = np.asarray(lines.resize((32, 163), Image.Resampling.BICUBIC))
        top = 66 if pixels_of is clip_pixels else 65  # a margin of 65.5 lines
        expected.append(torch.from_numpy(columns[top : top + 32].copy()).permute(2, 0, 1))
    assert torch.equal(pixels_of(images, 32), normalise(torch.stack(expected) / 255))


def test_only_the_crop_tells_the_two_clip_preparations_apart():
    images = make_images(33, 53)  # 32 x 51 when resized: 9.5 columns lie on either side
    left, right = clip_pixels(images, 32), processor_pixels(images, 32)
    assert not torch.equal(left, right)
    assert torch.equal(left[..., :-1], right[..., 1:])


def test_sizes_by_hand():
    assert size_of_shorter_edge(make_images(33, 53), 32) == (32, 51)
    assert size_of_shorter_edge(make_images(40, 22), 32) == (58, 32)
    assert size_of_shorter_edge(make_images(7, 7), 32) == (32, 32)
    assert size_of_longer_edge(make_images(33, 53), 32) == (20, 32)
    assert size_of_longer_edge(make_images(40, 22), 32) == (32, 18)
    assert size_of_longer_edge(make_images(1, 500), 32) == (1, 32)


def test_hps_fills_up_with_black_around_the_middle():
    black = normalise(torch.zeros(3, 1, 1))
    pixels = padded_pixels(torch.full((1, 3, 64, 34), 255, dtype=torch.uint8), 32)[0]
    assert torch.equal(pixels[..., :7], black.expand(3, 32, 7)) and torch.equal(
        pixels[..., 24:], black.expand(3, 32, 8)
    )
    white = normalise(torch.ones(3, 1, 1)).expand(3, 32, 17)
    torch.testing.assert_close(pixels[..., 7:24], white, rtol=0, atol=1e-5)
    assert padded_pixels(torch.zeros(1, 3, 20, 32, dtype=torch.uint8), 32).shape == (1, 3, 32, 32)


def test_normalising_by_hand():
    pixels = clip_pixels(torch.tensor([0, 128, 255], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 4, 4), 4)
    expected = [-0.48145466 / 0.26862954, (128 / 255 - 0.4578275) / 0.26130258, (1 - 0.40821073) / 0.27577711]
    np.testing.assert_allclose(pixels[0, :, 0, 0].numpy(), expected, rtol=1e-6)


def test_pairs_are_checked():
    images = make_images(8, 8)
    check_pairs(2, images)
    with pytest.raises(InputError, match="one for each of 3 user prompts, got 2"):
        check_pairs(3, images)
    for foreign in (images.float(), images[0], images[:, :1], images[..., :0]):
        with pytest.raises(InputError, match=r"expected uint8 \(n, 3, height, width\), got"):
            check_pairs(2, foreign)


def test_prompts_are_framed_cut_and_padded():
    ids = clip_token_ids(["a cat", "", "cat " * 100], 77)
    assert ids[0, :5].tolist() == [49406, 320, 2368, 49407, 49407]
    assert ids[1].tolist() == [49406] + [49407] * 76
    assert ids[2].tolist() == [49406] + [2368] * 75 + [49407]


def test_prompts_are_mended():
    assert clean_text(" it\u2019s R&amp;amp;B cafÃ© ") == "it's R&B café"
