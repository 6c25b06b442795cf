"""DiffusionDB's layout: written as published, read as found, the good rows and the bad ones."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from made_parts import MadeGenerator
from PIL import Image

from prip.errors import CheckpointError, InputError
from prip.picture_files import read_image
from prip.training.data import drawing
from prip.training.data.diffusiondb import DiffusionDB, Sampling, image_name, read_diffusiondb, write_metadata
from prip.training.data.drawing import draw_all, plan_drawings
from prip.training.data.images import read_batches, write_png
from prip.training.data.source import find_source

COLUMNS = {
    "image_name": "string",
    "prompt": "string",
    "part_id": "uint16",
    "seed": "uint32",
    "step": "uint16",
    "cfg": "float",
    "sampler": "uint8",
    "width": "uint16",
    "height": "uint16",
    "user_name": "string",
    "timestamp": "timestamp[us, tz=UTC]",
    "image_nsfw": "float",
    "prompt_nsfw": "float",
}


def read(folder: Path, **options: int) -> DiffusionDB:
    source = find_source(folder, **options)
    return read_diffusiondb(source.parts, source.metadata)


def plan(prompts: int = 3, images: int = 4) -> pd.DataFrame:
    table = pd.DataFrame({"prompt": [f"a cät, nr. {number}" for number in range(prompts)], "split": "train"})
    return plan_drawings(table, "user", images, seed=0)


def write(folder: Path, **options: int) -> pd.DataFrame:
    drawings = plan(**options)
    draw_all(drawings, MadeGenerator(), Sampling(3, 1.5), folder, batch_size=3, progress=False)
    return drawings


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "PART_SIZE", 5)
    monkeypatch.setattr("prip.training.data.diffusiondb.PART_SIZE", 5)


def test_names_are_uuids_of_prompt_and_seed() -> None:
    names = {image_name("a cat", 1), image_name("a cat", 2), image_name("a dog", 1), image_name("1 a cat", 0)}
    assert len(names) == 4 and image_name("a cat", 1) in names
    assert all(uuid.UUID(name.removesuffix(".png")).version == 5 for name in names)


def test_seeds_of_a_prompt_differ_and_depend_on_the_run() -> None:
    drawings = plan()
    assert len(drawings) == 12 and drawings["image_name"].is_unique
    assert drawings.groupby("prompt")["seed"].nunique().tolist() == [4, 4, 4]
    assert drawings["seed"].between(0, 2**31 - 1).all()
    other = plan_drawings(drawings[["prompt", "split"]].drop_duplicates(), "user", 4, seed=1)
    assert set(other["seed"]).isdisjoint(drawings["seed"])


def test_the_written_layout_is_diffusiondbs(tmp_path: Path, small_parts: None) -> None:
    drawings = write(tmp_path)
    parts = sorted(path.name for path in (tmp_path / "images").iterdir())
    assert parts == ["part-000001", "part-000002", "part-000003"]
    table = pq.read_table(tmp_path / "metadata.parquet")
    assert {field.name: str(field.type) for field in table.schema} == COLUMNS
    frame = table.to_pandas()
    assert frame["image_name"].tolist() == drawings["image_name"].tolist()
    assert frame["part_id"].tolist() == [1] * 5 + [2] * 5 + [3] * 2
    assert set(zip(frame["step"], frame["cfg"], frame["sampler"], frame["width"], strict=True)) == {(3, 1.5, 9, 8)}
    for number, part in enumerate(parts, 1):
        folder = tmp_path / "images" / part
        entries = json.loads((folder / f"{part}.json").read_text(encoding="utf-8"))
        rows = frame[frame["part_id"] == number].set_index("image_name")
        assert {path.name for path in folder.glob("*.png")} == set(entries) == set(rows.index)
        for name, entry in entries.items():
            row = rows.loc[name]
            assert entry == {"p": row["prompt"], "se": row["seed"], "c": 1.5, "st": 3, "sa": "others"}
            pixel = MadeGenerator(1)([entry["p"]], [entry["se"]])[0].flatten()
            assert torch.equal(read_image(folder / name)[:, 0, 0], pixel)


def test_what_was_written_comes_back(tmp_path: Path, small_parts: None) -> None:
    drawings = write(tmp_path)
    found = read(tmp_path)
    assert found.set_aside.empty and len(found.rows) == 12
    joined = found.rows.merge(drawings, on="image_name")
    assert len(joined) == 12 and (joined["prompt_x"] == joined["prompt_y"]).all()
    one = read(tmp_path / "images" / "part-000002")
    assert len(one.rows) == 5 and set(one.rows["part"]) == {"part-000002"}


def test_drawing_goes_on_where_it_stopped(tmp_path: Path, small_parts: None) -> None:
    drawings = write(tmp_path / "whole")
    options = (Sampling(3, 1.5), tmp_path / "cut", 3, False)
    with pytest.raises(KeyboardInterrupt):
        draw_all(drawings, MadeGenerator(fail_at=4), *options)
    assert not (tmp_path / "cut" / "metadata.parquet").exists()
    (tmp_path / "cut" / "images" / "part-000001" / drawings["image_name"][0]).write_bytes(b"")
    generator = MadeGenerator()
    assert draw_all(drawings, generator, *options) == 3 + 2 + 2 and generator.calls == 3
    files = [path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*") if path.is_file()]
    assert all((tmp_path / "whole" / path).read_bytes() == (tmp_path / "cut" / path).read_bytes() for path in files)
    assert draw_all(drawings, MadeGenerator(fail_at=1), *options) == 0


def test_bad_rows_are_set_aside_with_the_reason(tmp_path: Path, small_parts: None) -> None:
    names = write(tmp_path)["image_name"].tolist()
    first, second, third = sorted((tmp_path / "images").iterdir())
    (first / names[0]).unlink()
    entries = json.loads((first / "part-000001.json").read_text())
    entries[names[1]]["p"] = " "
    entries["../outside.png"] = {"p": "a cat", "se": 2**63, "c": 1.0, "st": 1, "sa": "dpmpp_sde"}
    (first / "part-000001.json").write_text(json.dumps(entries), encoding="utf-8-sig")
    shutil.copy(first / names[2], first / "stray.png")
    (second / "part-000002.json").write_text("{")
    (third / "part-000003.json").unlink()
    shutil.copy(first / names[2], third / names[2])
    (tmp_path / "images" / "readme").mkdir()
    found = read(tmp_path)
    reasons = dict(zip(found.set_aside["image_name"], found.set_aside["reason"], strict=True))
    assert reasons.pop("part-000002.json").startswith("the part's JSON cannot be read: JSONDecodeError")
    assert reasons == {
        names[0]: "the file is missing",
        names[1]: "no prompt",
        "../outside.png": "the file is missing",
        "stray.png": "no row for this file",
        names[2]: "no row for this file",
    }
    assert found.rows["image_name"].tolist() == names[2:], "metadata stands in for a part's JSON"
    (tmp_path / "metadata.parquet").unlink()
    without = read(tmp_path)
    assert without.rows["image_name"].tolist() == names[2:5]
    assert (without.set_aside["reason"] == "no row for this file").sum() == 1 + 5 + 3
    assert "the part's JSON is missing" in set(without.set_aside["reason"])


def test_a_name_in_two_parts_counts_once(tmp_path: Path, small_parts: None) -> None:
    names = write(tmp_path)["image_name"].tolist()
    images = tmp_path / "images"
    shutil.copy(images / "part-000001" / names[0], images / "part-000002" / names[0])
    path = images / "part-000002" / "part-000002.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), names[0]: {"p": "a cat"}}))
    found = read(tmp_path)
    assert found.rows["image_name"].tolist() == names
    assert found.set_aside.to_dict("list") == {
        "image_name": [names[0]],
        "part": ["part-000002"],
        "reason": ["the name occurs twice"],
    }


def test_the_large_set_and_a_part_of_the_metadata(tmp_path: Path, small_parts: None) -> None:
    write(tmp_path)
    (tmp_path / "metadata.parquet").rename(tmp_path / "metadata-large.parquet")
    for number, half in ((1, 1), (2, 2)):
        (tmp_path / f"diffusiondb-large-part-{half}").mkdir()
        part = f"part-{number:06}"
        (tmp_path / "images" / part).rename(tmp_path / f"diffusiondb-large-part-{half}" / part)
    shutil.rmtree(tmp_path / "images")
    found = read(tmp_path)
    assert len(found.rows) == 10 and found.set_aside.empty, "metadata of parts that are not there is passed over"


def test_folders_that_are_no_diffusiondb(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="diffusiondb: expected a folder with parts"):
        read(tmp_path)
    write(tmp_path)
    (tmp_path / "metadata.parquet").write_bytes(b"no table")
    with pytest.raises(CheckpointError, match="unreadable file"):
        read(tmp_path)


def test_metadata_refuses_what_its_types_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises((OverflowError, ValueError)):
        write_metadata(tmp_path, ["a cat"], [2**32], Sampling(1, 1.0), 8, 8)


@pytest.mark.parametrize("threads", [1, 3])
def test_images_are_read_in_batches_of_one_size(tmp_path: Path, threads: int) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(6)]
    for path, side in zip(paths, (4, 6, 4, 4, 6, 4), strict=True):
        write_png(path, torch.full((3, side, side + 1), side, dtype=torch.uint8))
    content = paths[2].read_bytes()
    paths[2].write_bytes(content[: len(content) // 2])
    paths[3].write_bytes(b"")
    Image.new("RGBA", (5, 4), (9, 9, 9, 0)).save(paths[0])
    bad: dict[int, str] = {}
    batches = list(read_batches(lambda place: paths[place].read_bytes(), 6, 5, bad, threads))
    assert [batch.indices for batch in batches] == [[0], [1, 4], [5]]
    assert [tuple(batch.images.shape) for batch in batches] == [(1, 3, 4, 5), (2, 3, 6, 7), (1, 3, 4, 5)]
    assert batches[0].images.dtype == torch.uint8 and batches[0].images.unique().tolist() == [255], "on white"
    assert sorted(bad) == [2, 3] and bad[3] == "expected PNG, WebP or JPEG, got an empty file"


def test_real_images_in_diffusiondbs_layout(real_data: Callable[[str], Path]) -> None:
    images = real_data("generated_images")
    found = read(images)
    assert len(found.rows) == 74 and found.set_aside.empty
    assert found.rows["prompt"].nunique() == 54 and found.rows["drawing"].is_unique
    part = images / "part-000001"
    paths = [part / name for name in found.rows["image_name"]]
    bad: dict[int, str] = {}
    batches = read_batches(lambda place: paths[place].read_bytes(), len(paths), 16, bad)
    sizes = {tuple(batch.images.shape[1:]) for batch in batches}
    assert not bad and (3, 256, 256) in sizes and len(sizes) > 5
