"""Names, links and paths that lead elsewhere: into the cache's neighbours, devices, or the trainer's home."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from prip.errors import CheckpointError, InputError
from prip.hub.names import is_on_hub, parse_dataset_file, split_revision
from prip.loading.untrusted import read_json
from prip.training.runs.refiner_folder import portable

OUTSIDE = ["../../../../escaped/refs_out", "..", ".", "a/../b", "/etc", "a//b", "a/", "a/.", "x" * 256]


@pytest.mark.parametrize("revision", OUTSIDE)
def test_a_revision_stays_inside_the_cache(revision: str) -> None:
    name = f"owner/name@{revision}"
    assert not is_on_hub(name) and split_revision(name) == (name, None)
    with pytest.raises(InputError, match="expected hf://datasets/"):
        parse_dataset_file(f"hf://datasets/{name}/data.parquet")


@pytest.mark.parametrize("revision", ["main", "v1.0", "refs/pr/3", "a..b", ".hidden", "x" * 255])
def test_revisions_of_the_hub_are_accepted(revision: str) -> None:
    assert split_revision(f"owner/name@{revision}") == ("owner/name", revision)


def test_json_is_read_from_files_inside_their_folder_alone(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "other.json").write_text("{}")
    os.mkfifo(tmp_path / "real" / "pipe.json")
    for name, target in {"device.json": "/dev/zero", "link.json": str(tmp_path / "other.json")}.items():
        (tmp_path / "real" / name).symlink_to(target)
    (tmp_path / "real" / "folder.json").mkdir()
    for name in ("pipe.json", "device.json", "folder.json"):
        with pytest.raises(CheckpointError, match="cannot be read as JSON: expected a file"):
            read_json(tmp_path / "real" / name)
    with pytest.raises(CheckpointError, match="a link that leads out of its folder"):
        read_json(tmp_path / "real" / "link.json")
    assert read_json(tmp_path / "other.json") == {}


@pytest.mark.parametrize(
    ("value", "published"),
    [
        ("../../alice-private/data.parquet", "data.parquet"),
        ("~/private/x", "x"),
        ("~", "~"),
        (r"C:\Users\alice\x", "x"),
        ("C:/Users/alice/x", "x"),
        (r"\\server\alice\x", "x"),
        ("file:///home/alice/x", "x"),
        ("https://user:pw@host.example:8080/v1?token=secret#me", "https://host.example:8080/v1"),
        ("/home/alice/x", "x"),
        ("owner/name@main", "owner/name@main"),
        ("hf://datasets/owner/name@main/a.parquet", "hf://datasets/owner/name@main/a.parquet"),
        ("data/images", "data/images"),
        ("hps-v2.1", "hps-v2.1"),
        (3, 3),
    ],
)
def test_what_is_published_names_nobody(value: Any, published: Any, tmp_path: Path) -> None:
    assert portable({"a": [value]}, tmp_path / "run") == {"a": [published]}
    assert portable(str(tmp_path / "run" / "data"), tmp_path / "run") == "RUN/data"
