"""The stage prepare: draw, score, mine, cache pivots; on made objects, on real images, and as a command."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from hub_server import LocalHub, Repository
from made_parts import (
    ColourPivots,
    ColourReward,
    MadeGenerator,
    system_prompts,
    user_prompts,
    write_parts,
    write_prompts,
)
from test_parts import zipped

from prip.errors import CheckpointError, InputError, MissingExtraError, PripError
from prip.files import hash_of
from prip.picture_files import read_image
from prip.training.cli.command import main
from prip.training.data.mining import filter_system_prompts, mine_preferred
from prip.training.data.pairs import read_preferred_images, read_system_prompts
from prip.training.data.pivot_cache import PivotCache
from prip.training.data.splits import read_prompts, split_by_series
from prip.training.data.workers import RayWorkers
from prip.training.prepare import stage
from prip.training.prepare.parts import Parts, input_hashes
from prip.training.prepare.stage import _seconds
from prip.training.runs.pinned_settings import pin_prepare
from prip.training.runs.refiner_folder import training_record
from prip.training.settings import PrepareSettings, SystemPromptSettings
from prip.training.settings.prepare import EvaluationSetSettings, FilterSettings, RaySettings

FORBIDDEN = ("renderer", "preference", "reader", "judges")


def made_rewards() -> list[ColourReward]:
    return [ColourReward("mini-reward", 0, 1 / 64, -2.0), ColourReward("mini-hps", 1, 1 / 32, 27.0)]


def made(generator: MadeGenerator | None = None, rewards: list[ColourReward] | None = None) -> Parts:
    chosen = rewards or made_rewards()
    return Parts(lambda: generator or MadeGenerator(), lambda: chosen, ColourPivots)


def settings_for(run: Path, **options: Any) -> PrepareSettings:
    return PrepareSettings(run=run, progress=False, device="cpu", **{"batch_size": 7, **options})


def run_made(run: Path, parts: Parts | None = None, **options: Any) -> dict[str, Any]:
    """Runs the stage on the made parts, in place of those in RUN/parts."""
    settings = pin_prepare(settings_for(run, **options))
    if settings.diffusiondb is None and not (run / "parts").exists():
        write_prompts(run)
    for name in ("generator", "pivot_encoder", "rewards/made"):
        (run / "parts" / name).mkdir(parents=True, exist_ok=True)
    return stage.prepare(settings, stage.begin(settings, input_hashes(settings)), parts or made())


def table(run: Path, name: str) -> pd.DataFrame:
    return pd.read_parquet(run / "data" / f"{name}.parquet")


def colours(run: Path) -> dict[str, list[int]]:
    """Mean colour by image name, read from the files."""
    return {path.name: read_image(path)[:, 0, 0].tolist() for path in (run / "data").rglob("*.png")}


def test_the_best_image_of_each_prompt_is_preferred(tmp_path: Path) -> None:
    metrics = run_made(tmp_path)
    preferred, prompts, pixel = table(tmp_path, "preferred_images"), table(tmp_path, "prompts"), colours(tmp_path)
    drawn = user_prompts()[lambda rows: rows["split"] != "test"]
    assert dict(zip(preferred["user_prompt"], preferred["split"], strict=True)) == dict(
        zip(drawn["user_prompt"], drawn["split"], strict=True)
    )
    red, green = (
        pd.Series([pixel[name][c] for name in prompts.loc[prompts["origin"] == "user", "image_name"]]) for c in (0, 1)
    )
    for row in preferred.itertuples():
        names = prompts.loc[prompts["prompt"] == row.user_prompt, "image_name"].tolist()
        assert len(names) == 8 and row.random_image_name in names
        score = {
            name: (pixel[name][0] - red.mean()) / red.std(ddof=0) + (pixel[name][1] - green.mean()) / green.std(ddof=0)
            for name in names
        }
        assert row.image_name == max(score, key=score.__getitem__)
    assert not (preferred["image_name"] == preferred["random_image_name"]).all()
    assert metrics["standardised_sum"]["preferred"] > metrics["standardised_sum"]["random"] + 0.3
    assert metrics["counts"]["drawn"] == 7 * 8 + 20 and len(pixel) == 76


def test_rewards_json_holds_mean_and_deviation_of_unrefined_images(tmp_path: Path) -> None:
    rewards = made_rewards()
    run_made(tmp_path, made(rewards=rewards))
    prompts, pixel = table(tmp_path, "prompts"), colours(tmp_path)
    red = torch.tensor([pixel[n][0] for n in prompts.loc[prompts["origin"] == "user", "image_name"]]).double() / 64 - 2
    written = json.loads((tmp_path / "data" / "rewards.json").read_text())
    assert written["means"]["mini-reward"] == pytest.approx(red.mean().item(), abs=1e-5)
    assert written["deviations"]["mini-reward"] == pytest.approx(red.std(correction=0).item(), abs=1e-5)
    scores = table(tmp_path, "scores").set_index("image_name")
    assert scores.columns.tolist() == ["mini-reward", "mini-hps"] and len(scores) == 76
    for name, (r, g, _) in pixel.items():
        assert scores.loc[name, "mini-reward"] == pytest.approx(r / 64 - 2, abs=1e-5)
        assert scores.loc[name, "mini-hps"] == pytest.approx(g / 32 + 27, abs=1e-5)
    assert set(rewards[0].asked) == set(prompts["prompt"])


def test_system_prompts_are_those_with_good_images(tmp_path: Path) -> None:
    run_made(tmp_path, system=SystemPromptSettings(keep_share=0.25, thresholds={"mini-hps": 28.0}))
    kept, scores = table(tmp_path, "system_prompts"), table(tmp_path, "scores").set_index("image_name")
    wanted = system_prompts().set_index("system_prompt")["split"]
    assert {"train", "dev"} == set(kept["split"]) and 2 <= len(kept) <= 5
    assert all(wanted[row.system_prompt] == row.split for row in kept.itertuples())
    assert (scores.loc[kept["image_name"], "mini-hps"] > 28).all()
    prompts = table(tmp_path, "prompts").set_index("image_name")
    assert prompts.loc[kept["image_name"], "prompt"].tolist() == kept["system_prompt"].tolist()


def test_system_prompts_can_be_scored_for_their_start(tmp_path: Path) -> None:
    rewards = made_rewards()
    run_made(tmp_path, made(rewards=rewards), system=SystemPromptSettings(scored_for="start"))
    asked = rewards[1].asked
    assert len(asked) == 76 and set(asked) == {f"a {name}" for name in user_prompts()["subject"][:7]}


def test_what_it_writes_is_what_the_warm_ups_read(tmp_path: Path) -> None:
    metrics = run_made(tmp_path, preferred_per_prompt=2)
    pixel = colours(tmp_path)
    for splits in (
        read_preferred_images(tmp_path / "data", "preferred"),
        read_preferred_images(tmp_path / "data", "random"),
        read_system_prompts(tmp_path / "data"),
    ):
        assert len(splits.train) and len(splits.dev)
        name = splits.train.image_names[0]
        assert splits.pivots[[name]][0].tolist() == [pixel[name]] * 2
        assert len(splits.pivots) == metrics["counts"]["pivots"] < 76
    manifest = json.loads((tmp_path / "data" / "manifest.json").read_text())
    assert manifest["sha256"]["preferred_images.parquet"] == hash_of(tmp_path / "data" / "preferred_images.parquet")
    assert manifest["settings"]["preferred_per_prompt"] == 2 and manifest["counts"]["preferred_images"] == 14
    assert set(manifest["inputs"]) == {"user_prompts", "system_prompts", "generator", "pivot_encoder", "rewards/made"}


def test_the_seed_decides(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run_made(tmp_path / name, seed=seed)
    hashes = [json.loads((tmp_path / name / "data" / "manifest.json").read_text())["sha256"] for name in "abc"]
    assert hashes[0] == hashes[1] and hashes[0]["preferred_images.parquet"] != hashes[2]["preferred_images.parquet"]


@pytest.mark.parametrize("stopped", ["drawing", "scoring", "pivots"])
def test_a_stopped_run_goes_on_to_the_same_data(tmp_path: Path, stopped: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*arguments: Any) -> None:
        raise KeyboardInterrupt

    run_made(tmp_path / "whole")
    parts = made(MadeGenerator(fail_at=4 if stopped == "drawing" else 0))
    with monkeypatch.context() as patch:
        if stopped == "scoring":
            patch.setattr(stage, "mine", stop)
        if stopped == "pivots":
            patch.setattr(ColourPivots, "__call__", stop)
        with pytest.raises(KeyboardInterrupt):
            run_made(tmp_path / "cut", parts)
    with pytest.raises(InputError, match="--resume"):
        run_made(tmp_path / "cut")
    rewards = made_rewards()
    metrics = run_made(tmp_path / "cut", made(rewards=rewards), resume=True)
    assert metrics["counts"]["drawn"] == (76 - 3 * 7 if stopped == "drawing" else 0)
    assert len(rewards[0].asked) == (76 if stopped == "drawing" else 0)
    hashes = [
        json.loads((tmp_path / name / "data" / "manifest.json").read_text())["sha256"] for name in ("whole", "cut")
    ]
    assert hashes[0] == hashes[1]
    assert not list((tmp_path / "cut").rglob("*.tmp"))


def test_a_run_is_never_mixed_with_another(tmp_path: Path) -> None:
    run_made(tmp_path)
    with pytest.raises(InputError, match="add --resume"):
        run_made(tmp_path)
    (tmp_path / "parts" / "generator" / "weights").write_bytes(b"other")
    with pytest.raises(InputError, match=r"began, but changed: generator"):
        run_made(tmp_path, resume=True)
    assert run_made(tmp_path, overwrite=True)["counts"]["drawn"] == 76
    foreign = tmp_path / "foreign"
    (foreign / "data").mkdir(parents=True)
    with pytest.raises(InputError, match="was not written by prepare"):
        run_made(foreign)


def test_mining_by_hand() -> None:
    images = pd.DataFrame(
        [("b", "b1", 1.0), ("b", "b2", 3.0), ("b", "b3", 3.0), ("c", "c1", 9.0), ("a", "a2", -1.0), ("a", "a1", -2.0)],
        columns=["prompt", "image_name", "score"],
    ).assign(split="train")
    mined = mine_preferred(images, 1, seed=0)
    assert mined[["user_prompt", "image_name"]].to_numpy().tolist() == [["a", "a2"], ["b", "b2"]]
    two = mine_preferred(images.sample(frac=1, random_state=3), 2, seed=0)
    assert two["image_name"].tolist() == ["a2", "a1", "b2", "b3"]
    assert (
        two["random_image_name"].nunique() == 4
        and two["random_image_name"].iloc[0] == mined["random_image_name"].iloc[0]
    )
    chosen = [mine_preferred(images, 1, seed)["random_image_name"].iloc[1] for seed in range(300)]
    assert all(70 <= chosen.count(name) <= 130 for name in ("b1", "b2", "b3")), "uniform over the prompt's images"


def test_the_start_of_the_workers_is_told_apart(tmp_path: Path) -> None:
    def slowly() -> ColourPivots:
        time.sleep(0.7)
        return ColourPivots()

    seconds = run_made(tmp_path, replace(made(), make_pivot_encoder=slowly))["seconds"]
    assert list(seconds) == ["draw", "score", "pivots", "start"]
    assert seconds["start"] >= 0.7 and all(seconds[name] > 0 for name in seconds)
    assert _seconds([(1.0, 0.0), (3.0, 0.0), (9.0, 4.0), (12.0, 6.5)]) == {
        "draw": 2.0,
        "score": 2.0,
        "pivots": 0.5,
        "start": 6.5,
    }


def test_filtering_by_hand() -> None:
    images = pd.DataFrame(
        [
            ("a", "a1", 1.0, 5.0),
            ("a", "a2", 2.0, 4.0),
            ("b", "b1", 3.0, 6.0),
            ("c", "c1", 0.0, 7.0),
            ("d", "d1", 4.0, 1.0),
        ],
        columns=["prompt", "image_name", "score", "aesthetic"],
    ).assign(split="train")
    kept = filter_system_prompts(images, 0.5, {})
    assert kept.to_numpy().tolist() == [["b", "b1", "train"], ["d", "d1", "train"]]
    assert filter_system_prompts(images, 1.0, {"aesthetic": 4.0})["image_name"].tolist() == ["a1", "b1", "c1"]
    images.loc[images["prompt"].isin(["a", "c"]), "split"] = "dev"
    assert filter_system_prompts(images, 0.5, {})["system_prompt"].tolist() == ["a", "d"]
    with pytest.raises(InputError, match="thresholds: expected names of rewards in use, got clip"):
        filter_system_prompts(images, 0.5, {"clip": 0.28})


def test_prompts_keep_their_splits_apart(tmp_path: Path) -> None:
    rows = [("a", "train"), ("b", "train"), ("b", "dev"), ("c", "dev"), ("d", "train"), ("d", "test"), ("a", "train")]
    path = tmp_path / "prompts.parquet"
    pd.DataFrame(rows, columns=["user_prompt", "split"]).to_parquet(path)
    found = read_prompts(path, "user_prompt", 0, 0)
    assert found.to_numpy().tolist() == [["a", "train"], ["b", "dev"], ["c", "dev"]]
    with pytest.raises(InputError, match="expected prompts of the split"):
        read_prompts(path, "user_prompt", 1, 0)
    with pytest.raises(CheckpointError, match="missing columns: system_prompt"):
        read_prompts(path, "system_prompt", 0, 0)
    prompts = pd.Series([f"prompt {number}" for number in range(2000)])
    splits = split_by_series(prompts, 0.1)
    assert 150 < (splits == "dev").sum() < 250


def test_a_reward_that_tells_nothing_is_an_error(tmp_path: Path) -> None:
    flat = made(rewards=[ColourReward("flat", 0, 0.0), made_rewards()[1]])
    with pytest.raises(InputError, match="flat gave one value only"):
        run_made(tmp_path, flat)


def test_bad_images_are_set_aside_up_to_a_share(tmp_path: Path) -> None:
    run_made(tmp_path / "drawn")
    source = tmp_path / "drawn" / "data" / "diffusiondb"
    files = sorted(source.rglob("*.png"))
    files[0].write_bytes(b"")
    files[1].unlink()
    parts = made(rewards=[ColourReward("mini-reward", 0, shift=float("nan")), *made_rewards()[1:]])
    with pytest.raises(PripError, match="max_bad_share: expected at most 0.01, got 1 bad images of 76"):
        run_made(tmp_path / "early", diffusiondb=source)
    assert not (tmp_path / "early" / "prepare" / "scores").exists(), "too many files are missing"
    with pytest.raises(PripError, match="max_bad_share: expected at most 0.02, got 76 bad images of 76"):
        run_made(tmp_path / "nan", parts, diffusiondb=source, max_bad_share=0.02)
    with pytest.raises(PripError, match="max_bad_share: expected at most 0.02, got 2 bad images of 76"):
        run_made(tmp_path / "run", diffusiondb=source, dev_share=0.4, max_bad_share=0.02)
    metrics = run_made(tmp_path / "run", diffusiondb=source, dev_share=0.4, max_bad_share=0.03, overwrite=True)
    aside = table(tmp_path / "run", "set_aside").set_index("image_name")["reason"].to_dict()
    assert aside == {
        files[0].name: "expected PNG, WebP or JPEG, got an empty file",
        files[1].name: "the file is missing",
    }
    assert (metrics["counts"]["images"], metrics["counts"]["set_aside"], metrics["counts"]["drawn"]) == (74, 2, 0)


def test_zips_are_mined_as_folders_are(tmp_path: Path) -> None:
    run_made(tmp_path / "drawn")
    source = tmp_path / "drawn" / "data" / "diffusiondb"
    for name, place in (("folders", source), ("zips", zipped(source, tmp_path / "db"))):
        run_made(tmp_path / name, diffusiondb=place, dev_share=0.4)
    manifests = [json.loads((tmp_path / name / "data" / "manifest.json").read_text()) for name in ("folders", "zips")]
    hashes = [{name: value for name, value in m["sha256"].items() if name != "pivots"} for m in manifests]
    assert hashes[0] == hashes[1] and "scores.parquet" in hashes[0] and manifests[1]["counts"]["images"] == 76
    caches = [PivotCache(tmp_path / name / "data" / "pivots") for name in ("folders", "zips")]
    names = sorted(caches[0].names)
    assert names == sorted(caches[1].names) and torch.equal(caches[0][names], caches[1][names])
    assert manifests[1]["inputs"]["diffusiondb"] == str(tmp_path / "db")


def test_preference_and_filter_go_by_rewards_of_their_own(tmp_path: Path) -> None:
    system = SystemPromptSettings(keep_share=1.0, thresholds={"mini-reward": 0.5})
    run_made(tmp_path, preferred_by=("mini-hps",), system=system)
    scores, prompts = table(tmp_path, "scores").set_index("image_name"), table(tmp_path, "prompts")
    preferred, kept = table(tmp_path, "preferred_images"), table(tmp_path, "system_prompts")
    for row in preferred.itertuples():
        names = prompts.loc[prompts["prompt"] == row.user_prompt, "image_name"]
        assert row.image_name == scores.loc[names, "mini-hps"].idxmax()
    assert (preferred["image_name"] != best_by(scores, prompts, "mini-reward")[preferred["user_prompt"]].values).any()
    of_system = prompts.loc[prompts["origin"] == "system", "image_name"]
    assert set(kept["image_name"]) == set(of_system[(scores.loc[of_system, "mini-reward"] > 0.5).to_numpy()])
    assert 0 < len(kept) < len(of_system)
    assert list(json.loads((tmp_path / "data" / "rewards.json").read_text())["means"]) == ["mini-reward", "mini-hps"]


def best_by(scores: pd.DataFrame, prompts: pd.DataFrame, reward: str) -> pd.Series:
    """Returns the image with the best raw score of each prompt."""
    joined = prompts.set_index("image_name").join(scores)
    return joined.groupby("prompt")[reward].idxmax()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"preferred_by": ("image-reward",)},
            "preferred_by: expected names among mini-reward, mini-hps, got image-rew",
        ),
        ({"system": SystemPromptSettings(thresholds={"clip": 0.28})}, "system.thresholds: expected names among"),
        ({"system": SystemPromptSettings(ranked_by=("clip",))}, "system.ranked_by: expected names among"),
    ],
)
def test_a_reward_that_is_not_there_is_told_after_the_first_part(
    tmp_path: Path, options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("drawing", "diffusiondb"):
        monkeypatch.setattr(f"prip.training.data.{module}.PART_SIZE", 10)
    rewards = made_rewards()
    with pytest.raises(InputError, match=message):
        run_made(tmp_path, made(rewards=rewards), **options)
    assert len(rewards[0].asked) == 10


def test_what_is_mined_can_be_limited(tmp_path: Path) -> None:
    run_made(tmp_path / "drawn")
    source = tmp_path / "drawn" / "data" / "diffusiondb"
    options: dict[str, Any] = {"diffusiondb": source, "dev_share": 0.4, "system": SystemPromptSettings(keep_share=1.0)}
    metrics = run_made(tmp_path / "a", user_prompt_limit=5, system_prompt_limit=14, **options)
    assert (metrics["counts"]["preferred_images"], metrics["counts"]["system_prompts_kept"]) == (5, 14)
    run_made(tmp_path / "b", user_prompt_limit=5, system_prompt_limit=14, seed=1, **options)
    chosen = [set(table(tmp_path / name, "system_prompts")["system_prompt"]) for name in "ab"]
    assert chosen[0] != chosen[1]


def test_evaluation_prompts_reach_no_table(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("A dog!\na castle, golden hours\n")
    metrics = run_made(tmp_path / "run", evaluation=EvaluationSetSettings(files=(tmp_path / "a.txt",)))
    counts = metrics["counts"]
    assert (counts["evaluation_exact"], counts["evaluation_near"], counts["images"]) == (1, 1, 76 - 8 - 1)
    found = table(tmp_path / "run", "evaluation_prompts")
    assert found[["prompt", "evaluation_prompt", "kind"]].to_numpy().tolist() == [
        ["a dog", "A dog!", "exact"],
        ["a castle, golden hour", "a castle, golden hours", "near"],
    ]
    assert "a dog" not in set(table(tmp_path / "run", "preferred_images")["user_prompt"])
    assert "a castle, golden hour" not in set(table(tmp_path / "run", "system_prompts")["system_prompt"])
    manifest = json.loads((tmp_path / "run" / "data" / "manifest.json").read_text())
    assert manifest["counts"]["evaluation_near"] == 1
    assert manifest["inputs"]["evaluation/a.txt"] == hash_of(tmp_path / "a.txt")


def test_evaluation_prompts_come_from_the_hub(tmp_path: Path, hub: LocalHub) -> None:
    hub.repositories["zhwang/HPDv2"] = Repository()
    files = {"benchmark/anime.json": b'["A dog!", "a ship"]', "benchmark/photo.json": b'["a castle, golden hours"]'}
    commit = hub.repositories["zhwang/HPDv2"].commit({**files, "train.tar": b"..."})
    names = tuple(f"hf://datasets/zhwang/HPDv2/{path}" for path in files)
    metrics = run_made(tmp_path / "run", evaluation=EvaluationSetSettings(files=names))
    assert (metrics["counts"]["evaluation_exact"], metrics["counts"]["evaluation_near"]) == (1, 1)
    assert not [path for path in hub.paths() if "train.tar" in path]
    pinned = f"hf://datasets/zhwang/HPDv2@{commit}/benchmark/anime.json"
    manifest = json.loads((tmp_path / "run" / "data" / "manifest.json").read_text())
    assert manifest["settings"]["evaluation"]["files"][0] == manifest["inputs"]["evaluation/anime.json"] == pinned
    record = training_record(tmp_path / "run", {"prepare": tmp_path / "run" / "prepare"}, [])["stages"]["prepare"]
    assert record["settings"]["evaluation"]["files"][0] == record["inputs"]["evaluation/anime.json"] == pinned
    hub.repositories["zhwang/HPDv2"].commit(files)
    with pytest.raises(InputError, match=f"evaluation.files was .*{commit}"):
        run_made(tmp_path / "run", evaluation=EvaluationSetSettings(files=names), resume=True)
    missing = EvaluationSetSettings(files=("hf://datasets/zhwang/HPDv2/none.json",))
    with pytest.raises(
        CheckpointError, match=r"evaluation.files: none.json of dataset 'zhwang/HPDv2'.* none of the expected files"
    ):
        run_made(tmp_path / "other", evaluation=missing)
    with pytest.raises(InputError, match="evaluation.files: expected hf://datasets/OWNER/NAME/PATH"):
        EvaluationSetSettings(files=("hf://datasets/zhwang/HPDv2",))


def test_a_rerun_makes_the_missing_shards_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run_made(tmp_path / "whole", pivot_shard=7)
    calls: list[int] = []

    class Counting(ColourPivots):
        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            calls.append(len(images))
            if len(calls) == 3:
                raise KeyboardInterrupt
            return super().__call__(images)

    parts = replace(made(), make_pivot_encoder=Counting)
    with pytest.raises(KeyboardInterrupt):
        run_made(tmp_path / "cut", parts, pivot_shard=7)
    shards = sorted((tmp_path / "cut" / "data" / "pivots").iterdir())
    assert [path.name for path in shards] == ["loose-00001.safetensors", "loose-00002.safetensors"]
    shards[0].write_bytes(shards[0].read_bytes()[:-1])
    run_made(tmp_path / "cut", parts, pivot_shard=7, resume=True)
    assert sum(calls[3:]) == whole["counts"]["pivots"] - 7, "one whole shard was kept, the damaged one made again"
    hashes = [json.loads((tmp_path / n / "data" / "manifest.json").read_text())["sha256"] for n in ("whole", "cut")]
    assert hashes[0] == hashes[1]


def test_real_images_are_mined_as_they_are(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    system = SystemPromptSettings(keep_share=0.6)
    metrics = run_made(
        tmp_path, diffusiondb=real_data("generated_images"), dev_share=0.3, system=system, preferred_per_prompt=2
    )
    assert metrics["counts"]["images"] == 74 and metrics["counts"]["system_prompts"] == 54
    preferred, kept = table(tmp_path, "preferred_images"), table(tmp_path, "system_prompts")
    assert preferred["user_prompt"].nunique() == 16 and len(preferred) == 32 and 31 <= len(kept) <= 34
    splits = pd.concat(
        [preferred.rename(columns={"user_prompt": "prompt"}), kept.rename(columns={"system_prompt": "prompt"})]
    )
    assert splits.groupby("prompt")["split"].nunique().max() == 1, "a prompt is in one split, whatever it is used for"
    assert len(read_system_prompts(tmp_path / "data").pivots) == metrics["counts"]["pivots"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images_per_user_prompt": 1}, "images_per_user_prompt: expected at least 2, got 1"),
        ({"preferred_per_prompt": 9}, r"preferred_per_prompt: expected at most images_per_user_prompt \(8\), got 9"),
        ({"max_bad_share": 1.5}, "max_bad_share: expected a number between 0 and 1, got 1.5"),
        (
            {"diffusiondb": Path("x"), "system": SystemPromptSettings(scored_for="start")},
            "scored_for: expected 'prompt'",
        ),
    ],
)
def test_settings_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PrepareSettings(run=Path("r"), **options)
    with pytest.raises(InputError, match="keep_share: expected more than 0, got 0"):
        SystemPromptSettings(keep_share=0)
    with pytest.raises(InputError, match="ray.workers: expected at least 1 where ray.address is given"):
        RaySettings(address="auto")
    with pytest.raises(InputError, match="max_image_nsfw: expected a number between 0 and 1, got 2"):
        FilterSettings(max_image_nsfw=2)


COMMAND = f"""
import sys
for name in {FORBIDDEN}:
    sys.modules["prip.miniature." + name] = None
