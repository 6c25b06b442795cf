"""DiffusionDB's layout on disk: names, part JSON and metadata, to write as published and to read tolerantly.

    images/part-000001/<uuid>.png ...           at most 1,000 files per part (.webp in the large set), or a zip
    images/part-000001/part-000001.json         file name to prompt, seed, cfg, steps and sampler
    metadata.parquet                            one row per image, 13 columns

Source: poloclub/diffusiondb@bf0b01e, README and scripts/diffusiondb.py.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from prip.errors import CheckpointError, InputError
from prip.files import replace_file, replace_text
from prip.text.prompts import check_user_prompt, has_words
from prip.text_files import decode_text

from .parts import BadFileError, Part, PartFiles, part_number

PART_SIZE = 1000
METADATA = ("metadata.parquet", "metadata-large.parquet")
SUFFIXES = (".png", ".webp")
_SAMPLERS = ("ddim", "plms", "k_euler", "k_euler_ancestral", "k_heun", "k_dpm_2", "k_dpm_2_ancestral", "k_lms")
SAMPLER_CODES = {name: code for code, name in enumerate(_SAMPLERS, 1)}
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
_REQUIRED = ["image_name", "prompt", "part_id"]
_DRAWING = ["prompt", "seed", "step", "cfg", "sampler", "width", "height"]
_NSFW = ["image_nsfw", "prompt_nsfw"]
NO_PROMPT = "no prompt"


@dataclass(frozen=True)
class Sampling:
    """How a generator drew: steps, guidance scale and sampler name, for part JSON and metadata."""

    steps: int
    guidance: float
    sampler: str = "others"


def image_name(prompt: str, seed: int) -> str:
    """Return the file name of the image of (prompt, seed): a uuid5, so that reruns give the same name."""
    return f"{uuid.uuid5(_NAMESPACE, f'{seed} {prompt}')}.png"


def part_folder(folder: Path, number: int) -> Path:
    """Return the folder of part `number`, counted from 1."""
    return folder / "images" / f"part-{number:06}"


def write_part_json(part: Path, prompts: Sequence[str], seeds: Sequence[int], sampling: Sampling) -> None:
    """Write the JSON of the part folder `part`, which has the images of these prompts and seeds."""
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
    folder: Path,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sampling: Sampling,
    width: int,
    height: int,
    user_names: Sequence[str] = (),
    times: Sequence[datetime | None] = (),
) -> None:
    """Write metadata.parquet for images that fill the parts in this order, PART_SIZE each.

    Without user_names and times (in UTC), user_name is empty and timestamp null. Both nsfw scores are 0, unchecked.
    """
    count = len(prompts)
    columns: dict[str, Any] = {
        "image_name": [image_name(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)],
        "prompt": list(prompts),
        "part_id": [index // PART_SIZE + 1 for index in range(count)],
        "seed": list(seeds),
        "step": [sampling.steps] * count,
        "cfg": [sampling.guidance] * count,
        "sampler": [SAMPLER_CODES.get(sampling.sampler, OTHER_SAMPLER)] * count,
        "width": [width] * count,
        "height": [height] * count,
        "user_name": list(user_names) if user_names else [""] * count,
        "timestamp": list(times) if times else [None] * count,
        "image_nsfw": [0.0] * count,
        "prompt_nsfw": [0.0] * count,
    }
    table = pa.table(columns, schema=SCHEMA)
    replace_file(folder / METADATA[0], lambda temporary: pq.write_table(table, temporary))


@dataclass(frozen=True)
class DiffusionDB:
    """Content of parts in DiffusionDB's layout."""

    rows: pd.DataFrame
    """Images with a prompt and, as far as known, a file: image_name, prompt, part (name); drawing, uint64, equal for
    images of the same prompt, seed and settings; image_nsfw and prompt_nsfw, float32, nan without metadata."""

    set_aside: pd.DataFrame
    """image_name, part, reason: files without a row, rows without a file or prompt, unreadable JSON."""


def read_diffusiondb(parts: Sequence[Part], metadata: Sequence[Path]) -> DiffusionDB:
    """Read the rows of all parts, in their order.

    Args:
        parts: the parts. Prompts come from their JSON; where listing a part is expensive, from the metadata alone.
        metadata: tables of metadata; rows of other parts are ignored.

    Raises:
        InputError: if there is no part.
        CheckpointError: if the metadata cannot be read.
    """
    if not parts:
        raise InputError("diffusiondb: expected a folder with parts such as part-000001 or part-000001.zip, got none")
    table = _read_metadata(metadata, [part_number(part.name) for part in parts])
    rows_of_part = table.groupby("part_id").indices if len(table) else {}
    seen: set[str] = set()
    rows, set_aside = [], []
    for part in parts:
        number = part_number(part.name)
        described = table.take(rows_of_part[number]) if number in rows_of_part else table[:0]
        good, bad = _read_part(part, described, seen)
        rows.append(good)
        set_aside.append(bad)
    return DiffusionDB(pd.concat(rows, ignore_index=True), pd.concat(set_aside, ignore_index=True))


