"""LoRA on a pretrained language model: what trains, what is saved, and that it loads as what it was."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from made_data import PIVOT_LENGTH, PIVOT_WIDTH
from safetensors.torch import load_file
from stage_jobs import train_stage
from transformers import LlamaConfig, LlamaForCausalLM

from prip.errors import CheckpointError, InputError, MissingExtraError
from prip.modeling import PromptDecoder
from prip.training.data.pairs import read_system_prompts
from prip.training.from_scratch import train_decoder_tokenizer
from prip.training.settings import LoraSettings
from prip.training.warmup import decoder

IDS, PIVOT = torch.tensor([[5, 6, 7]]), torch.ones(1, PIVOT_LENGTH, PIVOT_WIDTH)


def write_language_model(folder: Path, data: Path, **changes: Any) -> Path:
    """Writes a pretrained causal language model with its tokenizer."""
    tokenizer = train_decoder_tokenizer(read_system_prompts(data).train.texts, 280)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2} | changes
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    return write_language_model(tmp_path_factory.mktemp("lm"), data)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data: Path, base: Path) -> tuple[Path, decoder.DecoderModule]:
    """A part that names its base, and the module that was trained, at its best step."""
    modules: list[decoder.DecoderModule] = []
    run, real = tmp_path_factory.mktemp("run"), decoder.train

    def train(module: decoder.DecoderModule, *arguments: Any, **options: Any) -> Any:
        modules.append(module)
        return real(module, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder, "train", train)
        metrics = train_stage(
            "decoder", run, data, base=str(base), lora=LoraSettings(rank=2, modules=("q_proj", "up_proj"))
        )
    assert metrics["best_step"] == metrics["steps"] and metrics["trained_parameters"] < metrics["parameters"] / 4
    return run / "decoder" / "part", modules[0]


def test_the_base_stays_and_the_adapters_and_the_projection_move(
    trained: tuple[Path, decoder.DecoderModule], base: Path
) -> None:
    part, module = trained
    pretrained = load_file(base / "model.safetensors")
    state = {name.replace(".base_layer.", "."): value for name, value in module.decoder.lm.state_dict().items()}
    for name, value in pretrained.items():
        assert torch.equal(state[f"base_model.model.{name}"], value), name
    adapters = {name: value for name, value in module.decoder.named_parameters() if "lora_" in name}
    assert {name.split(".")[-4] for name in adapters} == {"q_proj", "up_proj"}
    assert all(value.abs().sum() > 0 for name, value in adapters.items() if "lora_B" in name)
    assert module.decoder.projection.bias.abs().sum() > 0  # it starts at zero


def test_the_part_holds_what_the_base_does_not(trained: tuple[Path, decoder.DecoderModule], base: Path) -> None:
    part, module = trained
    assert set(load_file(part / "model.safetensors")) == {"projection.weight", "projection.bias"}
    assert all("lora_" in name for name in load_file(part / "adapter" / "adapter_model.safetensors"))
    assert json.loads((part / "config.json").read_text())["base"] == {"name": str(base), "revision": None}
    loaded = PromptDecoder.from_pretrained(part)
    assert not loaded.training
    assert torch.equal(loaded(PIVOT, IDS).logits, module.decoder.eval()(PIVOT, IDS).logits)


def test_a_loaded_part_is_saved_as_it_was(trained: tuple[Path, decoder.DecoderModule], tmp_path: Path) -> None:
    part, _ = trained
    PromptDecoder.from_pretrained(part).save_pretrained(tmp_path)
    assert (tmp_path / "config.json").read_text() == (part / "config.json").read_text()
    for file in ("model.safetensors", "adapter/adapter_model.safetensors"):
        before, after = load_file(part / file), load_file(tmp_path / file)
        assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_merged_it_needs_neither_base_nor_peft(
    tmp_path: Path, data: Path, base: Path, trained: tuple[Path, decoder.DecoderModule], monkeypatch: Any
) -> None:
    lora = LoraSettings(rank=2, modules=("q_proj", "up_proj"), save="merged")
    lost = shutil.copytree(base, tmp_path / "lm")
    train_stage("decoder", tmp_path, data, base=str(lost), lora=lora)
    shutil.rmtree(lost)
    part = tmp_path / "decoder" / "part"
    assert not (part / "adapter").exists() and json.loads((part / "config.json").read_text())["base"] is None
    expected = PromptDecoder.from_pretrained(trained[0])(PIVOT, IDS).logits
    monkeypatch.setitem(sys.modules, "peft", None)
    merged = PromptDecoder.from_pretrained(part)
    assert torch.allclose(merged(PIVOT, IDS).logits, expected, rtol=0, atol=1e-6)
    assert not torch.allclose(merged.lm.model.layers[0].self_attn.q_proj.weight, _query(base), rtol=0, atol=1e-4)


def _query(base: Path) -> torch.Tensor:
    return load_file(base / "model.safetensors")["model.layers.0.self_attn.q_proj.weight"]


def test_without_peft_an_adapter_names_the_extra(trained: tuple[Path, decoder.DecoderModule], monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match=r"\.\[train\]"):
        PromptDecoder.from_pretrained(trained[0])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("gone", "neither embedded .* nor a folder nor an owner/name on the Hub"),
        ("other", "has changed: hidden_size was 16, is now 32"),
        ("keys", "expected weights of the projection alone"),
        ("adapter", "adapter_model.safetensors is missing"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, data: Path, trained: tuple[Path, decoder.DecoderModule], damage: str, message: str
) -> None:
    part = shutil.copytree(trained[0], tmp_path / "part")
    config = json.loads((part / "config.json").read_text())
    if damage in ("gone", "other"):
        config["base"]["name"] = str(tmp_path / "lm")
        (part / "config.json").write_text(json.dumps(config))
    if damage == "other":
        write_language_model(tmp_path / "lm", data, hidden_size=32)
    if damage == "keys":
        shutil.copy(part / "adapter" / "adapter_model.safetensors", part / "model.safetensors")
    if damage == "adapter":
        (part / "adapter" / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=message):
        PromptDecoder.from_pretrained(part)


def test_a_base_in_16_bits_is_trained_in_32(tmp_path: Path, data: Path, base: Path) -> None:
    lora = LoraSettings(rank=2, dropout=0.1)
    loop = {"steps": 2, "precision": "bf16-mixed"}
    train_stage("decoder", tmp_path, data, base=str(base), base_dtype="bfloat16", lora=lora, loop=loop)
    part = tmp_path / "decoder" / "part"
    stored = {**load_file(part / "model.safetensors"), **load_file(part / "adapter" / "adapter_model.safetensors")}
    assert {value.dtype for value in stored.values()} == {torch.float32}
    model = PromptDecoder.from_pretrained(part, dtype="bfloat16")
    assert model(PIVOT, IDS).logits.dtype == model.lm.dtype == torch.bfloat16


def test_a_tokenizer_alone_is_no_base(tmp_path: Path, data: Path, base: Path) -> None:
    shutil.copy(base / "config.json", tmp_path / "config.json")
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")
    for file in base.glob("*token*"):
        shutil.copy(file, tmp_path / file.name)
    with pytest.raises((CheckpointError, InputError), match=r"is missing .*_model\.bin is a pickle"):
        train_stage("decoder", tmp_path / "run", data, base=str(tmp_path))