from prip.training.cli.command import main
sys.exit(main(["prepare", *sys.argv[1:]]))
"""


def command(run: Path, *arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", before + COMMAND, "--config", "smoke", "--run", str(run), "--device", "cpu"]
    return subprocess.run(
        [*words, *arguments], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the command, with real parts and without the modules that prepare must not need."""
    run = tmp_path_factory.mktemp("whole")
    write_parts(run)
    done = command(run)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert "draw: 100%" in done.stderr and "prepare:\n  34 images\n" in done.stderr
    return run


def test_the_command_draws_with_the_diffusion_generator(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    splits = read_preferred_images(whole / "data", "preferred")
    assert (splits.pivots.pivot_length, splits.pivots.pivot_width) == (2, 16)
    assert table(whole, "scores").columns.tolist() == ["image_name", "mini-hps", "mini-reward"]
    again = ["prepare", "--config", "smoke", "--run", str(whole), "--device", "cpu"]
    assert main([*again, "--resume"]) == 0, "a finished stage is passed over"
    assert main(again) == 2 and "--resume" in capsys.readouterr().err


def test_a_run_without_a_world_is_told_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "--config", "miniature", "--run", str(tmp_path)]) == 1
    assert "run prip-train world first" in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_ray_gives_what_this_process_gives(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole / "parts", tmp_path / "parts")
    shutil.copytree(whole / "data" / "diffusiondb", tmp_path / "data" / "diffusiondb")
    (tmp_path / "prepare").mkdir()
    shutil.copy(whole / "prepare" / "inputs.json", tmp_path / "prepare")
    done = command(tmp_path, "--ray.workers", "2", "--pivot_shard", "8")
    assert done.returncode == 0, done.stderr
    manifests = [json.loads((run / "data" / "manifest.json").read_text()) for run in (whole, tmp_path)]
    hashes = [{name: value for name, value in m["sha256"].items() if name != "pivots"} for m in manifests]
    assert hashes[0] == hashes[1] and manifests[1]["settings"]["ray"]["workers"] == 2
    seconds = json.loads((tmp_path / "prepare" / "metrics.json").read_text())["seconds"]
    assert seconds["start"] > seconds["score"] > 0, "34 images are scored in less time than Ray starts in"
    caches = [PivotCache(run / "data" / "pivots") for run in (whole, tmp_path)]
    names = caches[0].names
    assert names == caches[1].names and torch.equal(caches[0][names], caches[1][names])
    assert len(list((tmp_path / "data" / "pivots").glob("*.safetensors"))) > 1


