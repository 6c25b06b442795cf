"""Checkpoints made to harm: each is refused with a CheckpointError before anything of it is run or allocated."""

from __future__ import annotations

import json
import pickle
import resource
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_parts import llama_config, t5_config
from transformers import LlamaForCausalLM, T5ForConditionalGeneration

from prip.errors import CheckpointError
from prip.modeling import PreferenceEncoder, PromptDecoder
from prip.refiner import Refiner

HUGE = 10**12


@pytest.fixture
def copy(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint of one's own to poison."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "refiner"))


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    """Lets a test take 2 GiB more than it has: what believes a hostile size fails by MemoryError, not by swapping."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    before = resource.getrlimit(resource.RLIMIT_AS)
    if pages:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (2 << 30), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def change_json(file: Path, **changes) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def change_lm(folder: Path, **changes) -> None:
    file = folder / "decoder" / "config.json"
    change_json(file, lm={**json.loads(file.read_text())["lm"], **changes})


def refused(folder: Path, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        Refiner.from_pretrained(folder, device="cpu")


class Bomb:
    """Marks that it has been unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.bin", "model.pt"])
def test_a_pickle_in_place_of_the_weights(copy: Path, tmp_path: Path, name: str) -> None:
    (copy / "encoder" / "model.safetensors").unlink()
    torch.save({"bomb": Bomb(tmp_path / "went-off")}, copy / "encoder" / name)
    refused(copy, f"{name} is a pickle: none is ever loaded")
    assert not (tmp_path / "went-off").exists()


def test_a_pickle_beside_the_weights_is_not_opened(copy: Path, tmp_path: Path) -> None:
    for place in (copy, copy / "encoder", copy / "decoder"):
        torch.save({"bomb": Bomb(tmp_path / "went-off")}, place / "pytorch_model.bin")
    assert Refiner.from_pretrained(copy, device="cpu").refine("a cat").startswith("a cat, ")
    assert not (tmp_path / "went-off").exists()


@pytest.mark.parametrize("protocol", [None, 2, 4])
def test_a_pickle_named_safetensors(copy: Path, tmp_path: Path, protocol: int | None) -> None:
    file = copy / "decoder" / "model.safetensors"
    bomb = {"bomb": Bomb(tmp_path / "went-off")}
    if protocol is None:
        torch.save(bomb, file)
    else:
        file.write_bytes(pickle.dumps(bomb, protocol))
    refused(copy, "decoder/model.safetensors is a pickle under another name: none is ever loaded")
    assert not (tmp_path / "went-off").exists()


@pytest.mark.parametrize("file", ["encoder/config.json", "decoder/config.json", "encoder/tokenizer_config.json"])
@pytest.mark.parametrize(
    "changes",
    [
        {"auto_map": {"AutoModel": "evil.Model", "AutoTokenizer": "evil.Tokenizer"}},
        {"auto_map": {"AutoModel": "someone/evil--evil.Model"}},
        {"trust_remote_code": True},
        {"transformers_weights": "../../../secret.safetensors"},
    ],
)
def test_code_and_files_of_its_own(copy: Path, file: str, changes: dict) -> None:
    (copy / "encoder" / "evil.py").write_text("raise SystemExit('ran')")
    change_json(copy / file, **changes)
    refused(copy, rf"{file} is refused: it names code or files of its own \({next(iter(changes))}\)")


def test_code_of_the_language_model(copy: Path) -> None:
    change_lm(copy, auto_map={"AutoModelForCausalLM": "evil.Model"})
    refused(copy, "decoder/config.json is refused: it names code")


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_kernels_of_the_hub(copy: Path, key: str) -> None:
    change_lm(copy, **{key: "someone/evil-kernel"})
    refused(copy, "'someone/evil-kernel', which would be fetched and run")


def test_an_adapter_that_would_load_another_model(copy: Path) -> None:
    change = {"peft_type": "LORA", "base_model_name_or_path": "someone/else"}
    (copy / "encoder" / "adapter_config.json").write_text(json.dumps(change))
    refused(copy, "encoder/adapter_config.json is foreign")


@pytest.mark.parametrize("name", ["../../secret.safetensors", "/etc/passwd", "../secret.safetensors", "model.bin", 7])
def test_an_index_that_leads_elsewhere(copy: Path, tmp_path: Path, name: object) -> None:
    weights = copy / "encoder" / "model.safetensors"
    for secret in (tmp_path / "secret.safetensors", copy / "secret.safetensors", copy / "encoder" / "model.bin"):
        shutil.copy(weights, secret)
    keys = list(load_file(weights))
    weights.unlink()
    index = copy / "encoder" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(keys, name)}))
    refused(copy, f"index.json is refused: '{name}' is not a safetensors file beside it")


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json"])
def test_links_that_lead_out_of_the_folder(copy: Path, tmp_path: Path, file: str) -> None:
    secret = tmp_path / "secret"
    shutil.move(copy / "encoder" / file, secret)
    (copy / "encoder" / file).symlink_to(secret)
    refused(copy, f"{file} is refused: it is a link that leads out of its folder, to {secret}")


