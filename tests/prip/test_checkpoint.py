"""Checkpoints on disk: what is written comes back, and whatever is wrong is one CheckpointError that names it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from prip.errors import CheckpointError
from prip.loading.folders import resolve_folder
from prip.modeling import PreferenceEncoder, PripModel, PromptDecoder
from prip.refiner import Refiner


@pytest.fixture
def copy(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint of one's own to break."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "refiner"))


def change_json(file: Path, **changes) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_layout(tiny_checkpoint: Path) -> None:
    assert json.loads((tiny_checkpoint / "config.json").read_text())["model_type"] == "prip"
    for part, model_type in (("encoder", "prip_preference_encoder"), ("decoder", "prip_prompt_decoder")):
        files = {path.name for path in (tiny_checkpoint / part).iterdir()}
        assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= files
        assert json.loads((tiny_checkpoint / part / "config.json").read_text())["model_type"] == model_type


def test_weights_come_back(tiny_model: PripModel, tmp_path: Path) -> None:
    tiny_model.save_pretrained(tmp_path)
    again = PripModel.from_pretrained(tmp_path)
    assert not again.training
    for name, weight in tiny_model.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name


def test_parts_load_on_their_own(tiny_checkpoint: Path, tiny_model: PripModel) -> None:
    encoder = PreferenceEncoder.from_pretrained(tiny_checkpoint / "encoder")
    assert torch.equal(encoder.queries, tiny_model.encoder.queries)
    decoder = PromptDecoder.from_pretrained(tiny_checkpoint, subfolder="decoder")
    assert torch.equal(decoder.projection.weight, tiny_model.decoder.projection.weight)


def test_sharded_checkpoints(tiny_model: PripModel, tmp_path: Path) -> None:
    tiny_model.save_pretrained(tmp_path, max_shard_size="60KB")
    shards = sorted((tmp_path / "decoder").glob("model-*.safetensors"))
    assert len(shards) > 1
    again = PripModel.from_pretrained(tmp_path)
    assert torch.equal(again.decoder.lm.lm_head.weight, tiny_model.decoder.lm.lm_head.weight)
    shards[-1].unlink()
    with pytest.raises(CheckpointError, match=f"{shards[-1]} is missing"):
        PripModel.from_pretrained(tmp_path)


def test_half_precision_runs_in_float32_on_the_cpu(tiny_model, tiny_checkpoint, copy: Path) -> None:
    half = PripModel.from_pretrained(tiny_checkpoint, dtype="float16")
    assert half.decoder.lm.lm_head.weight.dtype == torch.float16
    half.save_pretrained(copy)
    assert load_file(copy / "decoder" / "model.safetensors")["projection.weight"].dtype == torch.float16
    loaded = Refiner.from_pretrained(copy, device="cpu")
    assert {weight.dtype for weight in loaded.model.parameters()} == {torch.float32}
    assert loaded.refine("a cat").startswith("a cat, ")
    kept = PripModel.from_pretrained(copy, dtype="auto")
    assert kept.decoder.projection.weight.dtype == torch.float16


def test_device_map(tiny_checkpoint: Path, tiny_model: PripModel) -> None:
    pytest.importorskip("accelerate")
    for device_map in ("cpu", {"encoder": "cpu", "decoder": "cpu"}):
        mapped = PripModel.from_pretrained(tiny_checkpoint, device_map=device_map)
        assert torch.equal(mapped.encoder.queries, tiny_model.encoder.queries)


def test_adapter_of_lora(tiny_model: PripModel, tiny_checkpoint: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    decoder = PromptDecoder.from_pretrained(tiny_checkpoint / "decoder")
    decoder.lm = peft.get_peft_model(decoder.lm, peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    with torch.no_grad():
        for name, weight in decoder.named_parameters():
            if "lora_" in name:
                weight.normal_(0, 0.5, generator=torch.Generator().manual_seed(0))
    before = torch.random.get_rng_state()
    decoder.save_pretrained(tmp_path)
    assert torch.equal(before, torch.random.get_rng_state()), "saving must not draw random numbers"
    base = load_file(tmp_path / "model.safetensors")
    assert torch.equal(
        base["lm.model.layers.0.self_attn.q_proj.weight"], tiny_model.decoder.lm.model.layers[0].self_attn.q_proj.weight
    )
    again = PromptDecoder.from_pretrained(tmp_path)
    ids, pivot = torch.arange(3, 10)[None], torch.randn(1, 4, 16)
    with torch.no_grad():
        adapted = again(pivot, ids).logits
        assert torch.allclose(adapted, decoder.eval()(pivot, ids).logits, atol=1e-6)
        assert not torch.allclose(adapted, tiny_model.decoder(pivot, ids).logits, atol=1e-2)
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="adapter_model.safetensors is missing"):
        PromptDecoder.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "file",
    [
        "config.json",
        "encoder/config.json",
        "encoder/model.safetensors",
        "decoder/model.safetensors",
        "encoder/tokenizer.json",
        "decoder/tokenizer_config.json",
    ],
)
def test_missing_files_are_named(copy: Path, file: str) -> None:
    (copy / file).unlink()
    with pytest.raises(CheckpointError, match=f"{copy / file} is missing"):
        Refiner.from_pretrained(copy)


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_missing_parts_are_named(copy: Path, part: str) -> None:
    shutil.rmtree(copy / part)
    with pytest.raises(CheckpointError, match=f"{copy / part} is missing"):
        Refiner.from_pretrained(copy)


@pytest.mark.parametrize("length", [0, 5, 3000])
def test_truncated_weights_are_named(copy: Path, length: int) -> None:
    file = copy / "decoder" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(CheckpointError, match=f"{file} is damaged"):
        Refiner.from_pretrained(copy)


@pytest.mark.parametrize("file", ["config.json", "encoder/config.json", "decoder/config.json"])
def test_foreign_configs_are_named(copy: Path, file: str) -> None:
    change_json(copy / file, model_type="llama")
    with pytest.raises(CheckpointError, match=f"{copy / file} is foreign: expected model_type '.*', got 'llama'"):
        Refiner.from_pretrained(copy)
    (copy / file).write_text("[1, 2]")
    with pytest.raises(CheckpointError, match="expected a JSON object"):
        Refiner.from_pretrained(copy)


def test_missing_and_unexpected_keys_are_listed(copy: Path) -> None:
    file = copy / "encoder" / "model.safetensors"
    weights = load_file(file)
    weights["t5.stranger.weight"] = weights.pop("projection.bias")
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="missing projection.bias; unexpected t5.stranger.weight"):
        Refiner.from_pretrained(copy)


def test_weights_of_another_shape(copy: Path) -> None:
    file = copy / "encoder" / "model.safetensors"
    weights = load_file(file)
    weights["projection.bias"] = torch.zeros(17)
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="projection.bias|size|mismatch"):
        Refiner.from_pretrained(copy)


def test_unknown_language_model(copy: Path) -> None:
    change_json(copy / "decoder" / "config.json", lm={"model_type": "no_such_model"})
    with pytest.raises(CheckpointError, match="no_such_model"):
        Refiner.from_pretrained(copy)


def test_tokenizer_of_another_model(copy: Path) -> None:
    """A vocabulary larger than the model's would index past its embeddings."""
    file = copy / "encoder" / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary.update({f"word{i}": len(vocabulary) + i for i in range(200)})
    file.write_text(json.dumps(tokenizer))
    with pytest.raises(CheckpointError, match="encoder: expected at most 420 tokens .*, got [5-9][0-9][0-9]"):
        Refiner.from_pretrained(copy)


@pytest.mark.parametrize("name", ["no-such-thing", "./nowhere", "/nowhere/at/all", "a/b/c", "", "~/no/such/folder"])
def test_unknown_names(name: str) -> None:
    with pytest.raises(CheckpointError, match="unknown checkpoint|no folder|is missing"):
        Refiner.from_pretrained(name)


def test_a_file_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="is a file"):
        resolve_folder(tmp_path / "file")


@pytest.mark.parametrize("environment", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}])
def test_no_network_is_one_clear_line(environment: dict[str, str], tmp_path: Path) -> None:
    code = (
        "from prip.loading.folders import resolve_folder\n"
        "from prip.errors import CheckpointError\n"
        "try:\n    resolve_folder('somebody/some-refiner', 'v1')\n"
        "except CheckpointError as error:\n    print(error)\n"
    )
    clean = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**clean, "HF_HOME": str(tmp_path), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    lines = result.stdout.strip().splitlines()
    assert len(lines) == 1, result.stdout + result.stderr
    assert lines[0].startswith("checkpoint 'somebody/some-refiner' at revision 'v1'")
    assert "could not be reached" in lines[0]
