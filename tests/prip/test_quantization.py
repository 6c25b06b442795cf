"""Fewer bits: what is quantised, what stays, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from tiny_parts import USER_PROMPTS
from torch.nn import functional

from prip.errors import InputError, MissingExtraError
from prip.modeling.quantization import is_quantized, weight_bytes
from prip.refiner import Refiner


def linears(refiner: Refiner) -> dict[str, torch.nn.Linear]:
    return {name: part for name, part in refiner.model.named_modules() if isinstance(part, torch.nn.Linear)}


def test_int8_keeps_each_row_to_a_step_of_its_scale(tiny_checkpoint: Path) -> None:
    whole = linears(Refiner.from_pretrained(tiny_checkpoint, device="cpu"))
    fewer = linears(Refiner.from_pretrained(tiny_checkpoint, device="cpu", quantization="int8"))
    assert whole.keys() == fewer.keys()
    for name, layer in fewer.items():
        assert hasattr(layer.weight, "__tensor_flatten__"), name
        exact = whole[name].weight
        step = exact.abs().amax(dim=1) / 127
        seen = functional.linear(torch.eye(exact.shape[1]), layer.weight).T
        assert ((seen - exact).abs().amax(dim=1) <= 0.51 * step + 1e-7).all(), name
        assert not torch.equal(seen, exact), name


def test_int8_leaves_embeddings_norms_and_biases(tiny_checkpoint: Path) -> None:
    whole = dict(Refiner.from_pretrained(tiny_checkpoint, device="cpu").model.named_parameters())
    model = Refiner.from_pretrained(tiny_checkpoint, device="cpu", quantization="int8").model
    left = {name: weight for name, weight in model.named_parameters() if not hasattr(weight, "__tensor_flatten__")}
    assert any("embed" in name for name in left) and any("norm" in name for name in left)
    for name, weight in left.items():
        assert torch.equal(weight, whole[name]), name


def test_the_embedded_default_takes_less_than_half_the_memory_and_says_nearly_the_same() -> None:
    whole = Refiner.from_pretrained("prip-mini", device="cpu")
    fewer = Refiner.from_pretrained("prip-mini", device="cpu", quantization="int8")
    assert weight_bytes(fewer.model) < 0.4 * weight_bytes(whole.model)
    texts = zip(whole.refine(USER_PROMPTS), fewer.refine(USER_PROMPTS), strict=True)
    assert sum(a == b for a, b in texts) >= 0.7 * len(USER_PROMPTS)


def test_a_quantised_model_is_not_saved_as_if_it_were_whole(tiny_checkpoint: Path, tmp_path: Path) -> None:
    refiner = Refiner.from_pretrained(tiny_checkpoint, device="cpu", quantization="int8")
    assert is_quantized(refiner.model)
    with pytest.raises(InputError, match="quantized model cannot be saved"):
        refiner.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_quantised_refiner_moves_as_it_is(tiny_checkpoint: Path) -> None:
    refiner = Refiner.from_pretrained(tiny_checkpoint, device="cpu", quantization="int8")
    before = refiner.refine(USER_PROMPTS)
    with pytest.raises(InputError, match="dtype: expected None for a quantized refiner"):
        refiner.to("cpu", torch.bfloat16)
    assert refiner.to("cpu").refine(USER_PROMPTS) == before
    moved = refiner.to("meta").model
    assert is_quantized(moved) and {weight.device.type for weight in moved.parameters()} == {"meta"}


def test_bad_settings_are_named(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="quantization: expected one of int8 or None, got 'int3'"):
        Refiner.from_pretrained(tiny_checkpoint, quantization="int3")
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(MissingExtraError, match=r'pip install "\.\[quantize\]"'):
        Refiner.from_pretrained(tiny_checkpoint, quantization="int8")


@pytest.mark.slow
def test_a_compiled_refiner_says_the_same(tiny_checkpoint: Path) -> None:
    plain = Refiner.from_pretrained(tiny_checkpoint, device="cpu")
    compiled = Refiner.from_pretrained(tiny_checkpoint, device="cpu", compile=True)
    assert compiled.refine(USER_PROMPTS) == plain.refine(USER_PROMPTS)
    assert compiled.model.encoder._compiled_call_impl is not None
