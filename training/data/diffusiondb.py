"""DiffusionDB's layout on disk: names, tables, parts; written as published, read as it is found.

    images/part-000001/<uuid>.png ...           at most 1,000 files a part (.webp in the large set)
    images/part-000001/part-000001.json         file name to prompt, seed, cfg, steps and sampler
    metadata.parquet                            one row an image, 13 columns

Source: poloclub/diffusiondb@bf0b01e, README and scripts/diffusiondb.py.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from prip.errors import CheckpointError, InputError

from ..atomic import replace_file, replace_text

PART_SIZE = 1000
METADATA = ("metadata.parquet", "metadata-large.parquet")
SUFFIXES = (".png", ".webp")
SAMPLER_CODES = {
    "ddim": 1,
    "plms": 2,
    "k_euler": 3,
    "k_euler_ancestral": 4,
    "k_heun": 5,
    "k_dpm_2": 6,
    "k_dpm_2_ancestral": 7,
    "k_lms": 8,
}
OTHER_SAMPLER = 9
SCHEMA = pa.schema(
    [
        ("image_name", pa.string()),
        ("prompt", pa.string()),
        ("part_id", pa.uint16()),
        ("seed", pa.uint32()),
        ("step", pa.uint16()),
        ("cfg", pa.float32()),
        ("sampler", pa.uint8()),
        ("width", pa.uint16()),
        ("height", pa.uint16()),
        ("user_name", pa.string()),
        ("timestamp", pa.timestamp("us", tz="UTC")),
        ("image_nsfw", pa.float32()),
        ("prompt_nsfw", pa.float32()),
    ]
)
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://github.com/poloclub/diffusiondb")
_PART_PATTERNS = ("", "images/part-*", "part-*", "diffusiondb-large-part-*/part-*")
_PART_NAME = re.compile(r"part-(\d{6})")


@dataclass(frozen=True)
class Sampling:
    """How a generator drew: steps, guidance and the sampler's name, as part JSON and metadata tell them."""

    steps: int
    guidance: float
    sampler: str = "others"


def image_name(prompt: str, seed: int) -> str:
    """Returns the file name of the image of (prompt, seed): a uuid5, so that a rerun gives the same one."""
    return f"{uuid.uuid5(_NAMESPACE, f'{seed} {prompt}')}.png"


def part_folder(folder: Path, number: int) -> Path:
    """Returns the folder of part `number`, counted from 1."""
    return folder / "images" / f"part-{number:06}"


def write_part_json(part: Path, prompts: Sequence[str], seeds: Sequence[int], sampling: Sampling) -> None:
    """Writes the JSON of the part folder `part`, which holds the images of these prompts and seeds."""
    entries = {
        image_name(prompt, seed): {
            "p": prompt,
            "se": seed,
            "c": sampling.guidance,
            "st": sampling.steps,
            "sa": sampling.sampler,
        }
        for prompt, seed in zip(prompts, seeds, strict=True)
    }
    replace_text(part / f"{part.name}.json", json.dumps(entries, ensure_ascii=False, indent=1) + "\n")


