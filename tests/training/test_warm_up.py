"""The encoder and decoder stages, end to end on tiny data."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from made_data import PIVOT_LENGTH, PIVOT_WIDTH
from safetensors.torch import load_file
from transformers import AutoTokenizer, T5Config, T5Model

from prip.errors import InputError
from prip.modeling import PreferenceEncoder, PromptDecoder
from prip.processing import PripProcessor, load_tokenizer, save_tokenizer
from prip.training.data.pairs import Pairs, read_preferred_images, read_system_prompts
from prip.training.engine.callbacks import NonFiniteError
from prip.training.from_scratch import train_encoder_tokenizer
from prip.training.settings import (
    DecoderSettings,
    EncoderSettings,
    LlamaSizes,
    LoopSettings,
    LoraSettings,
    OptimizerSettings,
    T5Sizes,
)
from prip.training.warmup import decoder, encoder

LOOP = LoopSettings(steps=6, batch_size=4, log_every=1, validate_every=4, checkpoint_every=2)
T5 = T5Sizes(vocab_size=280, d_model=16, d_ff=16, layers=1, heads=2, dropout=0.1)
LLAMA = LlamaSizes(vocab_size=280, hidden_size=16, intermediate_size=16, layers=1, heads=2)


def encoder_settings(run: Path, data: Path, **options: Any) -> EncoderSettings:
    chosen = {"device": "cpu", "progress": False, "sizes": T5, "loop": LOOP, "word_dropout": 0.2} | options
    return EncoderSettings(run=run, data=data, **chosen)


def decoder_settings(run: Path, data: Path, **options: Any) -> DecoderSettings:
    chosen = {"device": "cpu", "progress": False, "sizes": LLAMA, "loop": LOOP, "word_dropout": 0.2} | options
    return DecoderSettings(run=run, data=data, **chosen)


def part(run: Path, stage: str) -> dict[str, torch.Tensor]:
    return load_file(run / stage / "part" / "model.safetensors")


STAGES = {"encoder": (encoder, encoder_settings), "decoder": (decoder, decoder_settings)}


def test_the_encoder_learns_the_preferred_pivot(tmp_path: Path, data: Path) -> None:
    sizes = replace(T5, d_model=32, d_ff=32, dropout=0.0)
    loop = replace(LOOP, steps=80, batch_size=16, validate_every=20)
    optimizer = OptimizerSettings(lr=5e-3)
    metrics = encoder.run(
        encoder_settings(tmp_path, data, sizes=sizes, loop=loop, optimizer=optimizer, word_dropout=0.0)
    )
    assert metrics["best"]["dev_r2"] > 0.8
    folder = tmp_path / "encoder" / "part"
    model, tokenizer = PreferenceEncoder.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(["a castle in a forest"], return_tensors="pt")
    pivot = model(batch["input_ids"], batch["attention_mask"])
    assert pivot.shape == (1, PIVOT_LENGTH, PIVOT_WIDTH)
    assert pivot[0, 0].argmax() == 3  # the castle is subject 3, and its best light is number 3 % 3
    assert pivot[0, 1, :3].argmax() == 0


def test_the_decoder_learns_to_read_the_pivot(tmp_path: Path, data: Path) -> None:
    sizes = replace(LLAMA, hidden_size=64, intermediate_size=128, layers=2)
    loop = replace(LOOP, steps=120, batch_size=16, validate_every=40)
    optimizer = OptimizerSettings(lr=3e-3)
    metrics = decoder.run(decoder_settings(tmp_path, data, sizes=sizes, loop=loop, optimizer=optimizer))
    assert metrics["best"]["dev_pivot_gain"] > 0.3
    assert metrics["best"]["dev_modifier_loss"] < 0.5
    model = PromptDecoder.from_pretrained(tmp_path / "decoder" / "part")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "decoder" / "part")
    ids = torch.tensor([[*tokenizer("a cat in a park, golden hour, sharp focus")["input_ids"], tokenizer.eos_token_id]])
    pivot = torch.zeros(1, PIVOT_LENGTH, PIVOT_WIDTH)
    pivot[0, 0, 0] = pivot[0, 1, 0] = pivot[0, 1, 3] = 1
    assert model(pivot, ids).logits[0, -1].argmax() == tokenizer.eos_token_id


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_stage_resumes_to_the_same_weights(tmp_path: Path, data: Path, stage: str) -> None:
    module, make_settings = STAGES[stage]
    module.run(make_settings(tmp_path / "whole", data))
    script = f"""
