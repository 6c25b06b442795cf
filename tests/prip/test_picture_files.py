"""Pictures that people bring: shown as viewers show them, or refused with one line."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from prip.picture_files import MAX_SIDE, BadImageError, read_image, read_picture
from prip.training.data.images import read_batches

WHITE, RED, BLUE = [255, 255, 255], [255, 0, 0], [0, 0, 255]


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def png(width: int, height: int, depth: int, color: int, rows: bytes, transparent: bytes = b"") -> bytes:
    """A PNG by hand, in formats that Pillow does not write; `rows` are the samples of all rows, one after another."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    size = len(rows) // height
    lines = b"".join(b"\0" + rows[start : start + size] for start in range(0, len(rows), size))
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    aside = chunk(b"tRNS", transparent) if transparent else b""
    body = chunk(b"IHDR", header) + aside + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def row(content: bytes) -> list[list[int]]:
    """The pixels of the first row."""
    return read_image(content)[:, 0].T.tolist()


def two(mode: str, left: object, right: object) -> Image.Image:
    image = Image.new(mode, (2, 1), left)  # type: ignore[arg-type]
    image.putpixel((1, 0), right)  # type: ignore[arg-type]
    return image


@pytest.mark.parametrize(("kind", "tolerance"), [("PNG", 0), ("WEBP", 0), ("JPEG", 4)])
def test_the_three_kinds_from_a_path_and_from_memory(tmp_path: Path, kind: str, tolerance: int) -> None:
    content = saved(Image.new("RGB", (5, 3), (10, 200, 90)), kind, **({"lossless": True} if kind == "WEBP" else {}))
    (tmp_path / "picture").write_bytes(content)
    image = read_image(tmp_path / "picture")
    assert image.dtype == torch.uint8 and image.shape == (3, 3, 5) and image.is_contiguous()
    assert torch.equal(image, read_image(content)) and torch.equal(image, read_image(str(tmp_path / "picture")))
    assert (image[:, 1, 2] - torch.tensor([10, 200, 90])).abs().max() <= tolerance
    assert read_picture(content).mode == "RGB"


def test_gray_of_16_bits_is_scaled() -> None:
    levels = np.array([[0, 257, 128 * 257, 65535, 1000]], np.uint16)
    assert row(saved(Image.fromarray(levels))) == [[level] * 3 for level in (0, 1, 128, 255, 4)]
    content = png(2, 1, 16, 0, struct.pack(">HH", 1000, 40_000), struct.pack(">H", 1000))
    assert row(content) == [WHITE, [156] * 3], "a transparent level"


def test_what_is_transparent_is_white() -> None:
    assert row(saved(two("RGBA", (255, 0, 0, 255), (9, 9, 9, 0)))) == [RED, WHITE]
    assert row(saved(two("RGBA", (0, 0, 0, 51), (0, 0, 255, 255)))) == [[204] * 3, BLUE], "a fifth of black"
    assert row(saved(two("LA", (9, 0), (9, 255)))) == [WHITE, [9] * 3]
    assert row(saved(two("RGBA", (9, 9, 9, 0), (0, 0, 255, 255)), "WEBP", lossless=True)) == [WHITE, BLUE]
    assert row(saved(two("L", 7, 8), transparency=7)) == [WHITE, [8] * 3]
    assert row(saved(two("RGB", (1, 2, 3), (1, 2, 4)), transparency=(1, 2, 3))) == [WHITE, [1, 2, 4]]
    assert row(saved(two("1", 0, 1), transparency=0)) == [WHITE, WHITE]


@pytest.mark.parametrize(("transparency", "right"), [(0, BLUE), (b"\0\xff", BLUE), (b"\0\x33", [204, 204, 255])])
def test_palettes_with_transparency(transparency: int | bytes, right: list[int]) -> None:
    image = two("P", 0, 1)
    image.putpalette([*RED, *BLUE])
    assert row(saved(image)) == [RED, BLUE]
    assert row(saved(image, transparency=transparency)) == [WHITE, right]


def test_transparent_colors_of_other_depths() -> None:
    assert row(png(2, 1, 2, 0, bytes([0b01_10_0000]), b"\0\1")) == [WHITE, [170] * 3]
    assert row(png(2, 1, 4, 0, bytes([0x12]), b"\0\1")) == [WHITE, [34] * 3]
    colors = struct.pack(">6H", 0x0102, 0x3000, 0xFF00, 0, 0, 0xFFFF)
    assert row(png(2, 1, 16, 2, colors)) == [[1, 48, 255], BLUE]
    assert row(png(2, 1, 16, 2, colors, colors[:6])) == [WHITE, BLUE]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(10))
