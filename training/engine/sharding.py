"""DeepSpeed's ZeRO under Lightning: its strategies, and what it shares out among the processes made whole again."""

from __future__ import annotations

import io
import math
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy
from torch import Tensor, nn

from prip.errors import CheckpointError, require

TAG = "checkpoint"
"""Name of the folder that Lightning lets DeepSpeed write into, inside the checkpoint."""
_MOMENTS = ("exp_avg", "exp_avg_sq")
_CONVERSION = {
    "num_extract_workers": 1,
    "num_merge_workers": 1,
    "keep_temp_folder": False,
    "strict": True,
    "inject_missing_state": True,
}


class ZeroStrategy(DeepSpeedStrategy):
    """ZeRO-2 or ZeRO-3. Lightning and DeepSpeed both divide the loss by the batches of a step: here one of them does.

    Frozen parameters are left out of the checkpoints.
    """

    def __init__(self, stage: int, batch_size: int, clip: float, manual: bool, **options: Any) -> None:
        """manual: whether the module makes its optimizer steps itself. DeepSpeed then adds up the gradients of all
        backward passes up to a step, instead of keeping those of the last."""
        require("deepspeed", "deepspeed")
        options |= {"exclude_frozen_parameters": True, "logging_batch_size_per_gpu": batch_size}
        if manual and stage == 3:
            options["overlap_comm"] = False  # DeepSpeed adds up without it alone
        super().__init__(stage=stage, **options)
        assert isinstance(self.config, dict)
        self.config |= {"gradient_clipping": clip, "managed_gradient_accumulation": not manual}

    def backward(self, closure_loss: Tensor, optimizer: Any, *args: Any, **kwargs: Any) -> Tensor:
        return super().backward(closure_loss, optimizer, *args, scale_wrt_gas=False, **kwargs)


class CpuZeroStrategy(ZeroStrategy):
    """The same over gloo on the CPU, which Lightning's strategy refuses to run on."""

    def __init__(self, stage: int, batch_size: int, clip: float, manual: bool) -> None:
        os.environ["DS_ACCELERATOR"] = "cpu"
        super().__init__(stage, batch_size, clip, manual, process_group_backend="gloo", overlap_comm=False)

    @property
    def root_device(self) -> torch.device:
        return torch.device("cpu", 0)  # DeepSpeed asks for a number

    def setup_environment(self) -> None:
        super(DeepSpeedStrategy, self).setup_environment()

    def setup_distributed(self) -> None:
        # gloo alone: DeepSpeed's own kernel for one machine would have to be compiled first
        require("deepspeed.ops", "deepspeed").__compatible_ops__["deepspeed_shm_comm"] = False
        self.set_world_ranks()
        self._init_deepspeed_distributed()


def build_strategy(name: str, devices: int, device: str, batch_size: int, clip: float, manual: bool) -> Any:
    """Returns what Lightning's Trainer takes as its strategy.

    device: auto, cpu or cuda. clip: largest gradient norm, 0 for none. manual: whether the module makes its optimizer
    steps itself.
    """
    if name.startswith("deepspeed-"):
        on_cpu = device == "cpu" or not torch.cuda.is_available()
        return (CpuZeroStrategy if on_cpu else ZeroStrategy)(int(name[-1]), batch_size, clip, manual)
    if name == "ddp" or devices > 1:
        return DDPStrategy(gradient_as_bucket_view=True)  # else DDP holds every gradient twice
    return "auto"


def holds_float32(precision: str, strategy: Any) -> bool:
    """Returns whether a module holds what it trains in 32 bits. In bf16-mixed under DeepSpeed it does not: the engine
    makes 16 bits of it and has 32-bit weights of its own, shared out; whole ones would only pass through the host."""
    return precision == "32-true" or (precision == "bf16-mixed" and not isinstance(strategy, DeepSpeedStrategy))


def forward(module: L.LightningModule, *given: Any) -> Any:
    """Calls `module` for a backward pass of its own, under manual optimization: DeepSpeed's engine adds up the
    gradients of as many backward passes as it has seen forward passes."""
    strategy = module.trainer.strategy
    return (strategy.deepspeed_engine if isinstance(strategy, ZeroStrategy) else module)(*given)


