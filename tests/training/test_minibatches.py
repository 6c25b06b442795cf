"""Minibatches over several processes: equal shares, one exchange of gradients a step, the weights of one process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from processes import run_script

from prip.training.engine import ranks
from prip.training.engine.minibatches import balanced_minibatches, chunks_of_this

JOB = """
import json
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy

from prip.training.engine import ranks
from prip.training.engine.minibatches import balanced_minibatches, chunks_of_this, exchanged
from prip.training.engine.sharding import clipped_step

ROWS, GROUP, SIZE, CHUNK, EPOCHS = 64, 2, 32, {chunk}, 3
exchanges = []


def hook(state, bucket):
    exchanges.append(bucket.index())
    return torch.distributed.algorithms.ddp_comm_hooks.default_hooks.allreduce_hook(None, bucket)


class Module(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 1))
        self.inputs, self.targets = torch.randn(ROWS, 5), torch.randn(ROWS, 1)
        self.passes = self.steps = 0

    def on_train_start(self):
        self.trainer.strategy.model.register_comm_hook(None, hook)

    def training_step(self, batch, step):
        inputs, targets = (ranks.rows_of_this(values, GROUP) for values in (self.inputs, self.targets))
        for epoch in range(EPOCHS):
            for rows in balanced_minibatches(ROWS, SIZE, GROUP, torch.Generator().manual_seed(epoch)):
                for chunk in chunks_of_this(rows, CHUNK, GROUP):
                    with exchanged(self, chunk.last or {always}):
                        errors = (self.layers(inputs[chunk.rows]) - targets[chunk.rows]).square()
                        self.manual_backward(errors.sum() / len(rows) * chunk.weight * ranks.count())
                    self.passes += 1
                clipped_step(self, self.optimizers(), self.layers.parameters(), 0.5)
                self.steps += 1

    def configure_optimizers(self):
        return torch.optim.AdamW(self.layers.parameters(), lr=1e-2)


if __name__ == "__main__":
    strategy = DDPStrategy(gradient_as_bucket_view=True)
    trainer = L.Trainer(
        accelerator="cpu", devices={processes}, strategy=strategy, max_steps=-1, max_epochs=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )
    module = Module()
    trainer.fit(module, torch.utils.data.DataLoader([0] * {processes}))
    if trainer.is_global_zero:
        weights = [value.tolist() for value in module.layers.parameters()]
        found = {{"passes": module.passes, "steps": module.steps, "exchanges": len(exchanges), "weights": weights}}
        Path("found.json").write_text(json.dumps(found))
