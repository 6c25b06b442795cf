"""What another run in the same folder does again: nothing that holds, all that does not, and what it says of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from chat_endpoint import Endpoint, Reply, serving
from pandas.testing import assert_frame_equal

from prip.errors import InputError, PripError
from prip.inference.checkpoint_parts import Parts
from prip.inference.evaluation.kinds.registry import EMBEDDERS, GENERATORS, REFINERS, SCORERS, Context
from prip.inference.evaluation.settings import EvaluationSettings
from prip.inference.evaluation.work.identities import PARTS_READ, Identities, differing
from prip.inference.evaluation.work.run import Evaluation
from prip.rewards.prompt_reward import PromptReward

PROMPTS = ["a cat", "a dog in a city", "an apple", "a boat on the sea", "a car"]
REWARD = {"kind": "reward", "role": "trained against"}


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serving() as state:
        yield state


@pytest.fixture
def chat(endpoint: Endpoint) -> dict[str, Any]:
    return {"kind": "chat", "base_url": endpoint.url, "model": "tiny", "retries": 0, "concurrency": 1}


@pytest.fixture
def settings(tmp_path: Path, chat: dict[str, Any]) -> EvaluationSettings:
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS) + "\n")
    return EvaluationSettings(
        prompts={"kind": "file", "place": str(tmp_path / "prompts.txt")},
        refiners={"gpt": chat},
        generators={"renderer": {"kind": "renderer"}},
        scorers={"mini-reward": REWARD},
        images_per_prompt=2,
        chunk=2,
    )


class Folder:
    """An evaluation's folder, and what runs in it."""

    def __init__(self, path: Path, checkpoint: Path) -> None:
        self.path, self.checkpoint = path, checkpoint

    def run(self, settings: EvaluationSettings, overwrite: bool = False, seed: int = 0) -> pd.DataFrame:
        context = Context(Parts.of_checkpoint(str(self.checkpoint)), "cpu", seed)
        evaluation = Evaluation(settings, context, self.path, self.path / "images")
        self.drawn = evaluation.run(overwrite)["drawn"]
        self.vectors = evaluation.vectors()
        return pd.read_parquet(self.path / "results.parquet")

    def times(self, pattern: str) -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in self.path.glob(pattern)}


@pytest.fixture
def folder(tmp_path: Path, whole_checkpoint: Path) -> Folder:
    return Folder(tmp_path / "out", whole_checkpoint)


def fresh(folder: Folder, settings: EvaluationSettings) -> pd.DataFrame:
    """What an evaluation from nothing finds."""
    return Folder(folder.path.with_name("fresh"), folder.checkpoint).run(settings)


def test_what_touches_the_analysis_alone_does_nothing_again(folder: Folder, settings, endpoint: Endpoint) -> None:
    first = folder.run(settings)
    assert folder.drawn == 20 and len(endpoint.requests) == 5
    before = folder.times("*/*/*")
    other = replace(
        settings,
        comparisons=[["none", "gpt"]],
        bootstrap_draws=200,
        agreement_renders=8,
        batch_size=3,
        scorers={"mini-reward": {**REWARD, "role": "held out"}},
        generators={"renderer": {"kind": "renderer", "seen": False}},
    )
    assert_frame_equal(folder.run(other), first)
    assert folder.times("*/*/*") == before and folder.drawn == 0 and len(endpoint.requests) == 5


