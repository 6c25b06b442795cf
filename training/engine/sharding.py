"""DeepSpeed's ZeRO under Lightning: strategies, gathered parameters, and sharded checkpoints made whole."""

from __future__ import annotations

import io
import math
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, Strategy
from torch import Tensor, nn
from torch.optim import Optimizer

from prip.errors import CheckpointError, require

from ..settings import TrainSettings
from .stage_module import StageModule

TAG = "checkpoint"
"""Folder inside a checkpoint to which DeepSpeed writes under Lightning."""
_MOMENTS = ("exp_avg", "exp_avg_sq")
_CONVERSION = {
    "num_extract_workers": 1,
    "num_merge_workers": 1,
    "keep_temp_folder": False,
    "strict": True,
    "inject_missing_state": True,
}


class ZeroStrategy(DeepSpeedStrategy):
    """ZeRO-2 or ZeRO-3, with a loss divided by the batches of a step once, not by both Lightning and DeepSpeed.

    Frozen parameters are left out of checkpoints.

    Args:
        stage: 2 or 3.
        batch_size: Examples in a batch, for DeepSpeed's log.
        clip: Maximum gradient norm, 0 for none.
        manual: Whether the module takes its optimizer steps itself. DeepSpeed then sums the gradients of all backward
            passes since the last step, instead of keeping only those of the last pass.
        options: Options of Lightning's strategy.
    """

    def __init__(self, stage: int, batch_size: int, clip: float, manual: bool, **options: Any) -> None:
        require("deepspeed", "deepspeed")
        options |= {"exclude_frozen_parameters": True, "logging_batch_size_per_gpu": batch_size}
        if manual and stage == 3:
            options["overlap_comm"] = False  # with it, DeepSpeed does not sum gradients
        super().__init__(stage=stage, **options)
        assert isinstance(self.config, dict)
        self.config |= {"gradient_clipping": clip, "managed_gradient_accumulation": not manual}

    def backward(self, closure_loss: Tensor, optimizer: Any, *args: Any, **kwargs: Any) -> Tensor:
        return super().backward(closure_loss, optimizer, *args, scale_wrt_gas=False, **kwargs)


class CpuZeroStrategy(ZeroStrategy):
    """ZeRO over gloo on the CPU, which Lightning's strategy does not support."""

    def __init__(self, stage: int, batch_size: int, clip: float, manual: bool) -> None:
        os.environ["DS_ACCELERATOR"] = "cpu"
        super().__init__(stage, batch_size, clip, manual, process_group_backend="gloo", overlap_comm=False)

    @property
    def root_device(self) -> torch.device:
        return torch.device("cpu", 0)  # DeepSpeed needs an index

    def setup_environment(self) -> None:
        super(DeepSpeedStrategy, self).setup_environment()

    def setup_distributed(self) -> None:
        # Use gloo only: DeepSpeed's shared-memory kernel would have to be compiled first.
        require("deepspeed.ops", "deepspeed").__compatible_ops__["deepspeed_shm_comm"] = False
        self.set_world_ranks()
        self._init_deepspeed_distributed()


def build_strategy(settings: TrainSettings, batch_size: int, clip: float, manual: bool) -> Strategy | Literal["auto"]:
    """Return the strategy for Lightning's Trainer; arguments as in ZeroStrategy."""
    if settings.strategy.startswith("deepspeed-"):
        on_cpu = settings.device == "cpu" or not torch.cuda.is_available()
        return (CpuZeroStrategy if on_cpu else ZeroStrategy)(int(settings.strategy[-1]), batch_size, clip, manual)
    if settings.strategy == "ddp" or settings.devices > 1:
        return DDPStrategy(gradient_as_bucket_view=True)  # without it, DDP holds every gradient twice
    return "auto"


def holds_float32(precision: str, strategy: Strategy) -> bool:
    """Return whether a module keeps its trained parameters in float32.

    In bf16-mixed under DeepSpeed, the engine converts them to 16 bits and shards float32 copies of its own.
    """
    return precision == "32-true" or (precision == "bf16-mixed" and not isinstance(strategy, DeepSpeedStrategy))


def for_backward(module: L.LightningModule) -> nn.Module:
    """Return what to call for a forward pass under manual optimization: DeepSpeed's engine, or the module itself.

    The engine counts forward passes to know how many backward passes to sum.
    """
    strategy = module.trainer.strategy
    return strategy.deepspeed_engine if isinstance(strategy, ZeroStrategy) else module


