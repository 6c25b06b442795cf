"""Settings that several stages share."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from prip.errors import InputError

Settings = TypeVar("Settings")
_MARK = "RUN/"


def check_at_least(settings: object, minimum: float, *names: str) -> None:
    """Raise InputError for the first of the fields `names` below `minimum`."""
    for name in names:
        value = getattr(settings, name)
        if not value >= minimum:
            raise InputError(f"{name}: expected at least {minimum:g}, got {value!r}")


def check_fraction(settings: object, *names: str) -> None:
    """Raise InputError for the first of the fields `names` outside [0, 1]."""
    for name in names:
        value = getattr(settings, name)
        if not 0 <= value <= 1:
            raise InputError(f"{name}: expected a number between 0 and 1, got {value!r}")


def check_heads(width_name: str, width: int, heads: int) -> None:
    """Raise InputError unless the width is a multiple of the number of attention heads."""
    if width % heads:
        raise InputError(f"{width_name}: expected a multiple of heads ({heads}), got {width}")


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """The run and its hardware. Base of the settings of every stage."""

    run: Path
    """Folder of the run; each stage writes to a subfolder of its own name."""
    seed: int = 0
    """Seed of all randomness and of the data order."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to run on; auto picks a GPU if there is one."""
    resume: bool = False
    """Continue this stage where it stopped; its settings must be the same."""
    overwrite: bool = False
    """Delete the results of this stage and start over."""
    progress: bool = True
    """Show a progress bar."""

    def __post_init__(self) -> None:
        check_at_least(self, 0, "seed")
        if self.resume and self.overwrite:
            raise InputError("resume, overwrite: expected one of them at most, got both")

    def packages(self) -> list[tuple[str, str]]:
        """Return the optional packages that the stage will import with these settings, as (module, extra)."""
        return []


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """Length and intervals of a training loop."""

    steps: int = 2000
    """Optimizer steps in total."""
    batch_size: int = 64
    """Examples per batch and device."""
    accumulate: int = 1
    """Batches per step and device whose gradients are accumulated, for batches that do not fit into memory."""
    log_every: int = 10
    """Steps between rows of the training log."""
    validate_every: int = 200
    """Steps between evaluations on the dev split; the last step is always evaluated."""
    checkpoint_every: int = 200
    """Steps between checkpoints to resume from."""
    keep_parts: bool = False
    """Keep the trained part of every evaluation in STAGE/history, not only the best."""
    precision: Literal["32-true", "bf16-mixed", "bf16-true"] = "32-true"
    """Number format: 32-true uses fp32 throughout; bf16-mixed keeps trained weights in fp32 and computes in bf16;
    bf16-true uses bf16 throughout, except for the fp32 weights of DeepSpeed's optimizer."""

    def __post_init__(self) -> None:
        check_at_least(self, 1, "steps", "batch_size", "accumulate", "log_every", "validate_every", "checkpoint_every")


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """The optimizer and its learning rate."""

    name: Literal["adafactor", "adamw"] = "adamw"
    """adafactor runs without a first moment and with the given rate; adamw has betas 0.9 and 0.999."""
    lr: float = 1e-3
    """Peak learning rate."""
    scale_parameter: bool = False
    """Multiply the learning rate of each weight matrix by the root mean square of its entries (at least 1e-3), as T5
    was trained: lr is then the relative change in a step. Only for name: adafactor; adamw ignores it."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""
    warmup_steps: int = 0
    """Steps of linear warm-up from 0 to lr."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate after the warm-up: constant, or cosine decay to 0 at the last step."""
    clip: float = 1.0
    """Maximum gradient norm; 0 disables clipping."""

    def __post_init__(self) -> None:
        check_at_least(self, 0, "lr", "weight_decay", "warmup_steps", "clip")


@dataclass(frozen=True, kw_only=True)
class TrainSettings(RunSettings):
    """A run whose stage may train in several processes."""

    devices: int = 1
    """Processes, one per device. A step takes devices x loop.accumulate x loop.batch_size examples; a run can be
    resumed on a different number of devices if that product stays the same."""
    strategy: Literal["auto", "ddp", "deepspeed-2", "deepspeed-3"] = "auto"
    """How several processes share the work: ddp (or auto) replicates everything, deepspeed-2 shards optimizer states
    and gradients (ZeRO-2), deepspeed-3 also the weights (ZeRO-3). DeepSpeed requires adamw, because its optimizer sees
    only flattened slices of the weights."""
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    """Optimizer."""
    loop: LoopSettings = field(default_factory=LoopSettings)
    """Training loop."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "devices")
        if self.strategy.startswith("deepspeed") and self.optimizer.name != "adamw":
            raise InputError(
                f"optimizer.name: expected adamw with strategy: {self.strategy}, got {self.optimizer.name}"
            )

    def packages(self) -> list[tuple[str, str]]:
        return [("deepspeed", "deepspeed")] if self.strategy.startswith("deepspeed") else []

    def check_unsharded(self, what: str) -> None:
        """Raise InputError if the strategy shards weights or states, which `what` does not support."""
        if self.strategy not in ("auto", "ddp"):
            raise InputError(f"strategy: expected auto or ddp for {what}, got {self.strategy}")


@dataclass(frozen=True, kw_only=True)
class DrawingSettings:
    """The generator and the rewards."""

    generator: str | None = None
    """Generator, as a folder or ID[@REVISION] on the Hub; null means RUN/parts/generator."""
    generator_options: dict[str, Any] = field(default_factory=dict)
    """Arguments of prip.generators.load_generator, such as steps, guidance, scheduler and batch_size."""
    rewards: tuple[str, ...] = ()
    """Rewards, each as a folder, ID[@REVISION] on the Hub or a registered name (NAME, NAME@REVISION,
    NAME=PLACE@REVISION); empty means every folder in RUN/parts/rewards."""

    def generator_source(self, run: Path) -> str:
        """Return the folder or Hub ID of the generator."""
        return self.generator or str(run / "parts" / "generator")

    def reward_sources(self, run: Path) -> list[str]:
        """Return the names of the rewards, or the folders in RUN/parts/rewards if none are named."""
        folders = (path for path in (run / "parts" / "rewards").glob("*") if path.is_dir())
        return list(self.rewards) or sorted(map(str, folders))


def in_run(settings: Settings, run: Path) -> Settings:
    """Return the settings with each string or path RUN/..., or NAME=RUN/..., moved into the folder `run`."""
    return _in_run(settings, run)


def _in_run(value: Any, run: Path) -> Any:
    if isinstance(value, (str, Path)):
        name, equals, path = str(value).rpartition("=")
        moved = f"{name}{equals}{run / path.removeprefix(_MARK)}"
        return type(value)(moved) if path.startswith(_MARK) else value
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: _in_run(getattr(value, field.name), run) for field in fields(value)})
    if isinstance(value, dict):
        return {key: _in_run(item, run) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_in_run(item, run) for item in value)
    return value
