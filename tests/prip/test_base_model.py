"""Somebody else's pretrained models on the Hub, around which E and D are built."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hub_server import Fault, LocalHub
from tiny_parts import llama_config, t5_config
from transformers import LlamaForCausalLM, T5ForConditionalGeneration

from prip.errors import CheckpointError
from prip.modeling import PreferenceEncoder, PromptDecoder
from prip.modeling.pretrained import base_folder, load_base_tokenizer


def test_a_base_encoder_is_that_of_its_revision(hub: LocalHub, tmp_path: Path) -> None:
    commits, weights = [], []
    for seed in (0, 1):
        torch.manual_seed(seed)
        t5 = T5ForConditionalGeneration(t5_config())
        t5.save_pretrained(tmp_path / "t5")
        commits.append(hub.add("org/t5", tmp_path / "t5"))
        weights.append(t5.shared.weight)
    hub.repositories["org/t5"].refs["v1"] = commits[0]
    for name, wanted in ((f"org/t5@{commits[0]}", 0), ("org/t5@v1", 0), ("org/t5", 1)):
        assert torch.equal(PreferenceEncoder.from_t5(name, 4, 16).t5.shared.weight, weights[wanted]), name


def test_a_base_decoder_is_found_again_at_its_commit(hub: LocalHub, tmp_path: Path, tiny_processor) -> None:
    peft = pytest.importorskip("peft")
    lm = LlamaForCausalLM(llama_config())
    lm.save_pretrained(tmp_path / "lm")
    tiny_processor.decoder_tokenizer.save_pretrained(tmp_path / "lm")
    first = hub.add("org/lm", tmp_path / "lm")
    decoder = PromptDecoder.from_lm("org/lm", load_base_tokenizer("org/lm"), 4, 16)
    assert decoder.base == {"name": "org/lm", "revision": first}
    decoder.lm = peft.get_peft_model(decoder.lm, peft.LoraConfig(r=2, target_modules=["q_proj"]))
    decoder.save_pretrained(tmp_path / "part")
    LlamaForCausalLM(llama_config()).save_pretrained(tmp_path / "lm")
    hub.add("org/lm", tmp_path / "lm")
    again = PromptDecoder.from_pretrained(tmp_path / "part")
    assert torch.equal(again.lm.get_input_embeddings().weight, lm.get_input_embeddings().weight)


def test_of_a_base_no_code_and_no_other_form_of_the_weights_is_fetched(hub: LocalHub, tmp_path: Path) -> None:
    T5ForConditionalGeneration(t5_config()).save_pretrained(tmp_path / "t5")
    for name in ("pytorch_model.bin", "modeling_t5.py", "model.fp16.safetensors", "tf_model.h5", "onnx/config.json"):
        (tmp_path / "t5" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "t5" / name).write_bytes(b"{}")
    (tmp_path / "t5" / "spiece.model").write_bytes(b"tokens")
    hub.add("org/t5", tmp_path / "t5")
    fetched = {path.name for path in base_folder("org/t5").rglob("*")}
    assert fetched == {"config.json", "generation_config.json", "model.safetensors", "spiece.model"}


def test_a_base_that_arrives_broken_is_refused(hub: LocalHub, tmp_path: Path) -> None:
    T5ForConditionalGeneration(t5_config()).save_pretrained(tmp_path / "t5")
    hub.add("org/t5", tmp_path / "t5")
    hub.faults.append(Fault("/storage/", corrupt=True))
    with pytest.raises(CheckpointError, match="model.safetensors does not match the Hub's description"):
        PreferenceEncoder.from_t5("org/t5", 4, 16)
    hub.faults.clear()
    assert json.loads((base_folder("org/t5") / "config.json").read_text())["model_type"] == "t5"
