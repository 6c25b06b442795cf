"""Resizing, bit for bit as Pillow does it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from prip.resizing import resize_bicubic

SIZES = [(64, 64, 28, 28), (20, 20, 28, 28), (33, 71, 28, 40), (512, 300, 224, 224), (28, 57, 28, 28), (1, 3, 5, 7)]


@pytest.mark.parametrize(("height", "width", "new_height", "new_width"), SIZES)
def test_every_pixel_is_pillows(height: int, width: int, new_height: int, new_width: int) -> None:
    source = torch.Generator().manual_seed(height * width)
    noise = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8, generator=source)
    noise[1] = torch.where(noise[1] > 127, 255, 0)  # sharp edges: bicubic overshoots both ends of the range
    resized = resize_bicubic(noise, new_height, new_width)
    assert resized.dtype == torch.uint8 and resized.shape == (2, 3, new_height, new_width)
    for image, ours in zip(noise, resized, strict=True):
        lines = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((new_width, height), Image.Resampling.BICUBIC)
        drawn = lines.resize((new_width, new_height), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(ours.permute(1, 2, 0).numpy(), np.asarray(drawn))


def test_square_images_are_pillows_in_one_go() -> None:
    image = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    drawn = Image.fromarray(image[0].permute(1, 2, 0).numpy()).resize((28, 28), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(resize_bicubic(image, 28, 28)[0].permute(1, 2, 0).numpy(), np.asarray(drawn))


def test_the_size_that_is_there_is_left_alone() -> None:
    images = torch.randint(0, 256, (1, 3, 9, 5), dtype=torch.uint8)
    assert torch.equal(resize_bicubic(images, 9, 5), images)
    assert resize_bicubic(images[:0], 4, 4).shape == (0, 3, 4, 4)
