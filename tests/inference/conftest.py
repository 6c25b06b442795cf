"""A whole checkpoint with random weights, its generator left to each test, and a server of the embedded default."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from server_process import ServerProcess, serving


@pytest.fixture(scope="session")
def whole_checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path, tokenizers_pair) -> Path:
    """The folder of a checkpoint as `prip compare` and `prip evaluate` read it, with an empty generator/."""
    import torch

    from prip.miniature.reader import Reader, ReaderConfig
    from prip.pivot_encoders.qformer import QFormerPivotEncoder, QFormerPivotEncoderConfig
    from prip.rewards.prompt_reward import PromptReward, PromptRewardConfig

    root = tmp_path_factory.mktemp("whole") / "checkpoint"
    shutil.copytree(tiny_checkpoint, root / "refiner")
    shutil.copytree(tiny_checkpoint / "encoder", root / "warmup" / "encoder")
    (root / "generator").mkdir()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Reader(ReaderConfig(trunk_width=16, width=8)).save_pretrained(root / "readers" / "b")
        for place, name in (
            ("readers/c", "second_reward"),
            *((f"rewards/{name}", name) for name in ("mini-reward", "mini-hps")),
        ):
            reward = PromptReward(PromptRewardConfig(name=name, trunk_width=16, width=8))
            reward.tokenizer = tokenizers_pair[0]
            reward.save_pretrained(root / place)
        sizes = {"pivot_length": 2, "pivot_width": 16, "trunk_width": 16, "layers": 1}
        QFormerPivotEncoder(QFormerPivotEncoderConfig(**sizes)).save_pretrained(root / "pivot_encoder")
    return root


@pytest.fixture(scope="session")
def shared_server() -> Iterator[ServerProcess]:
    """`prip serve` with the renderer as generator; leave it as it answers now."""
    with serving("--images", "renderer") as server:
        yield server