"""


def train(folder: Path, processes: int, chunk: int, always: bool = False) -> dict:
    """Trains a small network in `processes` processes, six steps; returns what the first one counted."""
    run_script(folder, JOB.format(processes=processes, chunk=chunk, always=always), timeout_s=300)
    return json.loads((folder / "found.json").read_text())


def weights_of_one_process() -> list[torch.Tensor]:
    """Trains the network in a plain loop: whole minibatches, no chunks, neither Lightning nor DDP."""
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 1))
    inputs, targets = torch.randn(64, 5), torch.randn(64, 1)
    optimizer = torch.optim.AdamW(layers.parameters(), lr=1e-2)
    for epoch in range(3):
        for rows in balanced_minibatches(64, 32, 2, torch.Generator().manual_seed(epoch)):
            optimizer.zero_grad()
            (layers(inputs[rows]) - targets[rows]).square().mean().backward()
            torch.nn.utils.clip_grad_norm_(layers.parameters(), 0.5)
            optimizer.step()
    return [value.detach() for value in layers.parameters()]


def assert_weights_of_one_process(found: dict) -> None:
    for mine, theirs in zip(found["weights"], weights_of_one_process(), strict=True):
        assert torch.allclose(torch.tensor(mine), theirs, rtol=0, atol=1e-5)


def test_two_processes_exchange_gradients_once_a_step(tmp_path: Path) -> None:
    """Chunks of 5 for shares of 16 rows: the last is smaller, and three of four exchange nothing."""
    two = train(tmp_path, 2, 5)
    assert (two["steps"], two["passes"], two["exchanges"]) == (6, 6 * 4, 6)
    assert_weights_of_one_process(two)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [4, 8])
def test_more_processes_do_the_same(tmp_path: Path, processes: int) -> None:
    many = train(tmp_path, processes, 4)
    assert (many["steps"], many["passes"], many["exchanges"]) == (6, 6 * 32 // processes // 4, 6)
    assert_weights_of_one_process(many)


@pytest.mark.slow
def test_exchanging_with_every_chunk_made_the_same_weights(tmp_path: Path) -> None:
    often = train(tmp_path, 2, 4, always=True)
    assert (often["passes"], often["exchanges"]) == (24, 24)
    assert_weights_of_one_process(often)


@pytest.mark.parametrize(("rows", "size", "group"), [(512, 128, 1), (512, 128, 4), (64, 24, 2), (48, 16, 3)])
def test_every_number_of_processes_has_equal_shares(
    monkeypatch: pytest.MonkeyPatch, rows: int, size: int, group: int
) -> None:
    minibatches = balanced_minibatches(rows, size, group, torch.Generator().manual_seed(3))
    assert sorted(torch.cat(minibatches).tolist()) == list(range(rows))
    assert [len(minibatch) for minibatch in minibatches] == [size] * (rows // size) + [rows % size] * (rows % size > 0)
    for processes in (1, 2, 4, 8):
        if size % processes or rows // group % processes:
            continue
        monkeypatch.setattr(ranks, "count", lambda processes=processes: processes)
        for minibatch in minibatches:
            shares = {len(ranks.local_rows(minibatch, process, group)) for process in range(processes)}
            assert shares == {len(minibatch) // processes}


def test_the_preset_takes_one_chunk_a_minibatch(monkeypatch: pytest.MonkeyPatch) -> None:
    """128 of 512 rows over 8 processes in chunks of 16; a plain permutation takes two chunks each time."""
    monkeypatch.setattr(ranks, "count", lambda: 8)
    monkeypatch.setattr(ranks, "rank", lambda: 3)
    balanced, plain = [], []
    for seed in range(20):
        random = torch.Generator().manual_seed(seed)
        balanced += [len(list(chunks_of_this(rows, 16, 1))) for rows in balanced_minibatches(512, 128, 1, random)]
        order = torch.randperm(512, generator=torch.Generator().manual_seed(seed))
        plain += [len(list(chunks_of_this(rows, 16, 1))) for rows in order.split(128)]
    assert set(balanced) == {1}
    assert sum(plain) / len(plain) > 1.9


def test_minibatches_are_random_and_repeat() -> None:
    first, again, other = (
        torch.cat(balanced_minibatches(24, 6, 2, torch.Generator().manual_seed(seed))).tolist() for seed in (1, 1, 2)
    )
    assert first == again != other


def test_without_a_common_divisor_it_is_a_plain_permutation() -> None:
    minibatches = balanced_minibatches(7, 3, 1, torch.Generator().manual_seed(5))
    order = torch.randperm(7, generator=torch.Generator().manual_seed(5))
    assert [rows.tolist() for rows in minibatches] == [rows.tolist() for rows in order.split(3)]


def test_a_process_without_rows_repeats_one_with_weight_0(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows 0, 2 and 4 lie with the first of two processes, row 1 with the second."""
    minibatch = torch.tensor([4, 1, 0, 2])
    monkeypatch.setattr(ranks, "count", lambda: 2)
    monkeypatch.setattr(ranks, "rank", lambda: 1)
    chunks = [(chunk.rows.tolist(), chunk.weight, chunk.last) for chunk in chunks_of_this(minibatch, 2, 1)]
    assert chunks == [([0], 1, False), ([0], 0, True)]