def local_metadata(folder: Path) -> list[Path]:
    """Return the metadata tables in `folder`."""
    return [folder / name for name in METADATA if (folder / name).is_file()]


def _read_metadata(paths: Sequence[Path], numbers: list[int]) -> pd.DataFrame:
    """Return the metadata of the parts `numbers`; columns that a table lacks are nan."""
    columns = _REQUIRED + _DRAWING[1:] + _NSFW
    frames = [pd.DataFrame(columns=columns)]
    for path in paths:
        try:
            known = set(pq.read_schema(path).names)
            kept = [column for column in columns if column in known or column in _REQUIRED]
            frame = pd.read_parquet(path, columns=kept, filters=[("part_id", "in", numbers)])
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(
                f"{path}: expected DiffusionDB's metadata, got an unreadable file: {error}"
            ) from error
        frames.append(frame.reindex(columns=columns))
    filled = [frame for frame in frames if len(frame)] or frames[:1]
    return pd.concat(filled, ignore_index=True)


def _read_part(part: Part, described: pd.DataFrame, seen: set[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the good and the bad rows of a part, with its metadata in `described`; add the names to `seen`."""
    bad: list[tuple[str, str]] = []
    prompts: dict[str, Any] = dict(zip(described["image_name"], described["prompt"], strict=True))
    files: frozenset[str] | None = None
    if part.listed or not prompts:
        try:
            with part.open() as opened:
                files = frozenset(name for name in opened.names if name.endswith(SUFFIXES))
                entries = _read_json(part, opened, bool(prompts), bad)
                prompts |= {name: text for name, text in entries.items() if text is not None or name not in prompts}
        except BadFileError as error:
            return _rows(part, {}, described), _aside(part, [(name, str(error)) for name in prompts or [part.name]])
    good: dict[str, str] = {}
    for name, prompt in prompts.items():
        fault = _fault(prompt)
        if fault:
            bad.append((name, fault))
        elif files is not None and name not in files:
            bad.append((name, "the file is missing"))
        elif name in seen:
            bad.append((name, "the name occurs twice"))
        else:
            good[name] = prompt
        seen.add(name)
    bad += [(name, "no row for this file") for name in sorted((files or frozenset()) - prompts.keys())]
    return _rows(part, good, described), _aside(part, bad)


def _fault(prompt: object) -> str:
    """Return why a prompt cannot be used, or ""."""
    if not isinstance(prompt, str) or not has_words(prompt):
        return NO_PROMPT
    try:
        check_user_prompt(prompt)
    except InputError as error:
        return str(error)
    return ""


def _read_json(part: Part, opened: PartFiles, described: bool, bad: list[tuple[str, str]]) -> dict[str, Any]:
    """Return image name to prompt, or None, from the JSON of an opened part; append its faults to `bad`."""
    name = f"{part.name}.json"
    if name not in opened.names:
        if not described:
            bad.append((name, "the part's JSON is missing"))
        return {}
    try:
        entries = json.loads(decode_text(opened.read(name), name))
    except (BadFileError, ValueError, RecursionError) as error:
        bad.append((name, f"the part's JSON cannot be read: {error!r}"))
        return {}
    if not isinstance(entries, dict):
        bad.append((name, f"the part's JSON: expected an object, got {type(entries).__name__}"))
        return {}
    return {image: entry.get("p") if isinstance(entry, dict) else None for image, entry in entries.items()}


def _rows(part: Part, prompts: dict[str, str], described: pd.DataFrame) -> pd.DataFrame:
    rows = pd.DataFrame({"image_name": list(prompts), "prompt": list(prompts.values())}, dtype="str")
    metadata = described.drop_duplicates("image_name").set_index("image_name").reindex(rows["image_name"])
    metadata["prompt"] = rows["prompt"].to_numpy()
    by_name = pd.util.hash_array(rows["image_name"].to_numpy(dtype=object))
    by_settings = pd.util.hash_pandas_object(metadata[_DRAWING].astype({"prompt": object}), index=False).to_numpy()
    known = metadata[_DRAWING].notna().all(axis=1).to_numpy()
    return rows.assign(
        part=pd.Categorical.from_codes([0] * len(rows), [part.name]).astype("str"),
        drawing=np.where(known, by_settings, by_name).astype(np.uint64),
        **{name: metadata[name].to_numpy(np.float32) for name in _NSFW},
    )


def _aside(part: Part, bad: list[tuple[str, str]]) -> pd.DataFrame:
    printable = [(str(name).encode("utf-8", "backslashreplace").decode(), reason) for name, reason in bad]
    frame = pd.DataFrame(printable, columns=["image_name", "reason"])
    return frame.assign(part=part.name)[["image_name", "part", "reason"]].astype("str")