def write_metadata(
    folder: Path, prompts: Sequence[str], seeds: Sequence[int], sampling: Sampling, width: int, height: int
) -> None:
    """Writes metadata.parquet of images that stand in the parts in this order, PART_SIZE in each.

    Nothing is known of a user or of a time, and nothing was checked for nudity: user_name is empty, timestamp is null
    and the two nsfw scores are 0.
    """
    count = len(prompts)
    columns: dict[str, Any] = {
        "image_name": [image_name(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)],
        "prompt": list(prompts),
        "part_id": [place // PART_SIZE + 1 for place in range(count)],
        "seed": list(seeds),
        "step": [sampling.steps] * count,
        "cfg": [sampling.guidance] * count,
        "sampler": [SAMPLER_CODES.get(sampling.sampler, OTHER_SAMPLER)] * count,
        "width": [width] * count,
        "height": [height] * count,
        "user_name": [""] * count,
        "timestamp": [None] * count,
        "image_nsfw": [0.0] * count,
        "prompt_nsfw": [0.0] * count,
    }
    table = pa.table(columns, schema=SCHEMA)
    replace_file(folder / METADATA[0], lambda temporary: pq.write_table(table, temporary))


@dataclass(frozen=True)
class DiffusionDB:
    """What a folder in DiffusionDB's layout holds."""

    rows: pd.DataFrame
    """image_name, prompt, part (name of its folder), path: images with a prompt and a file, not opened yet."""

    set_aside: pd.DataFrame
    """image_name, part, reason: files without a row, rows without a file or a prompt, JSON that cannot be read."""


@dataclass(frozen=True)
class _Row:
    image_name: str
    part: str
    prompt: str = ""
    path: str = ""
    reason: str = ""


def read_diffusiondb(folder: Path) -> DiffusionDB:
    """Reads the rows of all parts in `folder` (a whole set, some of its parts, or one part), in their order.

    Prompts come from each part's JSON and from the metadata; either may be absent. Metadata of parts that are not in
    the folder is passed over. Raises InputError if there is no part, CheckpointError for metadata that cannot be read.
    """
    parts = _part_folders(folder)
    if not parts:
        raise InputError(f"diffusiondb: wanted a folder with parts such as part-000001, got {folder}")
    metadata = _read_metadata(folder)
    seen: set[str] = set()
    rows = [row for part in parts for row in _read_part(part, metadata.get(_part_number(part), {}), seen)]
    frame = pd.DataFrame([asdict(row) for row in rows], columns=["image_name", "part", "prompt", "path", "reason"])
    good = frame["reason"] == ""
    return DiffusionDB(
        frame.loc[good, ["image_name", "prompt", "part", "path"]].reset_index(drop=True),
        frame.loc[~good, ["image_name", "part", "reason"]].reset_index(drop=True),
    )


def _part_folders(folder: Path) -> list[Path]:
    found = [path for pattern in _PART_PATTERNS for path in (folder.glob(pattern) if pattern else [folder])]
    return sorted(path for path in found if path.is_dir() and _PART_NAME.fullmatch(path.name))


def _part_number(part: Path) -> int:
    return int(part.name.removeprefix("part-"))


def _read_metadata(folder: Path) -> dict[int, dict[str, str]]:
    """Returns, by the number of the part, image name to prompt; empty where there is no metadata."""
    found = [folder / name for name in METADATA if (folder / name).is_file()]
    by_part: dict[int, dict[str, str]] = {}
    for path in found:
        try:
            frame = pd.read_parquet(path, columns=["image_name", "prompt", "part_id"])
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(f"{path}: wanted DiffusionDB's metadata, but it cannot be read: {error}") from error
        for number, rows in frame.groupby("part_id"):
            by_part[int(str(number))] = dict(zip(rows["image_name"], rows["prompt"], strict=True))
    return by_part


def _read_part(part: Path, metadata: dict[str, str], seen: set[str]) -> Iterator[_Row]:
    """Yields a row for each image that is described or lies in `part`; adds their names to `seen`."""
    files = {path.name for path in part.iterdir() if path.suffix in SUFFIXES}
    prompts: dict[str, Any] = dict(metadata)
    path = part / f"{part.name}.json"
    try:
        prompts.update({name: entry["p"] for name, entry in json.loads(path.read_text(encoding="utf-8")).items()})
    except FileNotFoundError:
        if not metadata:
            yield _Row(path.name, part.name, reason="the part's JSON is missing")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        yield _Row(path.name, part.name, reason=f"the part's JSON cannot be read: {error!r}")
    for name, prompt in prompts.items():
        if not isinstance(prompt, str) or not prompt.strip():
            yield _Row(name, part.name, reason="it has no prompt")
        elif name not in files:
            yield _Row(name, part.name, reason="its file is missing")
        elif name in seen:
            yield _Row(name, part.name, reason="its name occurs twice")
        else:
            yield _Row(name, part.name, prompt, str(part / name))
        seen.add(name)
    for name in sorted(files - prompts.keys()):
        yield _Row(name, part.name, reason="no row describes it")