def test_a_killed_command_goes_on_to_the_same_data(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole / "parts", tmp_path / "parts")
    kill = f"""
import os
from prip.training.data import drawing
write, calls = drawing.write_png, []
def killing(path, image):
    calls.append(path)
    os.kill(os.getpid(), {int(signal.SIGKILL)}) if len(calls) == 33 else write(path, image)
drawing.write_png = killing
"""
    killed = command(tmp_path, before=kill)
    assert killed.returncode == -signal.SIGKILL and len(list(tmp_path.rglob("*.png"))) == 32
    resumed = command(tmp_path, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    manifests = [json.loads((run / "data" / "manifest.json").read_text()) for run in (whole, tmp_path)]
    assert manifests[0]["sha256"] == manifests[1]["sha256"]
    assert json.loads((tmp_path / "prepare" / "metrics.json").read_text())["counts"]["drawn"] == 34 - 32


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """An earlier result of the stage, which --overwrite deletes."""
    write_prompts(tmp_path)
    for name in ("generator", "pivot_encoder", "rewards/made"):
        (tmp_path / "parts" / name).mkdir(parents=True)
    for name in ("prepare/settings.yaml", "prepare/inputs.json", "data/drawn"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path / "data" / "drawn"


def test_a_missing_ray_is_reported_before_the_data_is_deleted(
    drawn: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = drawn.parents[1]
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["prepare", "--run", str(run), "--overwrite", "--ray.workers", "1"]) == 1
    assert "prip-train prepare: error: ray is not installed" in capsys.readouterr().err and drawn.exists()
    with pytest.raises(MissingExtraError, match="ray is not installed"):
        stage.begin(settings_for(run, overwrite=True, ray=RaySettings(workers=1)), {})
    assert drawn.exists()


@pytest.mark.parametrize("broken", ["generator", "rewards", "ray"])
def test_what_cannot_be_used_is_refused_before_the_data_is_deleted(
    drawn: Path, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Any:
        raise CheckpointError(f"{broken} cannot be used")

    parts = {"generator": made(), "rewards": made(), "ray": made()}
    parts["generator"] = replace(made(), make_generator=fail)
    monkeypatch.setattr(stage, "parts_of", fail if broken == "rewards" else lambda _: parts[broken])
    if broken == "ray":
        pytest.importorskip("ray")
        monkeypatch.setattr(RayWorkers, "__enter__", fail)
    options = {"ray": RaySettings(workers=1)} if broken == "ray" else {}
    with pytest.raises(CheckpointError, match=f"{broken} cannot be used"):
        stage.run(settings_for(drawn.parents[1], overwrite=True, **options))
    assert drawn.exists()


def test_no_image_is_drawn_for_a_cluster_out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")

    def fail(_: object) -> Any:
        raise PripError("ray: cannot be reached")

    monkeypatch.setattr(RayWorkers, "__enter__", fail)
    with pytest.raises(PripError, match="ray: cannot be reached"):
        run_made(tmp_path, ray=RaySettings(workers=1))
    assert not list(tmp_path.rglob("*.png"))
