"""Settings that several stages share."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from prip.errors import InputError

Settings = TypeVar("Settings")
_MARK = "RUN/"


def check_at_least(settings: object, minimum: float, *names: str) -> None:
    """Raises InputError for the first of the fields `names` that is less than `minimum`."""
    for name in names:
        value = getattr(settings, name)
        if not value >= minimum:
            raise InputError(f"{name}: expected at least {minimum:g}, got {value!r}")


def check_fraction(settings: object, *names: str) -> None:
    """Raises InputError for the first of the fields `names` that lies outside [0, 1]."""
    for name in names:
        value = getattr(settings, name)
        if not 0 <= value <= 1:
            raise InputError(f"{name}: expected a number between 0 and 1, got {value!r}")


def check_heads(width_name: str, width: int, heads: int) -> None:
    """Raises InputError unless the width can be shared out among the attention heads."""
    if width % heads:
        raise InputError(f"{width_name}: expected a multiple of heads ({heads}), got {width}")


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Which run this is and where it happens. The settings of every stage extend this."""

    run: Path
    """Folder of the run. Each stage writes into a folder of its own name inside it."""

    seed: int = 0
    """Seed of all randomness and of the data order."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes a GPU if there is one."""

    resume: bool = False
    """Continue this stage of the run where it stopped."""

    overwrite: bool = False
    """Throw away what this stage of the run holds already, and start anew."""

    progress: bool = True
    """Show a progress bar."""

    def __post_init__(self) -> None:
        check_at_least(self, 0, "seed")
        if self.resume and self.overwrite:
            raise InputError("resume, overwrite: expected one of them at most, got both")


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """Length and rhythm of a stage's training loop."""

    steps: int = 2000
    """Training steps in all."""

    batch_size: int = 64
    """Examples in a batch, on each device."""

    accumulate: int = 1
    """Batches whose gradients make one step, on each device: what does not fit into memory at once."""

    log_every: int = 10
    """Steps between two rows of the training log."""

    validate_every: int = 200
    """Steps between two measurements on the dev split; the last step is always measured."""

    checkpoint_every: int = 200
    """Steps between two checkpoints to resume from."""

    keep_parts: bool = False
    """Keep the trained part of every measurement, in STAGE/history, and not the best alone."""

    precision: Literal["32-true", "bf16-mixed", "bf16-true"] = "32-true"
    """Number format. 32-true: 32 bits throughout. bf16-mixed: what is trained is held in 32 bits, the computation is in
    16. bf16-true: 16 bits throughout, but for the weights that DeepSpeed's optimizer holds in 32."""

    def __post_init__(self) -> None:
        check_at_least(self, 1, "steps", "batch_size", "accumulate", "log_every", "validate_every", "checkpoint_every")


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """The optimizer and its learning rate."""

    name: Literal["adafactor", "adamw"] = "adamw"
    """adafactor: without parameter scaling or relative steps, as for T5. adamw: betas 0.9 and 0.999."""

    lr: float = 1e-3
    """Highest learning rate."""

    weight_decay: float = 0.0
    """Decoupled weight decay."""

    warmup_steps: int = 0
    """Steps over which the learning rate rises from 0 to lr."""

    schedule: Literal["constant", "cosine"] = "constant"
    """What the learning rate does after the warm-up; cosine falls to 0 at the last step."""

    clip: float = 1.0
    """Largest norm of the gradient of all that is trained, to which it is scaled down; 0 switches this off."""

    def __post_init__(self) -> None:
        check_at_least(self, 0, "lr", "weight_decay", "warmup_steps", "clip")


@dataclass(frozen=True, kw_only=True)
class TrainSettings(RunSettings):
    """A run whose stage may train in several processes."""

    devices: int = 1
    """Processes that train together, each on a device of its own. A step takes devices x loop.accumulate x
    loop.batch_size examples; as long as that product stays, a run may be resumed on another number of devices."""

    strategy: Literal["auto", "ddp", "deepspeed-2", "deepspeed-3"] = "auto"
    """How the processes share the work. auto: ddp for several. ddp: each holds everything. deepspeed-2: the optimizer's
    states and the gradients are shared out (ZeRO-2). deepspeed-3: the weights too (ZeRO-3). Both want adamw: any other
    optimizer would see slices of all weights in one row."""

    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    """The optimizer."""

    loop: LoopSettings = field(default_factory=LoopSettings)
    """The training loop."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "devices")
        if self.strategy.startswith("deepspeed") and self.optimizer.name != "adamw":
            raise InputError(
                f"optimizer.name: expected adamw with strategy: {self.strategy}, got {self.optimizer.name}"
            )

    def check_unsharded(self, what: str) -> None:
        """Raises InputError where the strategy shares out weights or states. what: that cannot do with it."""
        if self.strategy not in ("auto", "ddp"):
            raise InputError(f"strategy: expected auto or ddp for {what}, got {self.strategy}")


@dataclass(frozen=True, kw_only=True)
class DrawingSettings:
    """What draws and what scores."""

    generator: str | None = None
    """The generator, by folder or ID[@REVISION] on the Hub; null means RUN/parts/generator."""

    generator_options: dict[str, Any] = field(default_factory=dict)
    """What the generator is loaded with, arguments of `prip.generators.load_generator`: steps, guidance, scheduler and
    batch_size of a diffusion pipeline, say."""

    rewards: tuple[str, ...] = ()
    """The rewards, each a folder, ID[@REVISION] on the Hub or a registered name (NAME, NAME@REVISION,
    NAME=PLACE@REVISION); empty means every folder in RUN/parts/rewards."""

    def generator_place(self, run: Path) -> str:
        """Returns the folder or the Hub id of the generator."""
        return self.generator or str(run / "parts" / "generator")

    def reward_places(self, run: Path) -> list[str]:
        """Returns the rewards, those in the run's folder where none is named; none where there is no such folder."""
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