import os, signal, sys
sys.path[:0] = {[str(Path(__file__).parent)]}
from pathlib import Path
from test_warm_up import STAGES
module, make_settings = STAGES[{stage!r}]
kind = next(value for value in vars(module).values() if getattr(value, "stage", "") == {stage!r})
real = kind.training_step
def training_step(self, batch, step):
    if step == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, batch, step)
kind.training_step = training_step
module.run(make_settings(Path({str(tmp_path / "cut")!r}), Path({str(data)!r})))
"""
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    killed = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (tmp_path / "cut" / stage / "state" / "last.ckpt").exists()
    assert not (tmp_path / "cut" / stage / "part").exists()
    module.run(make_settings(tmp_path / "cut", data, resume=True))
    whole, cut = part(tmp_path / "whole", stage), part(tmp_path / "cut", stage)
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    logs = [(tmp_path / run / stage / "logs" / "metrics.csv").read_text() for run in ("whole", "cut")]
    assert logs[0] == logs[1]


def test_prompts_are_read_in_training_as_in_use(tmp_path: Path, data: Path) -> None:
    settings = encoder_settings(tmp_path, data, max_tokens=9, loop=replace(LOOP, steps=1))
    encoder.run(settings)
    splits = read_preferred_images(data, "preferred")
    _, tokenizer = encoder.build_encoder(None, T5, splits)
    module = encoder.EncoderModule(
        PreferenceEncoder.from_pretrained(tmp_path / "encoder" / "part"), tokenizer, splits, settings
    )
    texts = ["a cat", "a (red:1.2) cat, .", "a cat in a park at night with " + "a red car and " * 20]
    pairs = Pairs(texts, splits.train.image_names[: len(texts)])
    batch = module.collate(pairs, texts)
    assert batch["input_ids"].shape == (3, 9) and batch["attention_mask"].sum(dim=1).max() == 9
    used = load_tokenizer(tmp_path / "encoder" / "part")
    save_tokenizer(used, tmp_path / "again")  # as reinforcement learning does
    for folder in (tmp_path / "encoder" / "part", tmp_path / "again"):
        processor = PripProcessor(load_tokenizer(folder), used)
        input_ids, attention_mask = processor.encode_user_prompts(texts)
        assert torch.equal(input_ids, batch["input_ids"]) and torch.equal(attention_mask, batch["attention_mask"])


@pytest.mark.parametrize("stage", STAGES)
def test_everything_trains(tmp_path: Path, data: Path, stage: str) -> None:
    module, make_settings = STAGES[stage]
    module.run(make_settings(tmp_path / "still", data, optimizer=OptimizerSettings(lr=0.0)))
    module.run(make_settings(tmp_path / "moved", data, loop=replace(LOOP, steps=1)))
    still, moved = part(tmp_path / "still", stage), part(tmp_path / "moved", stage)
    assert [name for name in still if torch.equal(still[name], moved[name])] == []


def test_without_pivot_the_projection_stays_as_the_seed_made_it(tmp_path: Path, data: Path) -> None:
    metrics = decoder.run(decoder_settings(tmp_path / "none", data, pivot="none"))
    assert "dev_pivot_gain" not in metrics["best"]
    still = OptimizerSettings(lr=0.0)
    decoder.run(decoder_settings(tmp_path / "seed", data, optimizer=still))
    trained, made = part(tmp_path / "none", "decoder"), part(tmp_path / "seed", "decoder")
    same = {name for name in made if torch.equal(trained[name], made[name])}
    assert same == {"projection.weight", "projection.bias"}
    assert made["projection.weight"].abs().sum() > 0


def test_random_images_are_another_target(tmp_path: Path, data: Path) -> None:
    still = OptimizerSettings(lr=0.0)
    losses = [
        encoder.run(encoder_settings(tmp_path / images, data, images=images, optimizer=still))["best"]["dev_loss"]
        for images in ("preferred", "random")
    ]
    assert losses[0] != losses[1]


def test_the_encoder_starts_from_a_pretrained_t5(tmp_path: Path, data: Path) -> None:
    tokenizer = train_encoder_tokenizer(["a cat in a park"], 270)
    config = T5Config(vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    pretrained = T5Model(config)
    pretrained.save_pretrained(tmp_path / "t5")
    tokenizer.save_pretrained(tmp_path / "t5")
    still = OptimizerSettings(lr=0.0)
    encoder.run(encoder_settings(tmp_path, data, base=str(tmp_path / "t5"), optimizer=still))
    stored = part(tmp_path, "encoder")
    assert all(torch.equal(value, stored[f"t5.{name}"]) for name, value in pretrained.named_parameters())


def make_decoder_module(data: Path, max_tokens: int = 128, **options) -> decoder.DecoderModule:
    splits = read_system_prompts(data)
    model, tokenizer = decoder.build_decoder(None, LLAMA, "{pivot}", splits)
    settings = DecoderSettings(run=Path("r"), loop=LOOP, word_dropout=0.0, max_tokens=max_tokens, **options)
    return decoder.DecoderModule(model, tokenizer, splits, settings)


def test_a_prefix_that_is_not_learned_is_read_and_gives_no_loss(data: Path) -> None:
    whole, module = (make_decoder_module(data, learn_prefix=learn) for learn in (True, False))
    for row, other in zip(module._rows_of(0, 1)[0], whole._rows_of(0, 1)[0], strict=True):
        assert row.tokens == other.tokens and other.unlearned == 0 and row.learned > 0
        text = module.tokenizer.decode(row.tokens[:-1])
        prefix, comma, _ = text.partition(",")
        assert module.tokenizer.decode(row.tokens[: row.unlearned]) == prefix + comma
    assert decoder.prefix_lengths(["a cat, bokeh, 8k", "a cat"]) == [6, 6]


def test_pseudo_words_and_padding_give_no_loss(data: Path) -> None:
    module = make_decoder_module(data)
    texts = ["a qxzvw in a park, golden hour", "a cat"]
    batch = module.pad(module.encode(texts, [len("a qxzvw in a park"), 0]), module.splits.train.image_names[:2])
    learned = [ids[mask] for ids, mask in zip(batch["input_ids"], batch["learned"], strict=True)]
    assert module.tokenizer.decode(learned[0]) == ", golden hour</s>"
    assert module.tokenizer.decode(learned[1]) == "a cat</s>"
    assert torch.equal(
        batch["attention_mask"].bool() & ~batch["learned"], ~batch["learned"] & (batch["input_ids"] != 1)
    )


def test_a_text_that_is_cut_has_no_end(data: Path) -> None:
    module = make_decoder_module(data, max_tokens=3)
    batch = module.pad(module.encode(["a cat in a park"], [0]), module.splits.train.image_names[:1])
    assert batch["input_ids"].shape == (1, 3) and module.tokenizer.eos_token_id not in batch["input_ids"]


def test_the_loss_is_that_of_each_token_given_those_before_it(data: Path) -> None:
    module = make_decoder_module(data).eval()
    batch = module.pad(module.encode(module.splits.train.texts[:3], [0, 0, 0]), module.splits.train.image_names[:3])
    losses = module.token_losses(batch)
    for row, place in ((0, 0), (1, 4), (2, 7)):
        before = batch["input_ids"][row : row + 1, : place + 1]
        logits = module.decoder(batch["pivot"][row : row + 1], before).logits[0, place]
        expected = -logits.log_softmax(-1)[batch["input_ids"][row, place]]
        assert losses[row, place].item() == pytest.approx(expected.item(), abs=1e-5)


def test_nan_in_a_stage_stops_it(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = encoder.EncoderModule.batch_at

    def poisoned(self: encoder.EncoderModule, step: int) -> dict[str, torch.Tensor]:
        batch = real(self, step)
        return batch | {"target": batch["target"] * torch.nan} if step == 2 else batch

    monkeypatch.setattr(encoder.EncoderModule, "batch_at", poisoned)
    with pytest.raises(NonFiniteError, match="encoder: the loss of step 2 is nan"):
        encoder.run(encoder_settings(tmp_path, data))
    saved = torch.load(tmp_path / "encoder" / "state" / "bad_batch_2.pt", weights_only=True)
    assert saved["batch"]["target"].isnan().all() and saved["batch"]["input_ids"].shape[0] == LOOP.batch_size


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LoopSettings(steps=0), "steps: expected at least 1, got 0"),
        (lambda: OptimizerSettings(lr=-1.0), "lr: expected at least 0"),
        (lambda: OptimizerSettings(lr=float("nan")), "lr: expected at least 0, got nan"),
        (lambda: T5Sizes(d_model=10, heads=4), r"d_model: expected a multiple of heads \(4\), got 10"),
        (lambda: LlamaSizes(vocab_size=100), "vocab_size: expected at least 260"),
        (lambda: LoraSettings(alpha=0.0), "alpha: expected a number above 0"),
        (lambda: EncoderSettings(run=Path("r"), word_dropout=1.5), "word_dropout: expected a number between 0 and 1"),
        (lambda: EncoderSettings(run=Path("r"), seed=-1), "seed: expected at least 0"),
        (lambda: DecoderSettings(run=Path("r"), template="none"), "template: expected {pivot} in it once"),
        (lambda: DecoderSettings(run=Path("r"), resume=True, overwrite=True), "resume, overwrite: expected one"),
    ],
)
def test_settings_that_cannot_be_are_refused(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