def write_header(file: Path, header: object, length: int | None = None, data: bytes = b"") -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)


def tensor(shape: list, end: int, begin: int = 0) -> dict:
    return {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}


HEADERS = {
    "claims 10^12 elements": ({"queries": tensor([HUGE], 4 * HUGE)}, None, b"\0" * 64),
    "shape larger than its bytes": ({"queries": tensor([HUGE], 64)}, None, b"\0" * 64),
    "beyond the end": ({"queries": tensor([16], 64)}, None, b"\0" * 32),
    "overlapping": ({"a": tensor([16], 64), "b": tensor([16], 96, 32)}, None, b"\0" * 96),
    "a product that overflows": ({"queries": tensor([2**62, 8], 64)}, None, b"\0" * 64),
    "negative": ({"queries": tensor([-16], 64)}, None, b"\0" * 64),
    "a header of 10^12 bytes": ({"queries": tensor([16], 64)}, HUGE, b"\0" * 64),
    "nested deeply": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, None, b""),
    "no JSON": (b"\xff\xfe\x00", None, b""),
}


@pytest.mark.parametrize("case", HEADERS)
def test_absurd_headers(copy: Path, case: str) -> None:
    write_header(copy / "encoder" / "model.safetensors", *HEADERS[case])
    refused(copy, "encoder/model.safetensors is damaged")


SIZES = {
    "vocab_size": "lm.model.embed_tokens.weight would be|elements",
    "hidden_size": "would be|elements|cannot be loaded",
    "intermediate_size": "would be|elements",
    "num_hidden_layers": "num_hidden_layers is 1,000,000,000,000, the weights are .* tensors",
    "num_attention_heads": "num_attention_heads is 1,000,000,000,000",
    "head_dim": "would be|elements|cannot be loaded",
}


@pytest.mark.parametrize("key", SIZES)
def test_absurd_sizes_of_the_language_model(copy: Path, key: str) -> None:
    change_lm(copy, **{key: HUGE})
    refused(copy, SIZES[key])


@pytest.mark.parametrize("value", [-32, 0, "32", None, 1.5, [32], {"a": 1}])
def test_sizes_that_are_none(copy: Path, value: object) -> None:
    change_lm(copy, hidden_size=value)
    refused(copy, "decoder")


@pytest.mark.parametrize("changes", [{"pivot_length": HUGE}, {"pivot_width": HUGE}, {"pivot_length": -4}])
def test_absurd_pivots(copy: Path, changes: dict) -> None:
    change_json(copy / "encoder" / "config.json", **changes)
    refused(copy, "would be|cannot be loaded")


def test_many_layers_of_little_weight(copy: Path) -> None:
    """As many as the loop is let run: the shapes that follow are still compared."""
    file = copy / "decoder" / "model.safetensors"
    weights = load_file(file)
    save_file({**weights, "lm.model.norm.weight": torch.zeros(3)}, file, metadata={"format": "pt"})
    change_lm(copy, num_hidden_layers=40)
    refused(copy, r"lm.model.norm.weight would be \(32,\), \(3,\) is stored")


@pytest.mark.parametrize("name", ["config.json", "encoder/config.json", "encoder/tokenizer_config.json"])
def test_json_that_is_none(copy: Path, name: str) -> None:
    for text, message in (
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested too deeply"),
        (b"\xff\xfe{}", "cannot be read as JSON"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "cannot be read as JSON"),
        (b"[]", "expected a JSON object, got a list"),
        (b"", "cannot be read as JSON"),
    ):
        (copy / name).write_bytes(text)
        refused(copy, f"{copy / name}.* {message}")
    (copy / name).unlink()
    (copy / name).mkdir()
    refused(copy, f"{copy / name} cannot be read as JSON")


def test_a_json_file_too_large_to_read(copy: Path) -> None:
    with (copy / "config.json").open("ab") as stream:
        stream.truncate(1 << 40)  # sparse: it takes no disk
    refused(copy, "config.json is too large to be read as JSON: 1,099,511,627,776 bytes")


@pytest.mark.parametrize(
    "text",
    ["[]", "7", "{}", '{"model": 7}', '{"model": {"type": "BPE", "vocab": [], "merges": {}}}', "\udcff", "[" * 100_000],
)
def test_tokenizers_of_the_wrong_type(copy: Path, text: str) -> None:
    (copy / "encoder" / "tokenizer.json").write_bytes(text.encode(errors="surrogateescape"))
    refused(copy, "encoder/tokenizer.json cannot be read as a tokenizer")