def clipped_step(module: L.LightningModule, optimizer: Any, parameters: Iterable[nn.Parameter], clip: float) -> float:
    """Takes an optimizer step with the gradients of the backward passes since the last, and forgets them; returns the
    norm that they had. clip: to which norm they are scaled down, 0 for none; that of the strategy under DeepSpeed.
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
    """Gives the first process the whole of every parameter that ZeRO-3 has shared out, on the CPU, to be read there.

    All processes must enter it together. Other parameters stay as they are.
    """
    shared = [parameter for parameter in module.parameters() if hasattr(parameter, "ds_id")]
    if not shared:
        yield
        return
    deepspeed = require("deepspeed", "deepspeed")
    first = torch.distributed.get_rank() == 0
    placeholders = []
    for parameter in shared:
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
    """Returns how many numbers a parameter holds, be it shared out or not."""
    return getattr(parameter, "ds_numel", parameter.numel())


def processes_of(folder: Path) -> int:
    """Returns how many processes wrote a DeepSpeed checkpoint."""
    return len(list((folder / TAG).glob("*zero_pp_rank_*_optim_states.pt")))


def stage_of(folder: Path) -> int:
    """Returns the ZeRO stage, 2 or 3, that wrote a DeepSpeed checkpoint."""
    return 3 if list((folder / TAG).glob("zero_pp_rank_*_model_states.pt")) else 2


def plain_checkpoint(folder: Path, module: L.LightningModule) -> dict[str, Any]:
    """Returns a DeepSpeed checkpoint as the one that Lightning would have written without DeepSpeed.

    Weights, the optimizer's states (through DeepSpeed's universal checkpoint) and the loop are all there.
    Raises CheckpointError where a trained parameter is missing.
    """
    universal = folder / "universal"
    shutil.rmtree(universal, ignore_errors=True)
    convert = require("deepspeed.checkpoint.ds_to_universal", "deepspeed")
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # its progress bars
        convert.main(SimpleNamespace(input_folder=str(folder / TAG), output_folder=str(universal), **_CONVERSION))
    names = {id(value): name for name, value in module.named_parameters() if value.requires_grad}
    missing = [name for name in names.values() if not (universal / "zero" / name / "fp32.pt").is_file()]
    if missing:
        raise CheckpointError(f"{folder}: weights are missing: {', '.join(missing)}")
    model_states = sorted((folder / TAG).glob("*model_states.pt"))[0]
    checkpoint = torch.load(model_states, map_location="cpu", weights_only=True)
    kept = checkpoint["module"]
    buffers = {name: kept[name] for name, _ in module.named_buffers() if name in kept}
    weights = {
        name: _read(universal, names[id(value)], "fp32", value.shape)
        for name, value in module.named_parameters(remove_duplicate=False)
        if value.requires_grad
    }
    configured: Any = module.configure_optimizers()
    (group,) = configured["optimizer"].param_groups
    states = {}
    for place, value in enumerate(group["params"]):
        states[place] = {kind: _read(universal, names[id(value)], kind, value.shape) for kind in _MOMENTS}
        states[place]["step"] = torch.tensor(float(checkpoint["global_steps"]))  # one for each: it is counted in place
    groups = configured["optimizer"].state_dict()["param_groups"]
    groups[0]["lr"] = checkpoint["lr_schedulers"][0]["_last_lr"][0]
    shutil.rmtree(universal)
    optimizer = {"state": states, "param_groups": groups}
    return checkpoint | {"state_dict": weights | buffers, "optimizer_states": [optimizer]}


def _read(universal: Path, name: str, state: str, shape: torch.Size) -> Tensor:
    content = torch.load(universal / "zero" / name / f"{state}.pt", map_location="cpu", weights_only=True)
    values = content["param"] if isinstance(content, dict) else content
    return values.reshape(shape)  # of ZeRO-3, they are in one row
