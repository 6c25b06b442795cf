"""Parts as folders, as zips, and as zips on the Hub: one content, however it is kept and whatever is broken in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from hub_server import LocalHub, serving
from made_parts import ColourPivots, ColourReward
from PIL import Image
from test_diffusiondb import read, write

from prip.errors import CheckpointError, InputError
from prip.training.data import drawing
from prip.training.data.parts import BadFileError, open_zip
from prip.training.data.pivots import PivotMaker, plan_shards
from prip.training.data.scoring import Scorer
from prip.training.data.source import find_source
from prip.training.data.workers import Job

REWARDS = [ColourReward("red", 0), ColourReward("green", 1)]


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "PART_SIZE", 5)
    monkeypatch.setattr("prip.training.data.diffusiondb.PART_SIZE", 5)


def zipped(folder: Path, to: Path, prefix: bool = False) -> Path:
    """Writes the dataset in `folder` to `to` as it is distributed: each part a zip, the metadata beside them."""
    for part in sorted((folder / "images").iterdir()):
        (to / "images").mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(to / "images" / f"{part.name}.zip", "w") as archive:
            for file in sorted(part.iterdir()):
                archive.write(file, f"{part.name}/{file.name}" if prefix else file.name)
    if to != folder:
        shutil.copy(folder / "metadata.parquet", to)
    return to


def score_all(folder: Path) -> pd.DataFrame:
    """Scores all images in `folder`, in one job."""
    source = find_source(folder)
    rows = read(folder).rows
    parts = {part.name: part for part in source.parts}
    return Scorer(REWARDS, 4)(Job("all", rows.assign(text=rows["prompt"]), parts))


@pytest.mark.parametrize("prefix", [False, True])
def test_zips_hold_what_folders_hold(tmp_path: Path, small_parts: None, prefix: bool) -> None:
    write(tmp_path / "folders")
    zips = zipped(tmp_path / "folders", tmp_path / "zips", prefix)
    pd.testing.assert_frame_equal(read(zips).rows, read(tmp_path / "folders").rows)
    pd.testing.assert_frame_equal(score_all(zips), score_all(tmp_path / "folders"))
    assert sorted(path.name for path in zips.rglob("*") if path.is_file()) == [
        "metadata.parquet",
        *(f"part-00000{number}.zip" for number in (1, 2, 3)),
    ], "nothing is unpacked"


def test_real_images_as_lossless_webp_in_a_zip(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    part = real_data("generated_images") / "part-000001"
    entries = json.loads((part / "part-000001.json").read_text(encoding="utf-8"))
    names = list(entries)[:6]
    folder = tmp_path / "png" / "images" / "part-000001"
    folder.mkdir(parents=True)
    large = tmp_path / "large" / "diffusiondb-large-part-1"
    large.mkdir(parents=True)
    with zipfile.ZipFile(large / "part-000001.zip", "w") as archive:
        for name in names:
            shutil.copy(part / name, folder)
            with Image.open(part / name) as image, archive.open(name.replace(".png", ".webp"), "w") as file:
                image.convert("RGB").save(file, format="WEBP", lossless=True)
        archive.writestr(
            "part-000001.json", json.dumps({name.replace(".png", ".webp"): entries[name] for name in names})
        )
    (folder / "part-000001.json").write_text(json.dumps({name: entries[name] for name in names}))
    png, webp = score_all(tmp_path / "png"), score_all(tmp_path / "large")
    assert webp["image_name"].str.endswith(".webp").all() and (webp["reason"] == "").all() and len(webp) == 6
    assert png[["red", "green"]].equals(webp[["red", "green"]]) and png["red"].nunique() == 6


def test_what_is_broken_in_a_zip_is_set_aside(
    tmp_path: Path, small_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = write(tmp_path / "folders")["image_name"].tolist()
    first = tmp_path / "folders" / "images" / "part-000001"
    (first / names[0]).write_bytes(b"")
    (first / names[1]).write_bytes((first / names[1]).read_bytes()[:45])
    (first / names[2]).write_bytes(bytes(70_000))
    zips = zipped(tmp_path / "folders", tmp_path / "zips") / "images"
    damaged = zips / "part-000002.zip"
    damaged.write_bytes(damaged.read_bytes()[:200])
    content = bytearray((zips / "part-000003.zip").read_bytes())
    with zipfile.ZipFile(zips / "part-000003.zip") as archive:
        info = archive.getinfo(names[11])
    content[info.header_offset + 30 + len(info.filename) + 40] ^= 0xFF
    (zips / "part-000003.zip").write_bytes(bytes(content))
    monkeypatch.setattr("prip.training.data.parts.MAX_FILE_BYTES", 60_000)
    found = read(tmp_path / "zips")
    assert found.set_aside["image_name"].tolist() == names[5:10]
    assert set(found.set_aside["reason"]) == {"the part's zip cannot be read: BadZipFile"}
    scores = score_all(tmp_path / "zips").set_index("image_name")["reason"].to_dict()
    assert {name: reason for name, reason in scores.items() if reason} == {
        names[0]: "expected PNG, WebP or JPEG, got an empty file",
        names[1]: "cannot be decoded: OSError",
        names[2]: "too large: 70000 bytes",
        names[11]: "cannot be read: BadZipFile",
    }
    assert len(scores) == 7


def test_damage_in_any_compression_of_a_zip_is_set_aside(tmp_path: Path) -> None:
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        path = tmp_path / "part-000001.zip"
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("a.png", bytes(range(256)) * 20)
            info = archive.getinfo("a.png")
        content = bytearray(path.read_bytes())
        start = info.header_offset + 30 + len(info.filename)
        content[start + 4 : start + 40] = b"\xff" * 36
        path.write_bytes(bytes(content))
        with open_zip(path) as files, pytest.raises(BadFileError, match=r"^cannot be read: \w+$"):
            files.read("a.png")


def test_which_parts_are_read(tmp_path: Path, small_parts: None) -> None:
    write(tmp_path)
    chosen = find_source(tmp_path, first_part=2, part_limit=1)
    assert [part.name for part in chosen.parts] == ["part-000002"]
    assert set(read(tmp_path, first_part=2).rows["part"]) == {"part-000002", "part-000003"}
    with pytest.raises(InputError, match="from number 4 on"):
        find_source(tmp_path, first_part=4)
    zipped(tmp_path, tmp_path)
    assert [part.packed for part in find_source(tmp_path).parts] == [False] * 3, "a folder beside its zip counts"
    shutil.copytree(tmp_path / "images" / "part-000001", tmp_path / "diffusiondb-large-part-1" / "part-000001")
    with pytest.raises(InputError, match="got two part-000001"):
        find_source(tmp_path)


def test_shards_of_packed_parts_are_their_own(tmp_path: Path, small_parts: None) -> None:
    write(tmp_path / "folders")
    zips = zipped(tmp_path / "folders", tmp_path / "zips")
    rows = read(zips).rows.sample(frac=1, random_state=0)
    for folder, wanted in (
        (zips, {"part-000001-00001": 4, "part-000001-00002": 1, "part-000002-00001": 4, "part-000002-00002": 1}),
        (tmp_path / "folders", {"loose-00001": 4, "loose-00002": 4, "loose-00003": 4}),
    ):
        parts = {part.name: part for part in find_source(folder).parts}
        jobs = plan_shards(rows[["image_name", "part"]], parts, most=5, batch_size=2)
        sizes = {job.name: len(job.images) for job in jobs}
        assert wanted.items() <= sizes.items() and sum(sizes.values()) == 12
        pivots = torch.cat([torch.from_numpy(PivotMaker(ColourPivots(), 2)(job)) for job in jobs])
        names = [name for job in jobs for name in job.images["image_name"]]
        found = dict(zip(names, pivots[:, 0, 0].tolist(), strict=True))
        scored = score_all(folder).set_index("image_name")["red"]
        assert all(found[name] == scored[name] for name in rows["image_name"])


def test_a_dataset_that_the_hub_does_not_give(hub: LocalHub) -> None:
    with pytest.raises(CheckpointError, match="'poloclub/diffusiondb' on the Hub: the Hub shows no such repository"):
        find_source("poloclub/diffusiondb")


READ = """
import json, sys
from prip.training.data.diffusiondb import read_diffusiondb
from prip.training.data.scoring import Scorer
from prip.training.data.source import find_source
from prip.training.data.workers import Job
from made_parts import ColourReward

