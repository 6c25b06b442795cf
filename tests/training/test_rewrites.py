"""Rewrites: sessions of a log by hand, synthetic pairs on made objects, and the stage as a command."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from made_parts import ColourReward, MadeGenerator, write_parts
from test_prepare import FORBIDDEN

from prip.errors import CheckpointError, InputError
from prip.rewards import StandardisedSum
from prip.training.cli.command import main, parse_settings
from prip.training.data.rewrites import as_rewrite, rewrites_of_sessions
from prip.training.data.sessions import find_sessions, read_log, shared_words
from prip.training.data.splits import split_by_series
from prip.training.prepare import rewrites as stage
from prip.training.prepare.synthetic import from_starts, from_table, gains, image_seeds, known_scores
from prip.training.rollouts.image_scorer import ImageScorer, PlainScoreCache
from prip.training.runs.seeds import derive_seed
from prip.training.settings import GainSettings, RewritesSettings, SessionSettings, SyntheticSettings


def log_of(*rows: tuple[str | None, float | None, str | None]) -> pd.DataFrame:
    """Returns a log of (user, minute, prompt)."""
    begin = pd.Timestamp("2022-08-01", tz="UTC")
    times = [None if minute is None else begin + pd.Timedelta(minutes=minute) for _, minute, _ in rows]
    columns: dict[str, Any] = {"prompt": [row[2] for row in rows], "user_name": [row[0] for row in rows]}
    return pd.DataFrame(columns | {"timestamp": pd.to_datetime(pd.Series(times), utc=True)})


def test_sessions_by_hand() -> None:
    log = log_of(
        ("eve", 0, "a cat"),
        ("bob", 1, "a dog"),
        ("eve", 12, "a cat, bokeh"),
        ("eve", 2, "A cat!, sharp focus"),
        ("eve", 12, "a cat, bokeh"),
        ("eve", 43, "a cat, bokeh, 8k"),
        ("eve", 44, "red rose in a field"),
        ("bob", 31, "a dog, 8k"),
        ("bob", 62, "a dog, 8k, bokeh"),
    )
    expected = [
        ["a dog", "a dog, 8k", 2],
        ["a dog, 8k, bokeh", "a dog, 8k, bokeh", 1],
        ["a cat", "a cat, bokeh", 3],
        ["a cat, bokeh, 8k", "a cat, bokeh, 8k", 1],
        ["red rose in a field", "red rose in a field", 1],
    ]
    found = find_sessions(log, 30, 0.5)
    assert found.columns.tolist() == ["first", "last", "prompts"] and found.to_numpy().tolist() == expected
    assert find_sessions(log, 31, 0.5).to_numpy().tolist() == [
        ["a dog", "a dog, 8k, bokeh", 3],
        ["a cat", "a cat, bokeh, 8k", 4],
        expected[-1],
    ]
    # "a cat, bokeh, 8k" and "red rose in a field" share "a", 1 of the 4 words of the shorter
    assert find_sessions(log, 31, 0.25)["last"].tolist() == ["a dog, 8k, bokeh", "red rose in a field"]


def test_shared_words_are_of_the_shorter_prompt() -> None:
    sets = [frozenset(text.split()) for text in ("a cat", "a dog in a park", "")]
    assert [shared_words(sets[0], one) for one in sets] == [1.0, 0.5, 0.0]
    assert shared_words(sets[2], sets[2]) == 0.0


def test_a_log_is_read_without_what_tells_nothing(tmp_path: Path) -> None:
    path = tmp_path / "metadata.parquet"
    rows = [("eve", 0, " a\ncat "), ("", 1, "a"), (None, 1, "a"), ("deleted_account", 1, "a"), ("bob", None, "a dog")]
    log = log_of(*rows, ("bob", 3, "..."), ("bob", 3, None), ("bob", 4, "a fox"), ("bob", 5, "a fish"))
    log.assign(prompt_nsfw=[0.1] * 7 + [0.9, float("nan")]).to_parquet(path)
    found, counts = read_log(path, 0.5)
    assert found["prompt"].tolist() == ["a cat", "a fish"] and found["user_name"].tolist() == ["eve", "bob"]
    assert counts == {"rows": 9, "empty_prompts": 2, "nobody": 3, "no_time": 1, "prompt_nsfw": 1}
    log.to_parquet(path)
    assert read_log(path)[0]["prompt"].tolist() == ["a cat", "a fox", "a fish"]
    log.drop(columns="user_name").to_parquet(path)
    with pytest.raises(CheckpointError, match="missing columns: user_name"):
        read_log(path)
    path.write_bytes(b"PAR1")
    with pytest.raises(CheckpointError, match="expected DiffusionDB's metadata, got an unreadable file"):
        read_log(path)
    with pytest.raises(CheckpointError, match=r"sessions.log: expected .*, got none"):
        read_log(tmp_path / "none.parquet")


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        ("a cat", "a cat, bokeh, 8k", ("a cat", "a cat, bokeh, 8k", "extended")),
        ("a cat.", "a cat,bokeh.", ("a cat.", "a cat, bokeh", "extended")),
        ("a cat, 8k", "a cat, 8k, bokeh", ("a cat, 8k", "a cat, 8k, bokeh", "extended")),
        ("a cat", "a kitten in a park, bokeh", ("a cat", "a cat, bokeh", "carried")),
        ("a cat", "a cat in a park, bokeh", ("a cat", "a cat, bokeh", "carried")),
        ("a cat, 8k", "a cat, bokeh", ("a cat", "a cat, bokeh", "carried")),
        ("a cat", "A cat!", ("a cat", "A cat!", "unchanged")),
        ("a cat, 8k", "a cat", ("a cat, 8k", "a cat", "lost")),
        ("a cat", "a cat in a park", ("a cat", "a cat in a park", "lost")),
        (", 8k", "a cat, bokeh", (", 8k", "a cat, bokeh", "unusable")),
    ],
)
def test_what_becomes_of_a_session(first: str, last: str, expected: tuple[str, str, str]) -> None:
    assert as_rewrite(first, last) == expected


def test_sessions_become_rewrites_and_what_is_lost_is_counted() -> None:
    rows = [("a", "a, b", 2), ("a", "a, b", 5), ("a", "a", 1), ("a", "a!", 3), ("c", "d, e", 2), ("c", "d", 2)]
    pairs, left_out, counts = rewrites_of_sessions(pd.DataFrame(rows, columns=["first", "last", "prompts"]))
    assert pairs.to_numpy().tolist() == [["a", "a, b"], ["c", "c, e"]]
    assert left_out.to_numpy().tolist() == [["a", "a!", "unchanged"], ["c", "d", "lost"]]
    assert counts == {
        "sessions": 6,
        "single": 1,
        "unchanged": 1,
        "unusable": 0,
        "lost": 1,
        "extended": 2,
        "carried": 1,
        "repeated": 1,
    }


def test_synthetic_candidates_by_hand() -> None:
    texts = ["a cat, bokeh,  8k", "a dog", "a cat, bokeh, 8k", " , x", "a fox., 8k."]
    assert from_starts(texts).to_numpy().tolist() == [
        ["a cat", "a cat, bokeh,  8k"],
        ["a cat", "a cat, bokeh, 8k"],
        ["a fox", "a fox, 8k"],
    ]
    table = from_table(["one cat.", "a fish"], [f"x {n}, y {n}" for n in range(50)] + ["bare"], 3, 0)
    assert table["user_prompt"].tolist() == ["one cat."] * 3 + ["a fish"] * 3 and table.duplicated().sum() == 0
    assert table["system_prompt"].str.fullmatch(r"(one cat|a fish), y \d+").all()
    assert table.equals(from_table(["one cat.", "a fish"], [f"x {n}, y {n}" for n in range(50)] + ["bare"], 3, 0))
    assert not table.equals(from_table(["one cat.", "a fish"], [f"x {n}, y {n}" for n in range(50)], 3, 1))


def made_scorer(folder: Path) -> tuple[ImageScorer, StandardisedSum]:
    rewards = [ColourReward("red", 0), ColourReward("green", 1, 0.01)]
    scorer = ImageScorer(MadeGenerator(), rewards, PlainScoreCache(folder))
    return scorer, StandardisedSum(rewards, {"red": 100.0, "green": 1.0}, {"red": 50.0, "green": 0.5})


def test_gains_are_over_the_plain_image_of_the_same_seed(tmp_path: Path) -> None:
    scorer, total = made_scorer(tmp_path)
    table = pd.DataFrame([("a", "a, b"), ("c", "c, d")], columns=["user_prompt", "system_prompt"])
    seeds = [[1, 2], [3, 4]]
    found = gains(table, seeds, scorer, total, {})
    expected = []
    for (user, system), own in zip(table.to_numpy().tolist(), seeds, strict=True):
        colour = MadeGenerator()([system, system, user, user], own * 2)[:, :, 0, 0].float()
        change = (colour[:2] - colour[2:]).mean(dim=0)
        expected.append(float(change[0] / 50 + change[1] * 0.01 / 0.5) / 2)
    assert found == pytest.approx(expected, abs=1e-4)
    assert scorer.rewards[0].asked == ["a", "a", "c", "c"] * 2, "each is scored for the user prompt"
    known = {("a", "a, b", seed): {"red": 0.0, "green": 0.0} for seed in (1, 2)}
    scorer.rewards[0].asked.clear()
    with_known = gains(table, seeds, scorer, total, known)
    assert scorer.rewards[0].asked == ["c", "c"], "what is known is not drawn, nor a plain image twice"
    assert with_known[1] == pytest.approx(found[1]) and with_known[0] < found[0]


def test_seeds_are_those_of_known_images_first() -> None:
    table = pd.DataFrame([("a", "a, b"), ("c", "c, d"), ("e", "e, f")], columns=["user_prompt", "system_prompt"])
    known = {("a", "a", 5): 0, ("a", "a", 6): 0, ("c", "c, d", 7): 0, ("c", "c", 8): 0}
    chosen = image_seeds(table, known, 2, 0)
    assert chosen[:2] == [[5, 6], [8, 7]] and len(set(chosen[2])) == 2
    assert image_seeds(table, known, 3, 0)[0][:2] == [5, 6] and image_seeds(table, {}, 2, 1)[2] != chosen[2]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of small real parts whose stage prepare is done."""
    run = tmp_path_factory.mktemp("prepared")
    write_parts(run)
    assert main(["prepare", "--config", "smoke", "--run", str(run), "--device", "cpu", "--no_progress"]) == 0
    return run


