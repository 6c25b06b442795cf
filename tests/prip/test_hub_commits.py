"""Names on the Hub, and the commits that they stand for."""

from __future__ import annotations

from pathlib import Path

import pytest
from hub_server import Fault, LocalHub, Repository

from prip.errors import CheckpointError, InputError, PripWarning
from prip.hub.commits import commit_of, pinned
from prip.hub.fetch import fetch
from prip.hub.names import is_on_hub, parse_dataset_file, split_revision

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("org/name", ("org/name", None)),
        ("org/name@v1.0", ("org/name", "v1.0")),
        ("org/name@refs/pr/1", ("org/name", "refs/pr/1")),
        ("org/name@", ("org/name@", None)),
        ("/data/org@v1", ("/data/org@v1", None)),
        ("runs/x/parts/mini@1", ("runs/x/parts/mini@1", None)),
        ("gpt2", ("gpt2", None)),
    ],
)
def test_what_follows_an_owner_and_a_name_is_a_revision(text: str, parts: tuple[str, str | None]) -> None:
    assert split_revision(text) == parts


def test_what_is_here_is_not_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "name@v1").mkdir(parents=True)
    assert is_on_hub("org/name") and not is_on_hub("org/name@v1")
    assert split_revision("org/name@v1") == ("org/name@v1", None)


def test_files_of_datasets_are_named_like_huggingface_hub_does() -> None:
    assert parse_dataset_file("hf://datasets/org/name/a/b.json") == ("org/name", None, "a/b.json")
    assert parse_dataset_file(f"hf://datasets/org/name@{COMMIT}/b.json") == ("org/name", COMMIT, "b.json")
    for text in ("hf://datasets/org/name", "hf://datasets/org/b.json@v1/", "hf://models/org/name/b.json"):
        with pytest.raises(InputError, match="expected hf://datasets/OWNER/NAME/PATH or .*, got"):
            parse_dataset_file(text)


def test_a_name_stands_for_a_commit(hub: LocalHub) -> None:
    hub.repositories["org/name"] = Repository()
    first = hub.repositories["org/name"].commit({"a": b"1"})
    hub.repositories["org/name"].refs["v1"] = first
    second = hub.repositories["org/name"].commit({"a": b"2"})
    assert pinned("org/name") == f"org/name@{second}" and pinned("org/name@v1") == f"org/name@{first}"
    hub.requests.clear()
    assert pinned(f"org/name@{COMMIT}") == f"org/name@{COMMIT}" and pinned("/org/name") == "/org/name"
    assert not hub.requests
    assert commit_of("org/name", None, "dataset") == second and hub.paths() == ["/api/datasets/org/name"]
    with pytest.raises(CheckpointError, match="'org/other' on the Hub: the Hub shows no such repository"):
        pinned("org/other")


def test_without_the_hub_the_commit_in_the_cache_serves(hub: LocalHub) -> None:
    hub.repositories["org/name"] = Repository()
    commit = hub.repositories["org/name"].commit({"a": b"1"})
    hub.faults.append(Fault("/api/models/org/name", status=500))
    with pytest.raises(CheckpointError, match="'org/name' on the Hub: the Hub failed with 500"):
        pinned("org/name")
    hub.faults.clear()
    fetch("org/name", None, list)
    hub.faults.append(Fault("/api/models/org/name", status=500))
    with pytest.warns(PripWarning, match=f"failed with 500.*; using commit {commit[:12]} from the cache"):
        assert pinned("org/name") == f"org/name@{commit}"


def test_files_of_a_dataset_are_fetched_and_verified(hub: LocalHub) -> None:
    hub.repositories["org/data"] = Repository()
    commit = hub.repositories["org/data"].commit({"a/b.json": b"[1]", "large.zip": b"..."})
    folder = fetch("org/data", commit, lambda names: [name for name in names if name == "a/b.json"], "dataset")
    assert (folder / "a" / "b.json").read_bytes() == b"[1]" and not (folder / "large.zip").exists()
    assert folder.parts[-3:] == ("datasets--org--data", "snapshots", commit)
    hub.repositories["org/data"].commit({"a/b.json": b"[2]"})
    hub.faults.append(Fault("/datasets/org/data/resolve", corrupt=True))
    with pytest.raises(CheckpointError, match="dataset 'org/data': a/b.json does not match the Hub's description"):
        fetch("org/data", None, list, "dataset")
