"""Damage of every kind in parts of a DiffusionDB: each good image is kept, each bad one is listed with its reason."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from made_parts import ColourReward
from PIL import Image

from prip.training.data.diffusiondb import read_diffusiondb
from prip.training.data.scoring import Scorer
from prip.training.data.source import find_source
from prip.training.data.workers import Job

IMAGES = 4
"""Images of each part before it is damaged."""


@dataclass
class Made:
    """A part in the making, with what must happen to it."""

    files: dict[str, bytes]
    entries: dict[str, Any]
    json: bytes | None = None
    """Written in place of the entries."""
    bad: set[str] = field(default_factory=set)
    """Names, printable, that must be listed with a reason; images without one must be scored."""

    def listed(self) -> set[str]:
        """Returns the names, printable, that a file or an entry of the JSON that can be read has."""
        entries = self.entries if self.json == json.dumps(self.entries).encode() else {}
        return {name.encode("utf-8", "backslashreplace").decode() for name in (*self.files, *entries)}

    def any_image(self, source: random.Random) -> str:
        return source.choice([name for name in sorted(self.files) if name not in self.bad] or sorted(self.files))


def png(number: int, kind: str = "PNG", mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (number % 256, 60, 200)).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def damaged_image(change: Callable[[bytes, random.Random], bytes]) -> Callable[[Made, random.Random], None]:
    def damage(part: Made, source: random.Random) -> None:
        name = part.any_image(source)
        part.files[name] = change(part.files[name], source)
        part.bad.add(name)

    return damage


def damaged_entry(entry: Any) -> Callable[[Made, random.Random], None]:
    def damage(part: Made, source: random.Random) -> None:
        name = part.any_image(source)
        part.entries[name] = entry
        part.bad.add(name)

    return damage


def missing(part: Made, source: random.Random) -> None:
    name = part.any_image(source)
    del part.files[name]
    part.bad.add(name)


def stray(part: Made, source: random.Random) -> None:
    name = f"stray-{source.random()}.png"
    part.files[name] = png(1)
    part.bad.add(name)


def no_entry(part: Made, source: random.Random) -> None:
    name = part.any_image(source)
    part.entries.pop(name, None)
    part.bad.add(name)


def foreign_entry(name: str) -> Callable[[Made, random.Random], None]:
    def damage(part: Made, source: random.Random) -> None:
        part.entries[name] = {"p": "a cat"}
        part.bad.add(name.encode("utf-8", "backslashreplace").decode())

    return damage


def whole_json(content: bytes | None) -> Callable[[Made, random.Random], None]:
    def damage(part: Made, source: random.Random) -> None:
        part.json = content
        part.bad |= set(part.files)

    return damage


DAMAGES: dict[str, Callable[[Made, random.Random], None]] = {
    "empty image": damaged_image(lambda content, _: b""),
    "image cut short": damaged_image(lambda content, source: content[: source.randrange(1, len(content) - 20)]),
    "image of zeros": damaged_image(lambda content, _: bytes(500)),
    "text as an image": damaged_image(lambda content, _: b"<html>404</html>"),
    "a GIF": damaged_image(lambda content, _: png(3, "GIF", "P")),
    "a bomb": damaged_image(lambda content, _: content[:16] + (60_000).to_bytes(4, "big") * 2 + content[24:]),
    "image with a wrong header": damaged_image(lambda content, source: source.randbytes(8) + content[8:]),
    "missing file": missing,
    "file without an entry": stray,
    "entry removed": no_entry,
    "entry null": damaged_entry(None),
    "entry a list": damaged_entry(["a cat"]),
    "entry a string": damaged_entry("a cat"),
    "entry without a prompt": damaged_entry({"se": 1}),
    "prompt null": damaged_entry({"p": None}),
    "prompt a number": damaged_entry({"p": 7}),
    "prompt empty": damaged_entry({"p": ""}),
    "prompt blank": damaged_entry({"p": " \t "}),
    "prompt without words": damaged_entry({"p": "..."}),
    "prompt with half a pair": damaged_entry({"p": "a cat \ud83d"}),
    "prompt with a control character": damaged_entry({"p": "a cat\u0007"}),
    "prompt with NUL": damaged_entry({"p": "a\u0000cat"}),
    "prompt too long": damaged_entry({"p": "cat " * 100_000}),
    "entry of a path": foreign_entry("../../etc/passwd.png"),
    "entry of half a pair": foreign_entry("\udc00.png"),
    "entry with an empty name": foreign_entry(""),
    "JSON missing": whole_json(None),
    "JSON cut short": whole_json(b'{"a": {"p": '),
    "JSON not UTF-8": whole_json(b'{"\xff": 1}'),
    "JSON a list": whole_json(b"[]"),
    "JSON null": whole_json(b"null"),
    "JSON nested deeply": whole_json(b"[" * 200_000),
    "JSON with a huge number": whole_json(b'{"a": ' + b"9" * 10_000 + b"}"),
}


def made_part(number: int, kinds: list[str], source: random.Random) -> Made:
    names = [f"{number:04}-{index}.png" for index in range(IMAGES)]
    files = {name: png(number + index) for index, name in enumerate(names)}
    part = Made(files, {name: {"p": f"a cat, number {index}", "se": index} for index, name in enumerate(names)})
    part.json = b""
    for kind in sorted(kinds, key=lambda kind: kind.startswith("JSON")):
        DAMAGES[kind](part, source)
    if part.json == b"":
        part.json = json.dumps(part.entries).encode()
    return part


def write_part(folder: Path, number: int, part: Made, as_zip: bool) -> None:
    name = f"part-{number:06}"
    files = dict(part.files) | ({} if part.json is None else {f"{name}.json": part.json})
    if as_zip:
        with zipfile.ZipFile(folder / f"{name}.zip", "w") as archive:
            for file, content in files.items():
                archive.writestr(file, content)
    else:
        (folder / name).mkdir()
        for file, content in files.items():
            (folder / name / file).write_bytes(content)


def fates(folder: Path) -> dict[str, str]:
    """Reads and scores all parts in `folder` as prepare does; returns image to reason, "" for those with scores."""
    source = find_source(folder)
    found = read_diffusiondb(source.parts, source.metadata)
    parts = {part.name: part for part in source.parts}
    reward = ColourReward("red", 0)
    scored = [
        Scorer([reward], 8)(Job(str(name), rows.assign(text=rows["prompt"]), {str(name): parts[str(name)]}))
        for name, rows in found.rows.groupby("part")
    ]
    table = pd.concat([found.set_aside, *scored])
    table.to_parquet(folder / "table.parquet")  # every name and reason can be stored
    return dict(zip(table["image_name"], table["reason"], strict=True))


def check(folder: Path, parts: list[Made]) -> None:
    (folder / "images").mkdir(parents=True)
    for number, part in enumerate(parts, 1):
        write_part(folder / "images", number, part, as_zip=number % 2 == 0)
    reasons = fates(folder)
    for number, part in enumerate(parts, 1):
        for name in part.bad & part.listed():
            assert reasons[name], f"part {number}: {name!r} has no reason"
        for name in part.files.keys() - part.bad:
            assert reasons[name] == "", f"part {number}: {name!r} is lost: {reasons[name]}"


@pytest.mark.parametrize("kind", DAMAGES)
def test_each_kind_of_damage_costs_what_is_damaged_alone(tmp_path: Path, kind: str) -> None:
    source = random.Random(0)
    check(tmp_path, [made_part(number, [kind], source) for number in (1, 2)])


def test_500_parts_with_damage_of_several_kinds(tmp_path: Path) -> None:
    source = random.Random(1)
    parts = [made_part(number, source.sample(sorted(DAMAGES), source.randint(1, 3)), source) for number in range(500)]
    check(tmp_path, parts)


def test_200_zips_with_flipped_bytes_end_nothing(tmp_path: Path) -> None:
    source = random.Random(2)
    (tmp_path / "images").mkdir()
    for number in range(1, 201):
        write_part(tmp_path / "images", number, made_part(number, [], source), as_zip=True)
        path = tmp_path / "images" / f"part-{number:06}.zip"
        content = bytearray(path.read_bytes())
        for _ in range(source.choice((1, 3, 20))):
            content[source.randrange(len(content))] ^= 1 << source.randrange(8)
        path.write_bytes(content[: source.choice((len(content), source.randrange(len(content))))])
    reasons = fates(tmp_path)
    assert sum(reason == "" for reason in reasons.values()) > 50 and any(reasons.values())