def settings_for(prepared: Path, run: Path, margin: float = -100.0, **synthetic: Any) -> RewritesSettings:
    """Settings of a run of its own, beside the prepared one whose parts and data it shares."""
    run.mkdir(exist_ok=True)
    for name in ("parts", "data"):
        if not (run / name).exists():
            (run / name).symlink_to(prepared / name)
    gain, chosen = GainSettings(margin=margin, chunk=8), SyntheticSettings(**synthetic)
    return RewritesSettings(run=run, synthetic=chosen, gain=gain, device="cpu", progress=False, dev_share=0.3)


def test_what_prepare_drew_is_not_drawn_again(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[str, int]] = []
    real = ImageScorer.draw

    def draw(self: ImageScorer, prompts: list[str], seeds: list[int]) -> torch.Tensor:
        drawn.extend(zip(prompts, seeds, strict=True))
        return real(self, prompts, seeds)

    monkeypatch.setattr(ImageScorer, "draw", draw)
    settings = settings_for(prepared, tmp_path / "table", user_prompts="table", per_user_prompt=3)
    metrics = stage.run(settings)
    made = pd.read_parquet(settings.run / "rewrites" / "rewrites.parquet")
    assert len(made) == metrics["counts"]["kept"] == metrics["counts"]["tried"] > 6 * 3
    assert {prompt for prompt, _ in drawn} == set(made["system_prompt"]), "all plain images were known"
    user = pd.read_parquet(prepared / "parts" / "prompts" / "user_prompts.parquet").set_index("user_prompt")["split"]
    assert (made["user_prompt"].map(user) == made["split"]).all() and "test" not in set(made["split"])
    drawn.clear()
    kept = pd.read_parquet(prepared / "data" / "system_prompts.parquet")
    by_words = sorted(derive_seed("split", one) / 2**63 for one in kept["system_prompt"].str.partition(",")[0].unique())
    share = sum(by_words[:2]) / 2  # one of the starts is dev by its words then
    started = stage.run(replace(settings_for(prepared, tmp_path / "start"), dev_share=share))
    begun = pd.read_parquet(tmp_path / "start" / "rewrites" / "rewrites.parquet")
    assert set(begun["system_prompt"]) == set(kept["system_prompt"])
    assert started["counts"]["tried"] == len(begun) >= len(drawn), "of each pair one image was known"


