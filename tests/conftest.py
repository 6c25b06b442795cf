"""A tiny checkpoint with random weights, built once: every test of the core runs on it, on the CPU and offline."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "support"))  # not tests/ itself, where prip/ would shadow the package

from tiny_parts import USER_PROMPTS, build_tokenizer, llama_config, system_prompts, t5_config  # noqa: E402

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # two workers share the cores: idle threads must not spin
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def tokenizers_pair():
    """The encoder's and the decoder's tokenizer."""
    return build_tokenizer(USER_PROMPTS * 3, frame=True), build_tokenizer(system_prompts())


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory, tokenizers_pair) -> Path:
    """The folder of a whole refiner with random weights: pivots of 4 x 16."""
    import torch

    from prip.modeling import PreferenceEncoder, PripModel, PromptDecoder
    from prip.processing import PripProcessor

    encoder_tokenizer, decoder_tokenizer = tokenizers_pair
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = PreferenceEncoder.from_t5(t5_config(), pivot_length=4, pivot_width=16)
        decoder = PromptDecoder.from_lm(llama_config(), decoder_tokenizer, pivot_length=4, pivot_width=16)
    folder = tmp_path_factory.mktemp("tiny") / "refiner"
    PripModel(encoder, decoder).save_pretrained(folder)
    PripProcessor(encoder_tokenizer, decoder_tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tiny_checkpoint: Path):
    """The tiny checkpoint's models; do not change them."""
    from prip.modeling import PripModel

    return PripModel.from_pretrained(tiny_checkpoint)


@pytest.fixture(scope="session")
def tiny_processor(tiny_checkpoint: Path):
    """The tiny checkpoint's tokenizers."""
    from prip.processing import PripProcessor

    return PripProcessor.from_pretrained(tiny_checkpoint)


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """Find a file or folder of real prompts and images, which lie in ../shared/data and not in this repository.

    This is the only fixture that reads outside of the repository. A test that asks for what is not there is skipped.
    """

    def find(name: str) -> Path:
        path = Path(__file__).resolve().parents[2] / "shared" / "data" / name
        if not path.exists():
            pytest.skip(f"real data: {name} is not in ../shared/data")
        return path

    return find


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A LocalHub that huggingface_hub takes for the real one, with an empty cache and nobody logged in."""
    from hub_server import serving, stand_in

    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between huggingface_hub's own retries
    with serving() as hub:
        stand_in(hub, tmp_path, monkeypatch)
        yield hub


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips the tests marked `gpu` where there is no CUDA device, with that as the reason."""
    import torch

    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device, there is none"))