def test_exif_rotation_is_applied(kind: str, orientation: int) -> None:
    upright = Image.new("RGB", (32, 16), "white")
    upright.paste((255, 0, 0), (0, 0, 16, 8))
    undo = {5: "TRANSPOSE", 6: "ROTATE_90", 7: "TRANSVERSE", 8: "ROTATE_270"}
    undo |= {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM"}
    stored = upright.transpose(Image.Transpose[undo[orientation]]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = read_image(saved(stored, kind, exif=exif, quality=95))
    assert image.shape == (3, 16, 32)
    corners = [image[1, y, x].item() < 128 for y in (2, 13) for x in (3, 28)]
    assert corners == [True, False, False, False], "red above, on the left"


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_the_first_frame_of_an_animation(kind: str) -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    content = saved(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
    with Image.open(io.BytesIO(content)) as image:
        assert getattr(image, "n_frames", 1) == 2
    assert row(content) == [RED] * 4


def refused(content: bytes, tmp_path: Path) -> str:
    """The reason, which is the same from a path, from memory, and in the data of a training."""
    (tmp_path / "picture").write_bytes(content)
    with pytest.raises(BadImageError) as raised:
        read_image(content)
    with pytest.raises(BadImageError) as from_path:
        read_image(tmp_path / "picture")
    good, bad = saved(Image.new("RGB", (4, 4))), dict[int, str]()
    batches = list(read_batches(lambda index: (good, content, good)[index], 3, 3, bad))
    assert [batch.indices for batch in batches] == [[0, 2]]
    assert str(raised.value) == str(from_path.value) == bad[1] and "\n" not in bad[1]
    return bad[1]


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "PPM", "ICO"])
def test_other_kinds_are_refused(tmp_path: Path, kind: str) -> None:
    content = saved(Image.new("RGB", (16, 16)), kind)
    assert refused(content, tmp_path) == f"expected PNG, WebP or JPEG, got a file that begins with {content[:12]!r}"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "expected PNG, WebP or JPEG, got an empty file"),
        (bytes(100), "expected PNG, WebP or JPEG, got a file that begins with b'\\x00"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "expected PNG, WebP or JPEG, got a file that begins with b'RIFF"),
        (b"RIFF\x24\0\0\0WEBPVP8 ", "cannot be decoded: "),
        (b"\x89PNG\r\n\x1a\n", "cannot be decoded: "),
        (b"\xff\xd8\xff", "cannot be decoded: "),
        (png(0, 1, 8, 2, b"\0"), "cannot be decoded: "),
        (png(1, 1, 3, 2, b"\0"), "cannot be decoded: "),
        (png(60_000, 60_000, 8, 2, b"\0" * 60_000), "at most 4,096 pixels a side, got 60000 x 60000"),
        (png(10_000, 10_000, 8, 2, b"\0" * 10_000), "at most 4,096 pixels a side, got 10000 x 10000"),
        (png(1, MAX_SIDE + 1, 8, 0, b"\0" * (MAX_SIDE + 1)), "at most 4,096 pixels a side, got 1 x 4097"),
    ],
)
def test_damaged_and_hostile_files_are_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert reason in refused(content, tmp_path)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_truncated_files_are_refused(tmp_path: Path, kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    content = saved(Image.fromarray(noise), kind)
    for length in (4, 12, 40, len(content) // 2):
        assert refused(content[:length], tmp_path)


def test_the_largest_picture_is_read() -> None:
    assert read_image(saved(Image.new("L", (MAX_SIDE, 1), 7))).shape == (3, 1, MAX_SIDE)


@pytest.mark.parametrize("error", [RuntimeError("a\nb"), IndexError(), MemoryError(), AssertionError("x")])
def test_whatever_a_decoder_raises_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(*_: object) -> None:
        raise error

    content = saved(two("RGB", (0, 0, 0), (1, 1, 1)), "WEBP")
    monkeypatch.setattr("PIL.WebPImagePlugin.WebPImageFile.load", broken)
    assert refused(content, tmp_path) == f"cannot be decoded: {type(error).__name__}"


@pytest.mark.parametrize("place", [lambda path: path / "nowhere", lambda path: path])
def test_what_cannot_be_opened_is_told(tmp_path: Path, place: Callable[[Path], Path]) -> None:
    with pytest.raises(BadImageError, match="^cannot be read: (No such file or directory|Is a directory)$"):
        read_image(place(tmp_path))