def test_gains_decide_and_a_stopped_stage_goes_on(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = {"user_prompts": "table", "per_user_prompt": 3}
    stage.run(settings_for(prepared, tmp_path / "all", **table))
    everything = pd.read_parquet(tmp_path / "all" / "rewrites" / "rewrites.parquet")
    gained = pd.concat([pd.read_parquet(file) for file in sorted((tmp_path / "all" / "rewrites" / "gains").iterdir())])
    best_of_dev = gained["gain"].to_numpy()[everything["split"] == "dev"].max()
    margin = min(best_of_dev, gained["gain"].median()) - 1e-6
    settings = settings_for(prepared, tmp_path / "cut", margin=margin, **table)
    real, calls = stage.gains, list[int]()

    def stopping(rows: pd.DataFrame, *given: Any) -> list[float]:
        calls.append(len(rows))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(rows, *given)

    monkeypatch.setattr(stage, "gains", stopping)
    with pytest.raises(KeyboardInterrupt):
        stage.run(settings)
    with pytest.raises(InputError, match="--resume"):
        stage.run(settings)
    metrics = stage.run(replace(settings, resume=True))
    assert calls[:3] == [8, 8, 8] and sum(calls) == len(everything) + 8
    kept = pd.read_parquet(settings.run / "rewrites" / "rewrites.parquet")
    assert kept["system_prompt"].tolist() == gained.loc[gained["gain"] > margin, "system_prompt"].tolist()
    left_out = pd.read_parquet(settings.run / "rewrites" / "left_out.parquet")
    assert len(left_out) == metrics["counts"]["not_approved"] == len(everything) - len(kept) > 0
    assert set(left_out["reason"]) == {"the rewards do not approve"}


def test_scores_made_with_other_parts_are_not_known(prepared: Path) -> None:
    inputs = json.loads((prepared / "data" / "manifest.json").read_text())["inputs"]
    chosen = {name: inputs[name] for name in ("generator", "rewards/mini-reward", "rewards/mini-hps")}
    known = known_scores(prepared / "data", chosen, ["mini-reward", "mini-hps"])
    assert len(known) == len(pd.read_parquet(prepared / "data" / "scores.parquet")) > 20
    (owner, prompt, _), scores = next(item for item in known.items() if "," in item[0][1])
    assert prompt.startswith(f"{owner},") and scores.keys() == {"mini-reward", "mini-hps"}
    assert known_scores(prepared / "data", chosen | {"generator": "other"}, ["mini-reward"]) == {}
    assert known_scores(prepared, chosen, ["mini-reward"]) == {}


def test_a_log_becomes_a_table(tmp_path: Path) -> None:
    rows = [(f"user {n}", minute, text) for n in range(40) for minute, text in ((0, f"cat {n}"), (1, f"cat {n}, 8k"))]
    log_of(*rows, ("eve", 0, "cat 7"), ("eve", 1, "cat 7, bokeh")).to_parquet(tmp_path / "log.parquet")
    (tmp_path / "evaluation.txt").write_text("Cat 3.\ncat 5, 8k\n")
    words = ["--sessions.log", str(tmp_path / "log.parquet"), "--evaluation.similarity", "0", "--dev_share", "0.3"]
    words += ["--gain.required", "false"]
    words += ["--evaluation.files", json.dumps([str(tmp_path / "evaluation.txt")])]
    code = f"import sys\nfor name in {FORBIDDEN}:\n    sys.modules['prip.miniature.' + name] = None\n"
    code += "from prip.training.cli.command import main\nsys.exit(main(['rewrites', *sys.argv[1:]]))"
    command = [sys.executable, "-c", code, "--config", "rew-log", "--run", str(tmp_path / "run"), *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "41 sessions" in done.stderr and "39 kept" in done.stderr, done.stderr
    made = pd.read_parquet(tmp_path / "run" / "rewrites" / "rewrites.parquet")
    assert made.columns.tolist() == ["user_prompt", "system_prompt", "split"]
    assert set(made["user_prompt"]) == {f"cat {n}" for n in range(40) if n not in (3, 5)}
    assert made["split"].tolist() == split_by_series(made["user_prompt"], 0.3).tolist()
    assert made.loc[made["user_prompt"] == "cat 7", "system_prompt"].tolist() == ["cat 7, bokeh", "cat 7, 8k"]
    left_out = pd.read_parquet(tmp_path / "run" / "rewrites" / "left_out.parquet")
    assert left_out["reason"].tolist() == ["evaluation_exact"] * 2


def test_pairs_of_a_log_are_kept_where_the_rewards_rise(prepared: Path, tmp_path: Path) -> None:
    users = pd.read_parquet(prepared / "parts" / "prompts" / "user_prompts.parquet")["user_prompt"].tolist()[:12]
    sessions = [((f"user {n}", 0, user), (f"user {n}", 1, f"{user}, 8k")) for n, user in enumerate(users)]
    log_of(*(row for session in sessions for row in session)).to_parquet(tmp_path / "log.parquet")
    chosen = SessionSettings(log=tmp_path / "log.parquet")
    every = replace(settings_for(prepared, tmp_path / "every"), source="log", sessions=chosen)
    assert stage.run(every)["counts"]["not_approved"] == 0
    scored = sorted((tmp_path / "every" / "rewrites" / "gains").iterdir())
    gained = pd.concat(map(pd.read_parquet, scored), ignore_index=True)
    margin = float(gained["gain"].median())
    cut = replace(settings_for(prepared, tmp_path / "cut", margin), source="log", sessions=chosen, dev_share=0.5)
    metrics = stage.run(cut)
    kept = pd.read_parquet(tmp_path / "cut" / "rewrites" / "rewrites.parquet")
    assert kept["system_prompt"].tolist() == gained.loc[gained["gain"] > margin, "system_prompt"].tolist()
    left_out = pd.read_parquet(tmp_path / "cut" / "rewrites" / "left_out.parquet")
    assert metrics["counts"]["not_approved"] == len(left_out) == len(gained) - len(kept) > 0


def test_what_comes_first_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for preset, missing in (("rew-log", "log/metadata.parquet"), ("rew-syn", "data/system_prompts.parquet")):
        assert main(["rewrites", "--config", preset, "--run", str(tmp_path)]) == 1
        told = capsys.readouterr().err
        assert missing in told and "run prip-train world and prepare first" in told
    with pytest.raises(InputError, match="gap_minutes: expected at least 0"):
        SessionSettings(gap_minutes=-1)


@pytest.mark.parametrize("preset", ["rew-syn", "rew-log"])
def test_the_presets_give_the_peers_the_budget_of_prip(preset: str) -> None:
    own, prip = (parse_settings("rl", ["--config", name, "--run", "r"]) for name in (preset, "miniature"))
    assert own.learns == "decoder" and replace(own, learns="encoder", optimizer=prip.optimizer) == prip
    decoder, data = (parse_settings(name, ["--config", preset, "--run", "r"]) for name in ("decoder", "rewrites"))
    assert decoder.pivot == "none" and decoder.rewrites == Path("r/rewrites/rewrites.parquet")
    assert data.source == {"rew-syn": "synthetic", "rew-log": "log"}[preset]
