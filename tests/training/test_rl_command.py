"""The command prip-train rl, on real small parts: a diffusion pipeline, two rewards, random encoder and decoder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from hub_server import WRITER, serving, stand_in
from made_parts import system_prompts, user_prompts, write_parts
from transformers import LlamaConfig, T5Config

from prip.modeling import PreferenceEncoder, PromptDecoder
from prip.processing import save_tokenizer
from prip.refiner import Refiner
from prip.training.cli.command import main, parse_settings
from prip.training.from_scratch import train_decoder_tokenizer, train_encoder_tokenizer
from prip.training.rl.parts import load_parts

FORBIDDEN = ["renderer", "preference", "reader", "judges"]
COMMAND = f"""
import sys
for name in {FORBIDDEN}:
    sys.modules["prip.miniature." + name] = None
from prip.training.cli.command import main
sys.exit(main(["rl", *sys.argv[1:]]))
"""


def write_models(run: Path) -> None:
    """Writes RUN/encoder/part and RUN/decoder/part with random weights."""
    encoder_tokenizer = train_encoder_tokenizer(user_prompts()["user_prompt"], 280)
    decoder_tokenizer = train_decoder_tokenizer(system_prompts()["system_prompt"], 300)
    t5 = T5Config(vocab_size=len(encoder_tokenizer), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    llama = LlamaConfig(
        vocab_size=len(decoder_tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        eos_token_id=decoder_tokenizer.eos_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = PreferenceEncoder.from_t5(t5, pivot_length=2, pivot_width=16)
        decoder = PromptDecoder.from_lm(llama, decoder_tokenizer, pivot_length=2, pivot_width=16)
    for name, model, tokenizer in (
        ("encoder", encoder, encoder_tokenizer),
        ("decoder", decoder, decoder_tokenizer),
    ):
        model.save_pretrained(run / name / "part")
        save_tokenizer(tokenizer, run / name / "part")


def test_the_command_trains_without_the_modules_that_only_world_may_import(tmp_path: Path, monkeypatch) -> None:
    write_parts(tmp_path)
    write_models(tmp_path)
    words = [sys.executable, "-c", COMMAND, "--config", "smoke", "--run", str(tmp_path), "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert "rl: best dev_reward" in done.stderr
    folder = tmp_path / "rl"
    assert Refiner.from_pretrained(folder / "refiner", device="cpu").refine("a cat").startswith("a cat, ")
    assert len(pd.read_parquet(folder / "rollouts")) == 3 * 4 * 2
    statistics = json.loads((folder / "reward_statistics.json").read_text())
    assert statistics["means"].keys() == {"mini-reward", "mini-hps"} and statistics["means"]["mini-hps"] > 20
    record = json.loads((folder / "refiner" / "training.json").read_text())
    assert record["data"].keys() == {"RUN/parts/prompts/user_prompts.parquet"}
    again = ["rl", "--config", "smoke", "--run", str(tmp_path), "--device", "cpu"]
    with serving() as hub:
        stand_in(hub, tmp_path, monkeypatch)
        monkeypatch.setenv("HF_TOKEN", WRITER)
        pushed = [*again, "--resume", "--push-to-hub", "someone/own", "--private"]
        assert main(pushed) == 0, "a finished stage is passed over"
        published = Refiner.from_pretrained("someone/own", device="cpu")
        repository = hub.repositories["someone/own"]
    card = repository.commits[repository.refs["main"]]["README.md"].decode()
    assert repository.private and 'Refiner.from_pretrained("someone/own")' in card
    assert published.record == record and "push_to_hub" not in str(record)
    assert published.refine("a cat") == Refiner.from_pretrained(folder / "refiner", device="cpu").refine("a cat")
    assert f"dev_reward {record['stages']['rl']['metrics']['best']['dev_reward']:.4g}" in card
    assert main(again) == 2


def test_resume_wants_the_parts_that_the_run_began_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_parts(tmp_path)
    write_models(tmp_path)
    words = ["rl", "--config", "smoke", "--run", str(tmp_path), "--device", "cpu", "--no_progress"]
    assert main(words) == 0
    (tmp_path / "rl" / "metrics.json").unlink()
    decoder = PromptDecoder.from_pretrained(tmp_path / "decoder" / "part")
    next(decoder.parameters()).data.add_(1)
    decoder.save_pretrained(tmp_path / "decoder" / "part")
    assert main([*words, "--resume"]) == 2
    assert "began, but changed: decoder" in capsys.readouterr().err


def test_what_comes_first_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_models(tmp_path)
    assert main(["rl", "--config", "smoke", "--run", str(tmp_path)]) == 1
    assert "user_prompts.parquet is missing: run `prip-train world` first" in capsys.readouterr().err
    assert not (tmp_path / "rl").exists()


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ((), (torch.float32, torch.float32)),
        (("--parts.dtype", "bfloat16"), (torch.bfloat16, torch.bfloat16)),
        (("--parts.dtype", "bfloat16", "--parts.reward_dtype", "float16"), (torch.bfloat16, torch.float16)),
    ],
)
def test_rewards_may_have_a_number_format_of_their_own(
    tmp_path: Path, options: tuple[str, ...], wanted: tuple[torch.dtype, torch.dtype]
) -> None:
    write_parts(tmp_path)
    write_models(tmp_path)
    settings = parse_settings("rl", ["--config", "smoke", "--run", str(tmp_path), "--device", "cpu", *options])
    parts = load_parts(settings)
    assert {reward.dtype for reward in parts.rewards} == {wanted[1]}
    assert (parts.model.decoder.dtype, parts.generator.pipeline.unet.dtype) == (wanted[0], wanted[0])


def test_prompts_that_cannot_be_refined_are_left_out(tmp_path: Path) -> None:
    write_parts(tmp_path)
    write_models(tmp_path)
    prompts = user_prompts()
    odd = pd.DataFrame(
        [{"user_prompt": text, "subject": "dog", "split": "train"} for text in ("a dog\x07running", "...")]
    )
    pd.concat([prompts, odd]).to_parquet(tmp_path / "parts" / "prompts" / "user_prompts.parquet")
    parts = load_parts(parse_settings("rl", ["--config", "smoke", "--run", str(tmp_path), "--device", "cpu"]))
    assert list(parts.train_prompts) == prompts.loc[prompts["split"] == "train", "user_prompt"].tolist()
