"""Loading reads each file once, gives what transformers would, and disturbs no other thread."""

from __future__ import annotations

import builtins
import io
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import safetensors
import torch
from tiny_parts import llama_config
from tokenizers import Tokenizer
from transformers import AutoConfig, PreTrainedModel

from prip.loading.folders import PartFolder, RefinerFolder
from prip.modeling import PreferenceEncoder, PromptDecoder, PromptDecoderConfig
from prip.modeling.strict_model import nested_config
from prip.refiner import Refiner


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts how often each file is opened, by Python or by the two libraries that open files themselves."""
    counts: Counter[str] = Counter()

    def count(owner: object, name: str) -> None:
        original = getattr(owner, name)

        def counted(file, *arguments, **options):
            counts[str(file)] += 1
            return original(file, *arguments, **options)

        monkeypatch.setattr(owner, name, counted)

    for owner in (builtins, io):
        count(owner, "open")
    count(safetensors, "safe_open")
    count(sys.modules["transformers.modeling_utils"], "safe_open")
    count(Tokenizer, "from_file")
    return counts


@pytest.mark.parametrize("whole", [False, True])
def test_each_file_is_opened_once(tiny_checkpoint: Path, tmp_path: Path, opened: Counter[str], whole: bool) -> None:
    folder = tiny_checkpoint
    if whole:
        (tmp_path / "refiner").symlink_to(tiny_checkpoint)
        folder = tmp_path
    Refiner.from_pretrained(folder, device="cpu")
    names = {str(Path(file).relative_to(folder)): count for file, count in opened.items() if str(folder) in file}
    parts = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    expected = ["config.json", *(f"{part}/{file}" for part in ("encoder", "decoder") for file in parts)]
    assert names == {f"refiner/{name}" if whole else name: 1 for name in expected}


def test_a_folder_that_was_read_is_not_read_again(tiny_checkpoint: Path, opened: Counter[str]) -> None:
    folder = RefinerFolder.open(tiny_checkpoint)
    assert RefinerFolder.open(folder) is folder and set(folder.parts) == {"encoder", "decoder"}
    Refiner.from_pretrained(folder, device="cpu")
    assert {count for file, count in opened.items() if str(tiny_checkpoint) in file} == {1}


def by_transformers(cls: type[PreTrainedModel], folder: Path, **options) -> PreTrainedModel:
    return PreTrainedModel.from_pretrained.__func__(cls, str(folder), **options)


def assert_same(model: torch.nn.Module, other: torch.nn.Module) -> None:
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    others = dict(other.named_parameters()) | dict(other.named_buffers())
    assert tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        assert tensor.dtype == others[name].dtype and torch.equal(tensor, others[name]), name
    assert model.training == other.training


LANGUAGE_MODELS = {
    "llama": {},
    "llama, tied": {"tie_word_embeddings": True},
    "llama, rope of llama 3": {
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 1e4,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        }
    },
    "gpt2": {"n_embd": 32, "n_layer": 1, "n_head": 2},
    "gpt_neox": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32},
    "opt": {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "ffn_dim": 32,
        "word_embed_proj_dim": 32,
    },
    "gemma2": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "intermediate_size": 32,
    },
    "mixtral": {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 32,
        "num_local_experts": 2,
    },
}


@pytest.mark.parametrize("dtype", ["float32", "float16", "auto"])
@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_decoders_are_those_that_transformers_loads(name: str, dtype: str, tmp_path: Path) -> None:
    model_type = name.split(",")[0]
    if model_type == "llama":
        config = llama_config(**LANGUAGE_MODELS[name])
    else:
        config = AutoConfig.for_model(model_type, vocab_size=100, **LANGUAGE_MODELS[name])
    decoder = PromptDecoder(PromptDecoderConfig(lm=nested_config(config), pivot_length=2, pivot_width=8))
    decoder.to(torch.bfloat16 if dtype == "auto" else torch.float32).save_pretrained(tmp_path)
    loaded = PromptDecoder.from_pretrained(tmp_path, dtype=dtype)
    assert_same(loaded, by_transformers(PromptDecoder, tmp_path, dtype=dtype))
    tied = {name for name, _ in loaded.named_parameters(remove_duplicate=False)}
    assert len(tied) - len(dict(loaded.named_parameters())) == config.tie_word_embeddings


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_encoders_are_those_that_transformers_loads(dtype: str, tiny_checkpoint: Path) -> None:
    folder = PartFolder.open(tiny_checkpoint / "encoder", "prip_preference_encoder")
    loaded = PreferenceEncoder.from_pretrained(folder, dtype=dtype)
    assert_same(loaded, by_transformers(PreferenceEncoder, folder.path, dtype=getattr(torch, dtype)))
    assert loaded.t5.encoder.embed_tokens.weight is loaded.t5.shared.weight is loaded.t5.decoder.embed_tokens.weight


THREADS = """
import sys, threading, warnings
from prip import refine
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel
import torch, transformers

folder = sys.argv[1]
small = GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2)
GPT2LMHeadModel(small).save_pretrained(folder)
kept = (PreTrainedModel.tie_weights, PreTrainedModel.init_weights, torch.linspace, torch.nn.init.normal_)
kept_settings = (torch.get_default_dtype(), transformers.logging.get_verbosity(), list(warnings.filters))
begin, over, texts, errors = threading.Barrier(9), threading.Event(), [], []

def refining():
    begin.wait()
    try:
        texts.append(refine("a cat"))
    except BaseException as error:
        errors.append(repr(error))

def loading():
    begin.wait()
    while not over.is_set():
        model = GPT2LMHeadModel.from_pretrained(folder)
        if model.lm_head.weight is not model.transformer.wte.weight:
            errors.append("another model is untied")

threads = [threading.Thread(target=refining) for _ in range(8)]
other = threading.Thread(target=loading)
for thread in (*threads, other):
    thread.start()
for thread in threads:
    thread.join()
over.set()
other.join()
assert not errors, errors
assert len(texts) == 8 and len(set(texts)) == 1, texts
assert kept == (PreTrainedModel.tie_weights, PreTrainedModel.init_weights, torch.linspace, torch.nn.init.normal_)
assert kept_settings == (torch.get_default_dtype(), transformers.logging.get_verbosity(), list(warnings.filters))
"""


@pytest.mark.slow
@pytest.mark.parametrize("run", range(20))
def test_threads_that_load_at_once_are_right_every_time(run: int, tmp_path: Path) -> None:
    test_threads_that_load_at_once_beside_another_model(tmp_path)


def test_threads_that_load_at_once_beside_another_model(tmp_path: Path) -> None:
    process = subprocess.run([sys.executable, "-c", THREADS, str(tmp_path)], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