def test_what_is_added_is_all_that_is_made(folder: Folder, settings, endpoint: Endpoint, chat) -> None:
    folder.run(settings)
    texts = folder.times("refined/*/*")
    house = {"kind": "suffix", "text": "golden hour"}
    more = replace(settings, refiners={"house": house, **settings.refiners})
    table = folder.run(more)
    assert folder.drawn == 10 and len(endpoint.requests) == 5
    assert texts.items() <= folder.times("refined/*/*").items()
    assert_frame_equal(table, fresh(folder, more))

    scorers = {"truth": {"kind": "truth"}, **more.scorers}
    more = replace(more, scorers=scorers, embedder={"kind": "pivots"})
    table = folder.run(more)
    assert folder.drawn == 0 and {key: len(own) for key, own in folder.vectors.items()} == {
        ("renderer", name): 5 for name in ("none", "house", "gpt")
    }
    shutil.rmtree(folder.path.with_name("fresh"))
    assert_frame_equal(table, fresh(folder, more))

    fewer = replace(more, refiners={"house": house}, scorers={"truth": {"kind": "truth"}}, embedder=None)
    found = folder.run(fewer)
    assert set(found["refiner"]) == {"none", "house"} and "score:mini-reward" not in found
    assert found["within_distance"].isna().all() and folder.vectors == {}
    asked = len(endpoint.requests)
    assert_frame_equal(folder.run(more), table)
    assert folder.drawn == 0 and len(endpoint.requests) == asked


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images_per_prompt": 1}, "images_per_prompt"),
        ({"chunk": 3}, "chunk"),
        ({"prompt_limit": 2}, "prompts"),
        ({"refiners": {"gpt": {"model": "other"}}}, r"refiner 'gpt' \(model\)"),
        ({"scorers": {"mini-reward": {"place": "mini-hps"}}}, r"scorer 'mini-reward' \(place, files of the rewards\)"),
    ],
)
def test_what_changes_texts_images_or_scores_is_refused_by_name(
    folder: Folder, settings, chat, change: dict[str, Any], words: str
) -> None:
    folder.run(settings)
    before = folder.times("*/*/*")
    whole = {"refiners": {"gpt": chat}, "scorers": {"mini-reward": REWARD}}
    other = {
        name: {key: {**whole[name][key], **own} for key, own in value.items()} if name in whole else value
        for name, value in change.items()
    }
    with pytest.raises(InputError, match=f"made with other {words}; .*--overwrite, which deletes"):
        folder.run(replace(settings, **other))
    assert folder.times("*/*/*") == before


def test_overwrite_keeps_what_did_not_change_and_says_what_it_deletes(
    folder: Folder, settings, chat, endpoint: Endpoint, capsys: pytest.CaptureFixture
) -> None:
    house = {"kind": "suffix", "text": "golden hour"}
    folder.run(replace(settings, refiners={"house": house, "gpt": chat}))
    texts = folder.times("refined/gpt/*")
    other = replace(settings, refiners={"house": {**house, "text": "sharp focus"}, "gpt": chat})
    capsys.readouterr()
    table = folder.run(other, overwrite=True)
    assert capsys.readouterr().err == (
        f"{folder.path}: other refiner 'house' (text); deleting the refined prompts of house\n"
    )
    assert texts and folder.times("refined/gpt/*") == texts and len(endpoint.requests) == 5 and folder.drawn == 10
    assert_frame_equal(table, fresh(folder, other))
    endpoint.requests.clear()
    folder.run(other, overwrite=True, seed=1)
    assert "other seed; deleting all refined prompts and measurements" in capsys.readouterr().err
    assert len(endpoint.requests) == 5
    folder.run(other, overwrite=True, seed=1)
    assert capsys.readouterr().err == "" and len(endpoint.requests) == 5, "nothing differs, nothing is deleted"


@pytest.mark.slow
def test_weights_that_change_under_the_same_name_are_another_entry(
    folder: Folder, settings, tmp_path: Path, whole_checkpoint: Path
) -> None:
    place = tmp_path / "reward"
    shutil.copytree(whole_checkpoint / "rewards" / "mini-reward", place)
    mine = tmp_path / "mine"
    shutil.copytree(whole_checkpoint / "refiner", mine)
    own = replace(
        settings,
        refiners={"mine": {"kind": "prip", "place": str(mine)}},
        scorers={"judge": {"kind": "reward", "place": str(place)}},
    )
    first = folder.run(own)
    moved = replace(own, refiners={"mine": {"kind": "prip", "place": str(mine.rename(tmp_path / "moved"))}})
    assert_frame_equal(folder.run(moved), first)
    reward = PromptReward.from_pretrained(place)
    with torch.no_grad():
        for weight in reward.parameters():
            weight.mul_(1.5)
    reward.save_pretrained(place)
    with pytest.raises(InputError, match=r"other scorer 'judge' \(files of place\); .* deletes the scores of judge"):
        folder.run(moved)
    again = folder.run(moved, overwrite=True)
    assert (again["score:judge"] != first["score:judge"]).all() and folder.drawn == 0
    (tmp_path / "moved" / "decoder" / "note.txt").write_text("another file")
    with pytest.raises(InputError, match=r"other refiner 'mine' \(files of place\)"):
        folder.run(moved)