def clipped_step(
    module: L.LightningModule,
    optimizer: Optimizer | LightningOptimizer,
    parameters: Iterable[nn.Parameter],
    clip: float,
) -> float:
    """Take an optimizer step with the accumulated gradients, reset them, and return their norm before clipping.

    `clip` is the maximum norm, 0 for none; under DeepSpeed, the strategy's own applies.
    """
    strategy = module.trainer.strategy
    if isinstance(strategy, ZeroStrategy):
        optimizer.step()
        return float(strategy.deepspeed_engine.get_global_grad_norm())
    norm = nn.utils.clip_grad_norm_(parameters, clip or math.inf)
    optimizer.step()
    optimizer.zero_grad()
    return norm.item()


@contextmanager
def whole_parameters(module: nn.Module) -> Iterator[None]:
    """Gather every parameter that ZeRO-3 has sharded, on the CPU of the first process, to be read there.

    All processes must enter it together. Other parameters stay unchanged.
    """
    sharded = [parameter for parameter in module.parameters() if hasattr(parameter, "ds_id")]
    if not sharded:
        yield
        return
    deepspeed = require("deepspeed", "deepspeed")
    first = torch.distributed.get_rank() == 0
    placeholders = []
    for parameter in sharded:
        with deepspeed.zero.GatheredParameters([parameter]):
            whole = parameter.data.cpu().clone() if first else None
        if whole is not None:
            placeholders.append((parameter, parameter.data))
            parameter.data = whole
    try:
        yield
    finally:
        for parameter, placeholder in placeholders:
            parameter.data = placeholder


def number_of_weights(parameter: nn.Parameter) -> int:
    """Return the number of elements of a parameter, sharded or not."""
    return getattr(parameter, "ds_numel", parameter.numel())


def processes_of(folder: Path) -> int:
    """Return the number of processes that wrote a DeepSpeed checkpoint."""
    return len(list((folder / TAG).glob("*zero_pp_rank_*_optim_states.pt")))


def stage_of(folder: Path) -> int:
    """Return the ZeRO stage of a DeepSpeed checkpoint, 2 or 3."""
    return 3 if list((folder / TAG).glob("zero_pp_rank_*_model_states.pt")) else 2


def plain_checkpoint(folder: Path, module: StageModule) -> dict[str, Any]:
    """Convert a DeepSpeed checkpoint into the one that Lightning would have written without DeepSpeed.

    It has the weights of `module`, the optimizer state (through DeepSpeed's universal checkpoint) and the loop state.
    Raise CheckpointError if a trained parameter is missing.
    """
    # Let DeepSpeed merge its shards into one file per parameter and moment.
    universal = folder / "universal"
    shutil.rmtree(universal, ignore_errors=True)
    convert = require("deepspeed.checkpoint.ds_to_universal", "deepspeed")
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # hides its progress bars
        convert.main(SimpleNamespace(input_folder=str(folder / TAG), output_folder=str(universal), **_CONVERSION))
    names = {id(value): name for name, value in module.named_parameters() if value.requires_grad}
    missing = [name for name in names.values() if not (universal / "zero" / name / "fp32.pt").is_file()]
    if missing:
        raise CheckpointError(f"{folder}: weights are missing: {', '.join(missing)}")
    # The weights: trained parameters from the merged files, buffers from the first process.
    model_states = sorted((folder / TAG).glob("*model_states.pt"))[0]
    checkpoint = torch.load(model_states, map_location="cpu", weights_only=True)
    buffers = {name: checkpoint["module"][name] for name, _ in module.named_buffers() if name in checkpoint["module"]}
    weights = {
        name: _read(universal, names[id(value)], "fp32", value.shape)
        for name, value in module.named_parameters(remove_duplicate=False)
        if value.requires_grad
    }
    # The optimizer state, in the order of the parameters in a fresh optimizer.
    fresh = module.configure_optimizers()["optimizer"]
    states = {}
    for index, value in enumerate(value for group in fresh.param_groups for value in group["params"]):
        states[index] = {kind: _read(universal, names[id(value)], kind, value.shape) for kind in _MOMENTS}
        states[index]["step"] = torch.tensor(float(checkpoint["global_steps"]))  # one tensor each: updated in place
    groups = fresh.state_dict()["param_groups"]
    for group, rate in zip(groups, checkpoint["lr_schedulers"][0]["_last_lr"], strict=True):
        group["lr"] = rate
    shutil.rmtree(universal)
    optimizer = {"state": states, "param_groups": groups}
    return checkpoint | {"state_dict": weights | buffers, "optimizer_states": [optimizer]}


def _read(universal: Path, name: str, state: str, shape: torch.Size) -> Tensor:
    content = torch.load(universal / "zero" / name / f"{state}.pt", map_location="cpu", weights_only=True)
    values = content["param"] if isinstance(content, dict) else content
    return values.reshape(shape)  # ZeRO-3 stores them flat
