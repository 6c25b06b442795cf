"""The questions about a finished evaluation: single images, or pairs of images."""

from __future__ import annotations

import filecmp
import hashlib
import json
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from prip.errors import InputError, any_of, meant, require

RELEVANCE, PREFERENCE = "relevance", "preference"
COLUMNS = ("user_prompt", "cluster", "refiner", "generator", "seed", "image")


class EvaluatedImage(NamedTuple):
    """One image of an evaluation; `image` is its content address, "" when drawing failed."""

    user_prompt: str
    cluster: str
    refiner: str
    generator: str
    seed: int
    image: str


class Picture(NamedTuple):
    """An image and the refiner of its prompt."""

    refiner: str
    image: str


@dataclass(frozen=True)
class Item:
    """One question: how relevant an image is, or which of two is better."""

    task: str
    user_prompt: str
    cluster: str
    generator: str
    seed: int
    pictures: tuple[Picture, ...]
    """One for relevance; two for preference, in the order of `pair_order`."""

    @property
    def key(self) -> str:
        """A stable name of the question; another image for the same prompt is another question."""
        content = [self.task, self.user_prompt, self.generator, self.seed, *self.pictures]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Sample:
    """The questions of a study, and what was left out of it."""

    items: tuple[Item, ...]
    identical: int
    """Pairs left out because their images are identical."""
    failed: int
    """Images of the chosen refiners and generator that the evaluation could not draw."""


def pair_order(refiners: Iterable[str]) -> tuple[str, ...]:
    """Return refiners in the order in which a pair is named: `none` first, then by name."""
    return tuple(sorted(set(refiners), key=lambda name: (name != "none", name)))


def results_of(folder: Path) -> Path:
    """Return the file of an evaluation's results. Raises InputError when `folder` holds no finished evaluation."""
    path = folder / "results.parquet"
    if not path.is_file():
        raise InputError(f"folder: expected a finished prip evaluate, got {folder} without results.parquet")
    return path


def read_rows(folder: Path) -> list[EvaluatedImage]:
    """Return the images of the evaluation in `folder`. Raises InputError when there is no finished one."""
    path = results_of(folder)
    parquet = require("pyarrow.parquet", "annotate")
    arrow = require("pyarrow", "annotate")
    try:
        names = parquet.read_schema(path).names
        missing = [name for name in COLUMNS if name not in names]
        if missing:
            raise InputError(f"{path}: expected results of prip evaluate, got a table without {', '.join(missing)}")
        table = parquet.read_table(path, columns=list(COLUMNS))
    except (arrow.ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    columns = [table.column(name).to_pylist() for name in COLUMNS]
    return [EvaluatedImage(*values) for values in zip(*columns, strict=True)]


def image_path(images: Path, address: str) -> Path:
    """Return the file of an image in the folder `images`. Raises InputError for an invalid or missing address."""
    if not re.fullmatch(r"[0-9a-f]{8,128}", address):
        raise InputError(f"image: expected a content address in hexadecimal digits, got {address!r}")
    path = images / address[:2] / f"{address}.png"
    if not path.is_file():
        raise InputError(
            f"images: expected the image folder of prip evaluate, got one without {path}; prip evaluate draws it again"
        )
    return path


def choose_refiners(rows: Sequence[EvaluatedImage], task: str, wanted: Sequence[str] | None) -> tuple[str, ...]:
    """Return the refiners to ask about, by default all.

    Raises InputError for unknown refiners, and for a preference unless there are exactly two.
    """
    known = pair_order(row.refiner for row in rows)
    chosen = known if wanted is None else pair_order(wanted)
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise InputError(f"refiners: expected {any_of(known)}, got {', '.join(unknown)}{meant(unknown[0], known)}")
    if task == PREFERENCE and len(chosen) != 2:
        raise InputError(
            f"refiners: expected two of {', '.join(known)} for preference, as in --refiners {' '.join(known[:2])}, got "
            f"{len(chosen)}"
        )
    return chosen


def draw_sample(
    images: Path,
    rows: Sequence[EvaluatedImage],
    task: str,
    *,
    refiners: Sequence[str],
    generator: str | None,
    count: int,
    seed: int,
) -> Sample:
    """Return up to `count` questions about the images of `refiners`.

    The first image of every prompt precedes the second of any; a larger `count` only adds questions.

    Args:
        images: Folder of the images.
        task: RELEVANCE or PREFERENCE.
        generator: Name of the generator; None for all.
        seed: Determines the order.

    Raises:
        InputError: There is nothing to ask.
    """
    generators = sorted({row.generator for row in rows})
    if generator is not None and generator not in generators:
        raise InputError(f"generator: expected {any_of(generators)}, got {generator!r}")
    if count < 1:
        raise InputError(f"items: expected at least 1, got {count}")
    chosen = [row for row in rows if row.refiner in refiners and generator in (None, row.generator)]
    items: list[Item] = []
    identical = 0
    for group in _spread(chosen, seed):
        pictures = {row.refiner: Picture(row.refiner, row.image) for row in group}
        shown = [pictures[name] for name in refiners if name in pictures]
        questions: list[tuple[Picture, ...]] = [(picture,) for picture in shown]
        if task == PREFERENCE:
            questions = [tuple(shown)] if len(shown) == 2 else []
            if questions and _same(images, *shown):
                identical += 1
                continue
        first = group[0]
        for asked in questions:
            for picture in asked:
                image_path(images, picture.image)
            items.append(Item(task, first.user_prompt, first.cluster, first.generator, first.seed, asked))
        if len(items) >= count:
            break
    if not items:
        reason = f": all {identical} pairs are of identical images" if identical else ""
        raise InputError(f"refiners: expected comparable images, got none for {' and '.join(refiners)}{reason}")
    return Sample(tuple(items[:count]), identical, sum(row.image == "" for row in chosen))


def _spread(rows: Sequence[EvaluatedImage], seed: int) -> list[list[EvaluatedImage]]:
    """Return the drawn images grouped by prompt, generator and seed, shuffled with each prompt's groups far apart."""
    groups: dict[tuple[str, str, int], list[EvaluatedImage]] = {}
    for row in rows:
        if row.image:
            groups.setdefault((row.user_prompt, row.generator, row.seed), []).append(row)
    names = sorted(groups)
    random.Random(seed).shuffle(names)
    rounds: dict[str, int] = {}
    ranked = []
    for rank, name in enumerate(names):
        turn = rounds.get(name[0], 0)
        rounds[name[0]] = turn + 1
        ranked.append((turn, rank, groups[name]))
    return [group for _, _, group in sorted(ranked, key=lambda entry: entry[:2])]


def _same(images: Path, first: Picture, second: Picture) -> bool:
    paths = image_path(images, first.image), image_path(images, second.image)
    return first.image == second.image or filecmp.cmp(paths[0], paths[1], shallow=False)
