"""What people are asked about: single images, or pairs of them, of a finished evaluation."""

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

from prip.errors import InputError, require

RELEVANCE, PREFERENCE = "relevance", "preference"
COLUMNS = ("user_prompt", "cluster", "refiner", "generator", "seed", "image")


class Row(NamedTuple):
    """One image of an evaluation; `image` is its content address, "" where drawing it failed."""

    user_prompt: str
    cluster: str
    refiner: str
    generator: str
    seed: int
    image: str


class Picture(NamedTuple):
    """An image and who refined its prompt."""

    refiner: str
    image: str


@dataclass(frozen=True)
class Item:
    """One question: how relevant is an image, or which of two is better."""

    task: str
    user_prompt: str
    cluster: str
    generator: str
    seed: int
    pictures: tuple[Picture, ...]
    """One for relevance; two for preference, in the order of `pair_order`."""

    @property
    def key(self) -> str:
        """A name that stays as long as the question does: another image under the same prompt is another question."""
        content = [self.task, self.user_prompt, self.generator, self.seed, *self.pictures]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Sample:
    """The questions that every annotator of a study is asked, and what was passed over to find them."""

    items: tuple[Item, ...]
    identical: int
    """Pairs left out because both images are the same."""
    failed: int
    """Images of the chosen refiners and generator that the evaluation could not draw."""


def pair_order(refiners: Iterable[str]) -> tuple[str, ...]:
    """Returns refiners in the order in which a pair is named: `none` first, then by name."""
    return tuple(sorted(set(refiners), key=lambda name: (name != "none", name)))


def results_of(folder: Path) -> Path:
    """Returns the file of an evaluation's results. Raises InputError when `folder` holds no finished one."""
    path = folder / "results.parquet"
    if not path.is_file():
        raise InputError(f"{folder} holds no results.parquet; wanted the folder of a finished prip evaluate")
    return path


def read_rows(folder: Path) -> list[Row]:
    """Returns the images of the evaluation in `folder`. Raises InputError when there is no finished one."""
    path = results_of(folder)
    parquet = require("pyarrow.parquet", "annotate")
    arrow = require("pyarrow", "annotate")
    try:
        there = parquet.read_schema(path).names
        missing = [name for name in COLUMNS if name not in there]
        if missing:
            raise InputError(f"{path} lacks the columns {', '.join(missing)}; was it written by prip evaluate?")
        table = parquet.read_table(path, columns=list(COLUMNS))
    except (arrow.ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    columns = [table.column(name).to_pylist() for name in COLUMNS]
    return [Row(*values) for values in zip(*columns, strict=True)]


def image_path(images: Path, address: str) -> Path:
    """Returns the file of an image by its content address. Raises InputError for what is no address, or not there.

    images: the folder in which the evaluation keeps them.
    """
    if not re.fullmatch(r"[0-9a-f]{8,128}", address):
        raise InputError(f"image must be a content address in hexadecimal digits, it is {address!r}")
    path = images / address[:2] / f"{address}.png"
    if not path.is_file():
        raise InputError(f"{path} is missing; images must be the folder that prip evaluate had, which draws it anew")
    return path


def choose_refiners(rows: Sequence[Row], task: str, wanted: Sequence[str] | None) -> tuple[str, ...]:
    """Returns the refiners to ask about: those wanted, else all.

    Raises InputError for unknown ones, and unless they are two for preference.
    """
    known = pair_order(row.refiner for row in rows)
    chosen = known if wanted is None else pair_order(wanted)
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise InputError(f"refiners must be of {', '.join(known)}; {', '.join(unknown)} came")
    if task == PREFERENCE and len(chosen) != 2:
        raise InputError(
            f"refiners must be two for preference, as in --refiners {' '.join(known[:2])}; of {', '.join(known)}, "
            f"{len(chosen)} were chosen"
        )
    return chosen


def draw_sample(
    images: Path,
    rows: Sequence[Row],
    task: str,
    refiners: Sequence[str],
    generator: str | None,
    count: int,
    seed: int,
) -> Sample:
    """Returns `count` questions, or as many as there are, about the images of `refiners`.

    images: their folder. generator: its name, None for all. One image of each prompt comes before the second of any, in
    an order of `seed`; a larger `count` adds questions and takes none away. Raises InputError when there is nothing to
    ask.
    """
    generators = sorted({row.generator for row in rows})
    if generator is not None and generator not in generators:
        raise InputError(f"generator must be of {', '.join(generators)}; {generator} came")
    if count < 1:
        raise InputError(f"items must be at least 1, it is {count}")
    chosen = [row for row in rows if row.refiner in refiners and generator in (None, row.generator)]
    found: list[Item] = []
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
            found.append(Item(task, first.user_prompt, first.cluster, first.generator, first.seed, asked))
        if len(found) >= count:
            break
    if not found:
        why = f": all {identical} pairs are of identical images" if identical else ""
        raise InputError(f"the evaluation holds nothing to ask about {' and '.join(refiners)}{why}")
    return Sample(tuple(found[:count]), identical, sum(row.image == "" for row in chosen))


def _spread(rows: Sequence[Row], seed: int) -> list[list[Row]]:
    """Returns drawn images grouped by prompt, generator and seed; groups shuffled, and each prompt's far apart."""
    groups: dict[tuple[str, str, int], list[Row]] = {}
    for row in rows:
        if row.image:
            groups.setdefault((row.user_prompt, row.generator, row.seed), []).append(row)
    names = sorted(groups)
    random.Random(seed).shuffle(names)
    rounds: dict[str, int] = {}
    placed = []
    for place, name in enumerate(names):
        turn = rounds.get(name[0], 0)
        rounds[name[0]] = turn + 1
        placed.append((turn, place, groups[name]))
    return [group for _, _, group in sorted(placed, key=lambda one: one[:2])]


def _same(images: Path, first: Picture, second: Picture) -> bool:
    paths = image_path(images, first.image), image_path(images, second.image)
    return first.image == second.image or filecmp.cmp(paths[0], paths[1], shallow=False)
