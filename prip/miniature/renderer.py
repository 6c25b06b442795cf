"""The renderer: draws scenes exactly. As a generator, it plays the part of an image model unseen in training."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import require
from ..randomness import random_generator
from .scene import parse, sample_scene
from .vocabulary import PLACES, SUBJECTS

GLYPH_SIZE, GLYPH_COLUMNS = 64, 8

SKY_AND_GROUND: dict[str, tuple[tuple[float, float, float], tuple[float, float, float], float]] = {
    "forest": ((0.42, 0.62, 0.40), (0.20, 0.36, 0.16), 0.55),
    "beach": ((0.50, 0.78, 0.95), (0.93, 0.84, 0.60), 0.62),
    "city": ((0.66, 0.70, 0.76), (0.36, 0.36, 0.39), 0.70),
    "mountains": ((0.62, 0.76, 0.92), (0.45, 0.50, 0.42), 0.75),
    "desert": ((0.98, 0.83, 0.58), (0.86, 0.62, 0.34), 0.50),
    "snow": ((0.80, 0.87, 0.95), (0.96, 0.97, 1.00), 0.50),
    "meadow": ((0.58, 0.82, 0.98), (0.47, 0.75, 0.28), 0.45),
    "room": ((0.88, 0.78, 0.70), (0.55, 0.36, 0.24), 0.72),
}
"""By place: colour of the upper part, colour of the lower part, and height of the horizon."""

COMPOSITIONS: tuple[tuple[float, float, float], ...] = (
    (0.95, 0.50, 0.50),
    (0.50, 0.50, 0.68),
    (0.64, 0.33, 0.52),
    (0.76, 0.76, 0.74),
)
"""By composition: the glyph's size and its centre (x, y), as shares of the image's side."""


def _grid(size: int) -> tuple[Tensor, Tensor]:
    """Return the coordinates (y, x) of pixel centres, in 0..1, each `(size, size)`."""
    axis = (torch.arange(size) + 0.5) / size
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return y, x


def _scenery(name: str, y: Tensor, x: Tensor) -> tuple[Tensor, tuple[float, float, float]]:
    """Return the shape that makes a place recognisable: its mask `(size, size)` and its colour."""
    if name == "forest":
        return (((x * 6) % 1 - 0.5).abs() * 0.7 < y - 0.05) & (y < 0.62), (0.10, 0.30, 0.14)
    if name == "beach":
        return (y > 0.45) & (y < 0.62), (0.12, 0.48, 0.78)
    if name == "city":
        height = 0.12 + 0.25 * ((x * 5).floor() * 0.37 % 1)
        return (y > height) & (y < 0.70) & ((x * 5) % 1 > 0.12), (0.30, 0.34, 0.46)
    if name == "mountains":
        return (y > 0.18 + 1.1 * ((x * 2) % 1 - 0.5).abs()) & (y < 0.75), (0.48, 0.42, 0.52)
    if name == "desert":
        return (y > 0.58 + 0.10 * torch.sin(x * 9)) & (y < 0.74), (0.94, 0.72, 0.42)
    if name == "snow":
        return (((x * 7 + y * 3) % 1 - 0.5) ** 2 + ((y * 7) % 1 - 0.5) ** 2 < 0.03) & (y < 0.5), (1.0, 1.0, 1.0)
    if name == "meadow":
        return (((x * 6) % 1 - 0.5) ** 2 + ((y * 6) % 1 - 0.5) ** 2 < 0.05) & (y > 0.55), (0.98, 0.90, 0.35)
    return (x > 0.58) & (x < 0.92) & (y > 0.10) & (y < 0.45), (0.62, 0.85, 0.98)


def _rgb(*color: float) -> Tensor:
    return torch.tensor(color).view(3, 1, 1)


@cache
def _backgrounds(size: int) -> Tensor:
    """Return the background of every place, `(places, 3, size, size)` in 0..1."""
    y, x = _grid(size)
    images = []
    for place in PLACES:
        upper, lower, line = SKY_AND_GROUND[place.name]
        mask, color = _scenery(place.name, y, x)
        image = torch.where(mask, _rgb(*color), torch.where(y < line, _rgb(*upper), _rgb(*lower)))
        images.append(image * (1.06 - 0.12 * y))
    return torch.stack(images).clamp(0, 1)


@cache
def _glyphs() -> Tensor:
    """Return the glyph of every subject as premultiplied RGBA, `(subjects, 4, 64, 64)` in 0..1."""
    image_module = require("PIL.Image", "generate")
    with files(__package__).joinpath("assets/glyphs.png").open("rb") as handle:
        sheet = np.asarray(image_module.open(handle).convert("RGBA"), dtype=np.float32) / 255
    tiles = [
        sheet[row * GLYPH_SIZE : (row + 1) * GLYPH_SIZE, column * GLYPH_SIZE : (column + 1) * GLYPH_SIZE]
        for row, column in (divmod(index, GLYPH_COLUMNS) for index in range(len(SUBJECTS)))
    ]
    glyphs = torch.from_numpy(np.stack(tiles)).permute(0, 3, 1, 2)
    return torch.cat([glyphs[:, :3] * glyphs[:, 3:], glyphs[:, 3:]], dim=1)


def _place_glyphs(subject: Tensor, composition: Tensor, jitter: Tensor, size: int) -> Tensor:
    """Return glyphs at the positions of their compositions, as premultiplied RGBA `(n, 4, size, size)`."""
    side, center_x, center_y = torch.tensor(COMPOSITIONS)[composition].unbind(1)
    center_x, center_y = center_x + jitter[:, 0] / 32, center_y + jitter[:, 1] / 32
    zero = torch.zeros_like(side)
    row_x = torch.stack([1 / side, zero, -(2 * center_x - 1) / side], 1)
    row_y = torch.stack([zero, 1 / side, -(2 * center_y - 1) / side], 1)
    theta = torch.stack([row_x, row_y], 1)
    fine = 2 * size
    grid = F.affine_grid(theta, [len(subject), 4, fine, fine], align_corners=False)
    return F.avg_pool2d(F.grid_sample(_glyphs()[subject], grid, align_corners=False), 2)


def _blur(images: Tensor, sigma: float) -> Tensor:
    """Apply a Gaussian blur to `(n, channels, size, size)`, with repeated edges."""
    radius = max(1, round(2.5 * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(images.shape[1], 1, -1)
    padded = F.pad(images, (radius,) * 4, mode="replicate")
    rows = F.conv2d(padded, kernel[:, :, None], groups=images.shape[1])
    return F.conv2d(rows, kernel[..., None], groups=images.shape[1])


def _focus(image: Tensor, background: Tensor, glyph: Tensor, focus: Tensor) -> Tensor:
    """Draw sharp (dark outlines), detailed (left to `_finish`), bokeh (blurred background) or blurry (all blurred)."""
    alpha, size = glyph[:, 3:], image.shape[-1]
    outline = (F.max_pool2d(alpha, 3, 1, 1) + F.max_pool2d(1 - alpha, 3, 1, 1) - 1).clamp(0, 1)
    sharp = (image + 0.7 * (image - _blur(image, size / 32))) * (1 - 0.75 * outline)
    bokeh = _blur(background, size / 8) * (1 - alpha) + glyph[:, :3]
    blurry = _blur(background, size / 12) * (1 - _blur(alpha, size / 36)) + _blur(glyph[:, :3], size / 36)
    return _choose(focus, sharp, image, bokeh, blurry)


def _choose(index: Tensor, *options: Tensor) -> Tensor:
    """Return a batch whose row i is that of `options[index[i]]`."""
    return torch.stack([option.expand_as(options[0]) for option in options])[index, torch.arange(len(index))]


def _spare(image: Tensor, changed: Tensor, alpha: Tensor, share: float) -> Tensor:
    """Apply only `1 - share` of a change where the glyph is, so that the subject stays recognisable."""
    return changed + share * alpha * (image - changed)


def _color(image: Tensor, color: Tensor) -> Tensor:
    """Draw vivid (stronger colours), pastel (pink haze), monochrome (grey) or washed out (pale and greenish).

    Applied after the light, so that each is as easy to see by night as by day.
    """
    grey = image.mean(1, keepdim=True)
    hue = image - grey
    vivid = grey + 0.15 * (grey - 0.4) + 2.0 * hue
    pastel = 0.60 * (grey + hue) + _rgb(0.40, 0.26, 0.36)
    monochrome = (grey + 0.2 * (grey - 0.4)).expand_as(image)
    washed_out = 0.50 * (grey + 0.4 * hue) + _rgb(0.13, 0.22, 0.14)
    return _choose(color, vivid, pastel, monochrome, washed_out).clamp(0, 1)


def _light(image: Tensor, light: Tensor) -> Tensor:
    """Draw golden hour (low sun from the left), moonlight (blue, a moon), studio (bright cone) or underexposed."""
    y, x = _grid(image.shape[-1])
    sun = torch.exp(-5 * (x**2 + (y - 0.15) ** 2))
    golden = image * _rgb(1.08, 0.84, 0.50) + sun * _rgb(0.75, 0.42, 0.0)
    moon = ((x - 0.84) ** 2 + (y - 0.16) ** 2 < 0.008).float()
    moonlight = image * _rgb(0.36, 0.46, 0.82) + _rgb(0.0, 0.02, 0.14)
    moonlight = moonlight * (1 - moon) + moon * _rgb(0.95, 0.95, 0.85)
    cone = torch.exp(-4.5 * ((x - 0.5) ** 2 + (y - 0.5) ** 2))
    studio = image * (0.45 + 0.85 * cone) + 0.12 * cone
    return _choose(light, golden, moonlight, studio, 0.34 * image).clamp(0, 1)


def _finish(image: Tensor, style: Tensor, focus: Tensor) -> Tensor:
    """Draw the marks of detail (fine texture, glints) and of style (paper, canvas and frame, pencil)."""
    size = image.shape[-1]
    y, x = _grid(size)
    cell_y, cell_x = (y * 16).floor(), (x * 16).floor()
    texture = ((cell_x + cell_y) % 2 * 2 - 1) * 0.15
    image = torch.where((focus == 1)[:, None, None, None], image + texture, image)
    discs = sum(
        torch.exp(-((((x - cx) ** 2 + (y - cy) ** 2) / 0.006) ** 2))
        for cx, cy in ((0.12, 0.22), (0.30, 0.10), (0.66, 0.08), (0.93, 0.42), (0.08, 0.55))
    )
    image = torch.where((focus == 2)[:, None, None, None], image + 0.5 * torch.as_tensor(discs) * (1 - image), image)
    edge = torch.minimum(torch.minimum(x, 1 - x), torch.minimum(y, 1 - y))
    paper = (1 - edge / 0.16).clamp(0, 1)
    watercolor = image * (1 - paper) + paper
    stripes = 0.07 * torch.sin(2 * torch.pi * 8 * (x + y))
    frame = (edge < 0.075).float()
    oil = (image + stripes) * (1 - frame) + frame * _rgb(0.52, 0.34, 0.12)
    hatch = (((x - y) * 8) % 1 < 0.4).float()
    sketch = image * (1 - 0.45 * hatch) + 0.45 * hatch * 0.78
    return _choose(style, image, watercolor, oil, sketch).clamp(0, 1)


def render(scenes: Tensor, jitter: Tensor, size: int) -> Tensor:
    """Draw scenes as uint8 images `(n, 3, size, size)`.

    Args:
        scenes: int64 `(n, factors)`, in the order of `scene.FACTORS`.
        jitter: `(n, 2)`, the shifts right and down, in pixels of a 32-pixel image.
        size: Side of the images in pixels.
    """
    subject, place, light, color, style, focus, composition = scenes.unbind(1)
    background = _backgrounds(size)[place]
    glyph = _place_glyphs(subject, composition, jitter, size)
    image = background * (1 - glyph[:, 3:]) + glyph[:, :3]
    alpha = glyph[:, 3:]
    image = _focus(image, background, glyph, focus).clamp(0, 1)
    image = _spare(image, _light(image, light), alpha, 0.45)
    image = _spare(image, _color(image, color), alpha, 0.35)
    image = _spare(image, _finish(image, style, focus), alpha, 0.75)
    return (image * 255).round().to(torch.uint8)


def glyph_masks(scenes: Tensor, jitter: Tensor, size: int) -> Tensor:
    """Return the subject's share of each pixel of `render`'s images, uint8 `(n, 1, size, size)`."""
    glyph = _place_glyphs(scenes[:, 0], scenes[:, -1], jitter, size)
    return (glyph[:, 3:] * 255).round().to(torch.uint8)


def sample_jitter(generator: torch.Generator) -> list[int]:
    """Sample what no prompt decides: a shift of -1, 0 or 1 pixel each way."""
    return torch.randint(-1, 2, (2,), generator=generator).tolist()


class Renderer:
    """A `Generator` that follows every prompt of the miniature exactly; the seed decides what a prompt leaves open."""

    name = "renderer"
    token_limit = 75

    def __init__(self, size: int = 32, batch_size: int = 256) -> None:
        self.size = size
        self.batch_size = batch_size

    def count_tokens(self, text: str) -> int:
        """Count words and commas."""
        return len(text.replace(",", " , ").split())

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        """Draw one image for each (prompt, seed), uint8 `(n, 3, size, size)`."""
        scenes, jitter = [], []
        for prompt, seed in zip(prompts, seeds, strict=True):
            generator = random_generator("renderer", seed)
            scenes.append(sample_scene(parse(prompt), generator))
            jitter.append(sample_jitter(generator))
        if not scenes:
            return torch.zeros(0, 3, self.size, self.size, dtype=torch.uint8)
        batches = [torch.tensor(column).split(self.batch_size) for column in (scenes, jitter)]
        return torch.cat([render(scene, shift, self.size) for scene, shift in zip(*batches, strict=True)])
