"""The Hub, spoken to in earnest: a small server on 127.0.0.1 that answers as the Hub does, and fails as it does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import READER, WRITER, Fault, LocalHub, Repository, lfs_hash

from prip.errors import CheckpointError, PripWarning
from prip.hub.fetch import fetch
from prip.hub.names import hub_files
from prip.loading.folders import refiner_folder

NAME = "someone/some-refiner"
WEIGHTS = "decoder/model.safetensors"


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_refiner_comes_whole_and_is_asked_for_once(hub: LocalHub, tiny_checkpoint: Path) -> None:
    commit = hub.add(NAME, tiny_checkpoint)
    folder = refiner_folder(NAME)
    assert folder.name == commit
    assert files_of(folder) == files_of(tiny_checkpoint)
    for name in files_of(folder):
        assert (folder / name).read_bytes() == (tiny_checkpoint / name).read_bytes(), name
    hub.requests.clear()
    assert refiner_folder(NAME) == folder
    assert hub.requests == [("GET", f"/api/models/{NAME}", None)]
    hub.requests.clear()
    assert refiner_folder(NAME, revision=commit) == folder
    assert hub.requests == [], "a pinned commit in the cache needs no network"


def test_of_a_whole_checkpoint_only_the_refiner_is_fetched(
    hub: LocalHub, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(tiny_checkpoint, whole / "refiner")
    shutil.copytree(tiny_checkpoint / "encoder", whole / "warmup" / "encoder")
    (whole / "refiner" / "pytorch_model.bin").write_bytes(b"a pickle")
    hub.add(NAME, whole)
    folder = refiner_folder(NAME)
    assert folder.name == "refiner"
    assert files_of(folder.parent) == {f"refiner/{name}" for name in files_of(tiny_checkpoint)}
    assert not [path for path in hub.paths() if "warmup" in path or ".bin" in path]
    assert files_of(fetch(NAME, None, hub_files)) == files_of(whole) - {"refiner/pytorch_model.bin"}


def test_branches_tags_and_commits(hub: LocalHub, tiny_checkpoint: Path) -> None:
    old = hub.add(NAME, tiny_checkpoint)
    repository = hub.repositories[NAME]
    repository.refs["v1"] = old
    config = repository.commits[old]["config.json"]
    new = repository.commit({**repository.commits[old], "config.json": config + b"\n"})
    assert refiner_folder(NAME).name == new
    assert refiner_folder(NAME, "v1").name == refiner_folder(NAME, old).name == old


FAULTS = {
    "401": ([Fault("/api/models", 401)], "shows no such repository without a token; check the name.*hf auth login"),
    "404": ([Fault("/api/models", 404, "RepoNotFound")], "the Hub shows no such repository; check the name"),
    "403": ([Fault("/api/models", 403, error_message="no")], "forbids it .*403 Forbidden: no"),
    "429": ([Fault("/api/models", 429)], "too many requests .*try again in a few minutes"),
    "500": ([Fault("/api/models", 500)], "the Hub failed with 500; try again later"),
    "500 for a file": ([Fault("/resolve/", 500)], "the Hub failed with 500; try again later"),
    "500 from the storage": ([Fault("/storage/", 500)], "the Hub failed with 500; try again later"),
    "404 for a file": ([Fault("/resolve/", 404, "EntryNotFound")], "a file that the Hub lists does not exist"),
    "truncated": ([Fault("/storage/", truncate_to=0)], "could not be reached .*try again"),
    "short": (
        [Fault("/storage/", shorten_to=5_000)],
        "was interrupted after 5,000 of [0-9,]+ bytes; try again to resume",
    ),
    "wrong hash": ([Fault("/storage/", corrupt=True)], "model.safetensors does not match .* sha256 is not"),
    "wrong hash of JSON": ([Fault("/config.json", corrupt=True)], "config.json does not match .* sha1 is not"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_what_the_hub_does_wrong_is_told_and_leaves_nothing_half_loaded(
    hub: LocalHub, tiny_checkpoint: Path, tmp_path: Path, case: str
) -> None:
    hub.faults, message = list(FAULTS[case][0]), FAULTS[case][1]
    hub.add(NAME, tiny_checkpoint)
    with pytest.raises(CheckpointError, match=rf"^checkpoint '{NAME}': .*{message}") as caught:
        refiner_folder(NAME)
    assert "\n" not in str(caught.value)
    storage = tmp_path / "cache" / f"models--{NAME.replace('/', '--')}"
    assert not (storage / "refs").exists() and not (storage / "snapshots").exists()
    hub.faults.clear()
    assert files_of(refiner_folder(NAME)) == files_of(tiny_checkpoint), "the next call puts it right"


def test_unknown_revisions_and_repositories(hub: LocalHub, tiny_checkpoint: Path) -> None:
    hub.add(NAME, tiny_checkpoint)
    with pytest.raises(CheckpointError, match=f"'{NAME}' at revision 'v9': no such revision on the Hub"):
        refiner_folder(NAME, "v9")
    with pytest.raises(CheckpointError, match="'someone/else': the Hub shows no such repository"):
        refiner_folder("someone/else")
    hub.repositories["someone/other"] = Repository()
    hub.repositories["someone/other"].commit({"notes.json": b"{}", "model.bin": b"a pickle"})
    with pytest.raises(CheckpointError, match="'someone/other': the repository has none of the expected files"):
        refiner_folder("someone/other")


def test_gated_and_private_repositories(hub: LocalHub, tiny_checkpoint: Path, monkeypatch) -> None:
    hub.add(NAME, tiny_checkpoint, gated=True)
    hub.add("someone/secret", tiny_checkpoint, private=True)
    for token in (None, READER):
        if token:
            monkeypatch.setenv("HF_TOKEN", token)
        gated = f"gated: ask for access at {hub.endpoint}/{NAME}, then log in with `hf auth login`"
        with pytest.raises(CheckpointError, match=gated):
            refiner_folder(NAME)
        with pytest.raises(CheckpointError, match="if it is private, log in with `hf auth login`, or set HF_TOKEN"):
            refiner_folder("someone/secret")
    monkeypatch.setenv("HF_TOKEN", "hf_stale")
    with pytest.raises(CheckpointError, match="does not accept your token; check the name, and log in"):
        refiner_folder("someone/secret")
    monkeypatch.setenv("HF_TOKEN", WRITER)
    assert files_of(refiner_folder(NAME)) == files_of(refiner_folder("someone/secret")) == files_of(tiny_checkpoint)


def test_no_answer_in_time(hub: LocalHub, tiny_checkpoint: Path, monkeypatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.2)
    hub.add(NAME, tiny_checkpoint)
    hub.faults.append(Fault("/api/models", wait_s=2))
    with pytest.raises(CheckpointError, match="could not be reached: no answer in time; try again; the cache holds no"):
        refiner_folder(NAME)


def test_a_broken_download_goes_on_where_it_broke(hub: LocalHub, tiny_checkpoint, tmp_path, monkeypatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 4096)  # what is written at once, and so lost at a break
    hub.add(NAME, tiny_checkpoint)
    content = (tiny_checkpoint / WEIGHTS).read_bytes()
    digest = lfs_hash(content)
    hub.faults = [Fault(f"/storage/{digest}", truncate_to=20_000, times=1), Fault(f"/storage/{digest}", 500)]
    with pytest.raises(CheckpointError, match="the Hub failed with 500"):
        refiner_folder(NAME)
    partial = next((tmp_path / "cache").rglob(f"{digest}.prip.incomplete"))
    assert partial.read_bytes() == content[:16_384]
    hub.faults.clear()
    hub.requests.clear()
    folder = refiner_folder(NAME)
    assert (folder / WEIGHTS).read_bytes() == content
    assert [span for _, path, span in hub.requests if digest in path] == ["bytes=16384-"]
    assert not partial.exists()


def test_a_file_that_stays_short_is_not_waited_for(hub: LocalHub, tiny_checkpoint: Path) -> None:
    hub.add(NAME, tiny_checkpoint)
    hub.faults = [Fault(f"/storage/{lfs_hash((tiny_checkpoint / WEIGHTS).read_bytes())}", shorten_to=5_000)]
    for _ in range(2):
        with pytest.raises(CheckpointError, match="decoder/model.safetensors was interrupted after 5,000 of"):
            refiner_folder(NAME)


def test_a_rotten_partial_file_is_fetched_anew(hub: LocalHub, tiny_checkpoint: Path, tmp_path: Path) -> None:
    hub.add(NAME, tiny_checkpoint)
    content = (tiny_checkpoint / WEIGHTS).read_bytes()
    blobs = tmp_path / "cache" / f"models--{NAME.replace('/', '--')}" / "blobs"
    blobs.mkdir(parents=True)
    for rotten in (b"x" * 1000, b"x" * (len(content) + 1)):
        (blobs / f"{lfs_hash(content)}.prip.incomplete").write_bytes(rotten)
        assert (refiner_folder(NAME) / WEIGHTS).read_bytes() == content
        shutil.rmtree(blobs.parent / "snapshots")
        (blobs / lfs_hash(content)).unlink()


def test_without_the_hub_the_last_whole_copy_serves(hub: LocalHub, tiny_checkpoint: Path, monkeypatch) -> None:
    from huggingface_hub import constants

    old = hub.add(NAME, tiny_checkpoint)
    folder = refiner_folder(NAME)
    files = hub.repositories[NAME].commits[old]
    changed = {**files, WEIGHTS: files[WEIGHTS] + b"\0"}
    hub.repositories[NAME].commit(changed)
    hub.faults = [Fault(f"/storage/{lfs_hash(changed[WEIGHTS])}", 500)]
    with pytest.warns(PripWarning, match=f"the Hub failed with 500.*; using the copy of commit {old[:12]}"):
        assert refiner_folder(NAME) == folder, "a new commit that breaks off does not take the old one's place"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert refiner_folder(NAME) == folder
    assert refiner_folder(NAME, old) == folder
    assert hub.requests == []
    with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE is set; unset it .*; the cache holds no complete copy"):
        refiner_folder(NAME, "v2")


def test_offline_half_a_copy_is_no_copy(hub: LocalHub, tiny_checkpoint: Path, tmp_path: Path, monkeypatch) -> None:
    from huggingface_hub import constants

    whole = tmp_path / "whole"
    shutil.copytree(tiny_checkpoint, whole / "refiner")
    shutil.copytree(tiny_checkpoint / "encoder", whole / "warmup" / "encoder")
    hub.add(NAME, whole)
    refiner_folder(NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert refiner_folder(NAME).is_dir()
    with pytest.raises(CheckpointError, match="the cache holds no complete copy"):
        fetch(NAME, None, hub_files)


def test_a_copy_of_another_program_serves_offline(hub: LocalHub, tiny_checkpoint: Path, monkeypatch) -> None:
    from huggingface_hub import constants, snapshot_download

    commit = hub.add(NAME, tiny_checkpoint)
    snapshot_download(NAME, allow_patterns=["*config.json"])
    assert files_of(refiner_folder(NAME, commit)) == files_of(tiny_checkpoint), "what is there is not taken for all"
    snapshot = Path(constants.HF_HUB_CACHE) / f"models--{NAME.replace('/', '--')}"
    shutil.rmtree(snapshot / "prip")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert files_of(refiner_folder(NAME)) == files_of(refiner_folder(NAME, commit)) == files_of(tiny_checkpoint)


def test_names_that_lead_out_of_the_cache_are_refused(hub: LocalHub, tiny_checkpoint: Path, tmp_path: Path) -> None:
    hub.add(NAME, tiny_checkpoint)
    files = next(iter(hub.repositories[NAME].commits.values()))
    files["encoder/../../../../../escaped.json"] = b"{}"
    with pytest.raises(CheckpointError, match="lists a file outside the repository"):
        refiner_folder(NAME)
    assert not list(tmp_path.rglob("escaped.json"))


def test_the_environment_is_enough(hub: LocalHub, tiny_checkpoint: Path, tmp_path: Path) -> None:
    """HF_ENDPOINT, HF_TOKEN and HF_HOME, as a user sets them, for the command."""
    hub.add(NAME, tiny_checkpoint, private=True)
    clean = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    settings = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": WRITER}
    command = [Path(sys.executable).with_name("prip"), "refine", "a cat", "--model", NAME]
    result = subprocess.run(command, env={**clean, **settings}, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("a cat, ")


# publishing


@pytest.fixture
def writer(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> LocalHub:
    """A Hub with somebody logged in who may write."""
    monkeypatch.setenv("HF_TOKEN", WRITER)
    return hub


def test_what_is_pushed_comes_back(writer: LocalHub, tiny_checkpoint: Path) -> None:
    from prip.refiner import Refiner

    refiner = Refiner.from_pretrained(tiny_checkpoint, device="cpu")
    refiner.record = {"stages": {"rl": {"seed": 3, "metrics": {"steps": 7, "best": {"dev_reward": 0.25}}}}}
    commit = refiner.push_to_hub(NAME, private=True, commit_message="The first one", license="apache-2.0")
    assert writer.repositories[NAME].private
    assert writer.messages == ["The first one"]
    prompts = ["a cat", "an old lighthouse at night"]
    for revision in (None, commit):
        again = Refiner.from_pretrained(NAME, revision=revision, device="cpu")
        assert again.refine(prompts) == refiner.refine(prompts)
        assert again.record == refiner.record
    card = writer.repositories[NAME].commits[commit]["README.md"].decode()
    assert "| rl | 3 | 7 | dev_reward 0.25 |" in card
    assert f'Refiner.from_pretrained("{NAME}")' in card


def test_the_card_has_a_header_that_the_hub_reads(tiny_checkpoint: Path) -> None:
    from huggingface_hub import ModelCard

    from prip.hub.model_card import refiner_card

    card = ModelCard(refiner_card(NAME, None, "mit"))
    assert card.data.license == "mit"
    assert card.data.tags == ["prompt-refinement", "text-to-image"]
    assert card.data.library_name == "prip"
    assert "license" not in ModelCard(refiner_card(NAME, None)).data.to_dict()


def test_a_push_replaces_what_was_there_on_its_branch(writer: LocalHub, tiny_checkpoint: Path, tmp_path: Path) -> None:
    from prip.hub.publish import publish

    folder = tmp_path / "refiner"
    shutil.copytree(tiny_checkpoint, folder)
    (folder / "old.safetensors").write_bytes(b"x")
    (folder / "state.pt").write_bytes(b"a pickle")
    first = publish(folder, NAME)
    (folder / "old.safetensors").unlink()
    second = publish(folder, NAME, revision="next")
    repository = writer.repositories[NAME]
    assert repository.refs == {"main": first, "next": second}
    assert set(repository.commits[first]) - set(repository.commits[second]) == {"old.safetensors"}
    assert set(repository.commits[second]) == files_of(tiny_checkpoint) | {".gitattributes"}


def test_a_push_that_fails_says_why(hub: LocalHub, tiny_checkpoint: Path, tmp_path: Path, monkeypatch) -> None:
    from prip.hub.publish import publish

    with pytest.raises(CheckpointError, match=f"'{NAME}' was not published: .*hf auth login"):
        publish(tiny_checkpoint, NAME)
    monkeypatch.setenv("HF_TOKEN", READER)
    with pytest.raises(CheckpointError, match="forbids it .*does your token allow writing"):
        publish(tiny_checkpoint, NAME)
    monkeypatch.setenv("HF_TOKEN", WRITER)
    hub.add(NAME, tiny_checkpoint)
    with pytest.raises(CheckpointError, match="private: .* exists and is public"):
        publish(tiny_checkpoint, NAME, private=True)
    assert len(hub.repositories[NAME].commits) == 1
    hub.faults = [Fault("/preupload/", 500, method="POST")]
    with pytest.raises(CheckpointError, match="was not published: the Hub failed with 500; try again later"):
        publish(tiny_checkpoint, NAME)
    hub.faults.clear()
    with pytest.raises(CheckpointError, match=r"expected the name of a repository \(owner/name\), got 'a/b/c'"):
        publish(tiny_checkpoint, "a/b/c")
    with pytest.raises(CheckpointError, match="folder: expected a folder to publish"):
        publish(tmp_path / "nowhere", NAME)
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "README.md").write_text("---\nlicense: my-own\n---\n")
    with pytest.raises(CheckpointError, match="license"):
        publish(folder, NAME)


def test_records_travel_as_json(tiny_checkpoint: Path, tmp_path: Path) -> None:
    from prip.refiner import Refiner

    refiner = Refiner.from_pretrained(tiny_checkpoint, device="cpu")
    assert refiner.record is None
    refiner.record = {"data": {"prompts.parquet": "é"}}
    refiner.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "training.json").read_text(encoding="utf-8")) == refiner.record
    assert Refiner.from_pretrained(tmp_path / "again", device="cpu").refine("a cat") == refiner.refine("a cat")