source = find_source("made/diffusiondb", part_limit=2)
rows = read_diffusiondb(source.parts, source.metadata).rows
parts = {part.name: part for part in source.parts}
scores = Scorer([ColourReward("red", 0)], 4)(Job("all", rows.assign(text=rows["prompt"]), parts))
print(json.dumps([source.parts[0].revision, rows["image_name"].tolist(), scores["red"].tolist()]))
"""


def test_a_dataset_on_the_hub_is_read_part_by_part(tmp_path: Path, small_parts: None) -> None:
    write(tmp_path / "folders")
    zips = zipped(tmp_path / "folders", tmp_path / "zips")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with serving() as hub:
        made = hub.add("made/diffusiondb", zips)
        environment = {
            "PATH": os.environ["PATH"],
            "HF_ENDPOINT": hub.endpoint,
            "HF_HOME": str(tmp_path / "home"),
            "TMPDIR": str(scratch),
            "PYTHONPATH": str(Path(__file__).parent),
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        done = subprocess.run(
            [sys.executable, "-c", READ], capture_output=True, text=True, env=environment, cwd=tmp_path
        )
    assert done.returncode == 0, done.stderr
    commit, names, reds = json.loads(done.stdout)
    wanted = score_all(zips)[:10]
    assert (commit, names, reds) == (made, wanted["image_name"].tolist(), wanted["red"].tolist())
    given = [path.partition(f"/resolve/{made}/")[2] for path in hub.paths() if "/resolve/" in path]
    assert given == ["metadata.parquet", "images/part-000001.zip", "images/part-000002.zip"], "each once, not the third"
    assert not list(scratch.iterdir()) and not list((tmp_path / "home").rglob("*.zip")), "zips are dropped when read"