@pytest.mark.parametrize("token", [7, {"no": "content"}, {"content": 7}, ["<pad>"], True])
def test_special_tokens_of_the_wrong_type(copy: Path, token: object) -> None:
    change_json(copy / "encoder" / "tokenizer_config.json", pad_token=token)
    refused(copy, "tokenizer_config.json: pad_token: expected a token, got")


@pytest.fixture
def adapted(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A decoder with a LoRA adapter, to poison."""
    peft = pytest.importorskip("peft")
    decoder = PromptDecoder.from_pretrained(tiny_checkpoint / "decoder")
    decoder.lm = peft.get_peft_model(decoder.lm, peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    decoder.save_pretrained(tmp_path / "adapted")
    return tmp_path / "adapted"


@pytest.mark.parametrize(
    "changes",
    [{"r": HUGE}, {"r": -1}, {"peft_type": "PROMPT_TUNING"}, {"megatron_config": {"a": 1}}, {"auto_map": {"a": "b"}}],
)
def test_adapters_that_are_no_plain_lora(adapted: Path, changes: dict) -> None:
    change_json(adapted / "adapter" / "adapter_config.json", **changes)
    with pytest.raises(CheckpointError, match="adapter"):
        PromptDecoder.from_pretrained(adapted)


def test_an_adapter_that_lacks_weights(adapted: Path) -> None:
    file = adapted / "adapter" / "adapter_model.safetensors"
    weights = load_file(file)
    weights.pop(next(iter(weights)))
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="does not fit its language model: missing .*lora"):
        PromptDecoder.from_pretrained(adapted)


def test_an_adapter_that_is_a_pickle(adapted: Path, tmp_path: Path) -> None:
    file = adapted / "adapter" / "adapter_model.safetensors"
    torch.save({"bomb": Bomb(tmp_path / "went-off")}, file)
    with pytest.raises(CheckpointError, match="is a pickle under another name"):
        PromptDecoder.from_pretrained(adapted)
    torch.save({"bomb": Bomb(tmp_path / "went-off")}, file.with_suffix(".bin"))
    file.unlink()
    with pytest.raises(CheckpointError, match="adapter_model.safetensors is missing"):
        PromptDecoder.from_pretrained(adapted)
    assert not (tmp_path / "went-off").exists()


@pytest.fixture
def bases(tmp_path: Path) -> Path:
    """t5/ and llama/: small pretrained models of somebody else, to poison."""
    T5ForConditionalGeneration(t5_config()).save_pretrained(tmp_path / "t5")
    LlamaForCausalLM(llama_config()).save_pretrained(tmp_path / "llama")
    return tmp_path


@pytest.mark.parametrize("key", ["vocab_size", "d_model", "d_ff", "d_kv", "num_layers", "num_decoder_layers"])
def test_absurd_sizes_of_a_base_encoder(bases: Path, key: str) -> None:
    change_json(bases / "t5" / "config.json", **{key: HUGE})
    with pytest.raises(CheckpointError, match=r"would be|elements|the weights are \d+ tensors"):
        PreferenceEncoder.from_t5(bases / "t5", 4, 16)


@pytest.mark.parametrize("key", ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"])
def test_absurd_sizes_of_a_base_decoder(bases: Path, tiny_processor, key: str) -> None:
    change_json(bases / "llama" / "config.json", **{key: HUGE})
    with pytest.raises(CheckpointError, match=r"would be|elements|the weights are \d+ tensors"):
        PromptDecoder.from_lm(bases / "llama", tiny_processor.decoder_tokenizer, 4, 16)


def test_a_base_that_would_load_something_else(bases: Path, tmp_path: Path, tiny_processor) -> None:
    def refused_base(message: str) -> None:
        with pytest.raises(CheckpointError, match=message):
            PromptDecoder.from_lm(bases / "llama", tiny_processor.decoder_tokenizer, 4, 16)

    config = bases / "llama" / "config.json"
    change_json(config, auto_map={"AutoModelForCausalLM": "evil.Model"})
    (bases / "llama" / "evil.py").write_text("raise SystemExit('ran')")
    PromptDecoder.from_lm(bases / "llama", tiny_processor.decoder_tokenizer, 4, 16)  # its class is transformers' own
    for key, value in {"transformers_weights": "../w.safetensors", "attn_implementation": "someone/kernel"}.items():
        before = config.read_text()
        change_json(config, **{key: value})
        refused_base("config.json is refused")
        config.write_text(before)
    adapter = bases / "llama" / "adapter_config.json"
    adapter.write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "someone/else"}))
    refused_base("adapter_config.json is foreign")
    adapter.unlink()
    (bases / "llama" / "model.safetensors").unlink()
    torch.save({"bomb": Bomb(tmp_path / "went-off")}, bases / "llama" / "pytorch_model.bin")
    refused_base("pytorch_model.bin is a pickle: none is ever loaded")
    assert not (tmp_path / "went-off").exists()
