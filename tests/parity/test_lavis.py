"""BLIP-2's pivots against lavis' own feature extractor: tests/parity/lavis/make_golden.py tells how it ran."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_blip2 import tiny_blip2_config

from prip.pivot_encoders.blip2 import Blip2PivotEncoder

GOLDEN = Path(__file__).parent / "lavis" / "golden.safetensors"


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN)


def config():
    return tiny_blip2_config(
        qformer_config={
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
        }
    )


@pytest.fixture(scope="module")
def checkpoint(golden, tmp_path_factory):
    """lavis' own file: the state dict under "model"."""
    file = tmp_path_factory.mktemp("lavis") / "blip2_pretrained.pth"
    state = {name.removeprefix("model."): value for name, value in golden.items() if name.startswith("model.")}
    torch.save({"model": state}, file)
    return file


def test_pivots_are_lavis_image_embeddings(golden, checkpoint):
    encoder = Blip2PivotEncoder.from_lavis(checkpoint, config())
    pivots = encoder(golden["images"])
    assert golden["embeddings"].std() > 0.1
    torch.testing.assert_close(pivots, golden["embeddings"], rtol=0, atol=2e-6)


def test_images_are_preprocessed_as_lavis_does(golden):
    pixels = Blip2PivotEncoder(config()).preprocess(golden["images"])
    torch.testing.assert_close(pixels, golden["pixels"], rtol=0, atol=1e-6)


def test_they_are_still_so_in_transformers_format(golden, checkpoint, tmp_path):
    Blip2PivotEncoder.from_lavis(checkpoint, config()).save_pretrained(tmp_path)
    pivots = Blip2PivotEncoder.from_pretrained(tmp_path)(golden["images"])
    torch.testing.assert_close(pivots, golden["embeddings"], rtol=0, atol=2e-6)