def test_a_part_of_the_checkpoint_that_changes_names_who_reads_it(
    settings, tmp_path: Path, whole_checkpoint: Path
) -> None:
    copy = tmp_path / "checkpoint"
    shutil.copytree(whole_checkpoint, copy)
    identities = {name: {"kind": name} for name in ("prip", "truth", "renderer", "suffix")}
    before = {name: Identities(Parts.of_checkpoint(str(copy))).of(entry) for name, entry in identities.items()}
    (copy / "readers" / "note.txt").write_text("another file")
    after = {name: Identities(Parts.of_checkpoint(str(copy))).of(entry) for name, entry in identities.items()}
    assert {name: differing(before[name], after[name]) for name in identities} == {
        "prip": "",
        "truth": "files of the readers",
        "renderer": "files of the readers",
        "suffix": "",
    }
    tied = [{"kind": "reward", "place": f"hps-v2.{one}={copy / 'readers'}"} for one in (0, 1)]
    first, second = (Identities(Parts.of_checkpoint(str(copy))).of(entry) for entry in tied)
    assert differing(first, second) == "place" and first["content"] == second["content"] != {}
    assert set(PARTS_READ) == {*REFINERS, *GENERATORS, *SCORERS, *EMBEDDERS}, "every kind says what it reads"


def test_work_of_which_nothing_is_told_is_not_taken_for_ones_own(folder: Folder, settings) -> None:
    folder.run(settings)
    (folder.path / "settings.json").write_text("{")
    with pytest.raises(InputError, match="other settings, which are not recorded; .*deletes all refined prompts"):
        folder.run(settings)


def test_only_the_prompts_that_failed_are_asked_again(folder: Folder, settings, endpoint: Endpoint) -> None:
    endpoint.replies = [Reply(), Reply({}, 400), Reply()]
    table = folder.run(settings)
    assert len(endpoint.requests) == 5, "one that fails spares the others"
    failed = table[table["error"] != ""]
    assert set(failed["user_prompt"]) == {PROMPTS[1]} and failed["error"].str.contains("refused with 400").all()
    assert set(failed["refiner"]) == {"gpt"} and set(failed["image"]) == {""}
    endpoint.replies = [Reply({}, 400)]
    assert_frame_equal(folder.run(settings), table)
    assert [asked["messages"][-1]["content"] for asked in endpoint.requests[5:]] == [PROMPTS[1]]
    table = folder.run(settings)
    assert len(endpoint.requests) == 7 and folder.drawn == 2 and (table["error"] == "").all()
    assert_frame_equal(table, fresh(folder, settings))


def test_a_last_chunk_that_fails_is_rows_and_only_all_prompts_end_the_run(
    folder: Folder, settings, endpoint: Endpoint
) -> None:
    endpoint.replies = [*[Reply()] * 4, Reply({}, 400)]
    for _ in range(2):
        table = folder.run(settings)
        assert set(table.loc[table["error"] != "", "user_prompt"]) == {PROMPTS[4]}
        endpoint.replies = [Reply({}, 400)]
    shutil.rmtree(folder.path)
    endpoint.replies = [Reply({}, 400)] * 5
    with pytest.raises(PripError, match="refiner 'gpt': all prompts failed: .*refused with 400"):
        folder.run(settings)
