"""`prip evaluate` as for the paper's tables: HPSv2's styles, Stable Diffusion, published scorers, an expander.

All of it at a size for tests, with random weights; a run that is killed again and again ends with the same table.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from tiny_expanders import save_model
from tiny_pipelines import stable_diffusion
from tiny_rewards import NAMES, tiny_reward

from prip.errors import CheckpointError
from prip.inference.cli import main
from prip.inference.evaluation.kinds.registry import SCORERS, Context

STYLES = ("anime", "concept-art", "paintings", "photo")
SUBJECTS = ("a cat", "a castle by the river")
SCORED = ("image-reward", "hps-v2.1", "pick-score")


@pytest.fixture(scope="module")
def rewards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of each published reward, with random weights."""
    root = tmp_path_factory.mktemp("rewards")
    for name in NAMES:
        tiny_reward(name).save_pretrained(root / name)
    return root


def reward(place: str, **options):
    context = Context(parts=None, device="cpu", seed=0)  # type: ignore[arg-type]
    return SCORERS.make("scorer", {"kind": "reward", "place": place, **options}, context)


@pytest.mark.parametrize("name", NAMES)
def test_every_published_reward_is_a_scorer(rewards: Path, name: str) -> None:
    images = torch.randint(256, (3, 3, 48, 40), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    prompts = ["a cat", "a dog on the beach", "two red apples"]
    expected = tiny_reward(name)(prompts, images)
    for place in (str(rewards / name), f"{name}={rewards / name}"):
        scorer = reward(place)
        assert scorer.name == name and torch.equal(scorer(prompts, images), expected)
    half = reward(f"{name}={rewards / name}", dtype="bfloat16")(prompts, images)
    assert (
        half.dtype == torch.float32
        and not torch.equal(half, expected)
        and torch.allclose(half, expected, rtol=0.2, atol=2)
    )


def test_the_version_of_hpsv2_is_in_its_name(rewards: Path) -> None:
    with pytest.raises(CheckpointError, match="expected the reward 'hps-v2.1', got 'hps-v2.0'"):
        reward(f"hps-v2.1={rewards / 'hps-v2.0'}")


@pytest.fixture(scope="module")
def config(rewards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The YAML file of the evaluation, beside all that it names."""
    root = tmp_path_factory.mktemp("hpsv2")
    for style in STYLES:
        path = root / "prompts" / "benchmark" / f"{style}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([f"{subject}, {style}" for subject in SUBJECTS]))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        stable_diffusion().save_pretrained(root / "sd")
    lm = {"kind": "causal-lm", "place": str(save_model(root / "lm", "gpt2")), "template": "{prompt} Rephrase:"}
    settings = {
        "prompts": {"kind": "hpsv2", "place": str(root / "prompts")},
        "refiners": {"expander": {**lm, "do_sample": True, "max_new_tokens": 8, "first_line": False}},
        "generators": {"sd": {"kind": "diffusers", "place": str(root / "sd"), "options": {"steps": 2}}},
        "scorers": {name: {"kind": "reward", "place": f"{name}={rewards / name}"} for name in SCORED},
        "comparisons": [["none", "expander"]],
        "images_per_prompt": 2,
        "bootstrap_draws": 200,
        "chunk": 1,
    }
    settings["scorers"]["hps-v2.1"]["role"] = "trained against"
    path = root / "hpsv2.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def arguments(config: Path, checkpoint: Path, out: Path) -> list[str]:
    given = {"--config": config, "--checkpoint": checkpoint, "--out": out, "--device": "cpu"}
    return ["evaluate", "--quiet", *(str(part) for pair in given.items() for part in pair)]


def killed_when(there: Path, command: list[str]) -> None:
    """Runs a command until a file is there, and kills it then."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    until = time.monotonic() + 600
    while not there.is_file():
        assert process.poll() is None and time.monotonic() < until, process.communicate()[0].decode()
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.communicate()


@pytest.mark.slow
def test_a_run_that_is_killed_and_resumed_makes_the_same_table(
    config: Path, whole_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert main(arguments(config, whole_checkpoint, whole)) == 0
    shown = capsys.readouterr().out
    command = [sys.executable, "-m", "prip.inference.cli", *arguments(config, whole_checkpoint, broken)]
    killed_when(broken / "refined" / "expander" / "00002.parquet", command)
    assert not (broken / "results.parquet").exists()
    killed_when(broken / "parts" / "sd" / "00002.parquet", command)
    kept = {path: path.stat().st_mtime_ns for path in (broken / "parts").rglob("*.parquet")}
    images = {path: path.stat().st_mtime_ns for path in (broken / "images").rglob("*.png")}
    assert 3 <= len(kept) < 8 and len(images) >= 12 and not (broken / "results.parquet").exists()
    assert main(arguments(config, whole_checkpoint, broken)) == 0
    assert all(path.stat().st_mtime_ns == when for path, when in {**kept, **images}.items()), "nothing is done twice"

    tables = [pd.read_parquet(folder / "results.parquet") for folder in (whole, broken)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    names = [{path.name for path in (folder / "images").rglob("*.png")} for folder in (whole, broken)]
    assert names[0] == names[1] and all(len(own) == 32 for own in names)
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (whole, broken)]
    for part in ("rows", "comparisons", "lengths", "gap_closed"):
        assert summaries[0][part] == summaries[1][part]

    (table, _), (summary, _) = tables, summaries
    assert len(table) == 2 * 4 * len(SUBJECTS) * 2 and (table["error"] == "").all()
    assert {"category", "score:image-reward", "score:hps-v2.1", "score:pick-score"} <= set(table.columns)
    expanded = table[table["refiner"] == "expander"]
    assert (expanded["refined_prompt"] != expanded["user_prompt"]).all()
    assert expanded.groupby("user_prompt")["refined_prompt"].nunique().eq(2).all(), "it samples, once for each image"
    categories = {row["category"] for row in summary["rows"]}
    assert categories == {"all", *STYLES}
    assert {row["scorer"] for row in summary["rows"]} == set(SCORED)
    assert "image-reward" in shown and "anime" in (whole / "tables.md").read_text()
    assert (whole / "report.html").stat().st_size > 1000
