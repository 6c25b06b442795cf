"""A stage of prip-train under a watch: what a step of it takes, in which phases, and how much arithmetic it is."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks.paper_scale.parts import Device
from prip.training.rl.stage import RlModule
from prip.training.warmup.decoder import DecoderModule
from prip.training.warmup.encoder import EncoderModule

COUNTED = 1
"""The step whose FLOPs are counted; the one before it fills caches and makes the optimizer's state."""
UNTIMED = 2
"""Steps before those that are timed."""


class FlopCount(TorchDispatchMode):
    """Adds up the FLOPs of what runs inside, by torch's own formulas; torch's counter, which also tells modules apart,
    does not stand all that the stages do without gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=result)
        return result


class Watch:
    """Seconds and peak memory of steps, and of phases inside them; FLOPs of one step that is not timed."""

    def __init__(self, device: Device, backward: float) -> None:
        """backward: FLOPs of the backward pass, as a multiple of those counted."""
        self.device, self.backward = device, backward
        self.step = -1
        self.seconds: list[float] = []
        self.phases: dict[str, dict[int, float]] = {}
        self.peaks: dict[str, float] = {}
        self.flops: dict[str, float] = {}
        self.peak = 0.0
        self._ended = 0.0

    @property
    def timed(self) -> bool:
        """Whether the present step counts."""
        return self.step >= UNTIMED

    def begin(self) -> None:
        """A step begins."""
        self.step += 1
        if self.step == UNTIMED:
            self._ended = self.device.now()
            self.device.forget_peak()

    def end(self) -> None:
        """A step is done: its time is that since the one before was, its batch's making included."""
        now = self.device.now()
        if self.timed:
            self.seconds.append(now - self._ended)
            self.peak = max(self.peak, self.device.peak_gib())
        self._ended = now

    @contextmanager
    def counting(self, name: str = "") -> Iterator[None]:
        """Counts what is computed inside, in the step whose FLOPs are counted."""
        if self.step != COUNTED:
            yield
            return
        with FlopCount() as counter:
            yield
        self.flops[name] = self.flops.get(name, 0.0) + counter.total

    def phase(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function that does the same as a phase of the step, which must not lie in another."""

        def call(*args: Any, **kwargs: Any) -> Any:
            began = self.device.now()
            self.peak = max(self.peak, self.device.peak_gib()) if self.timed else 0.0
            self.device.forget_peak()
            with self.counting(name):
                result = function(*args, **kwargs)
            if self.timed:
                spent = self.phases.setdefault(name, {})
                spent[self.step] = spent.get(self.step, 0.0) + self.device.now() - began
                self.peaks[name] = max(self.peaks.get(name, 0.0), self.device.peak_gib())
                self.peak = max(self.peak, self.peaks[name])
            return result

        return call

    def figures(self, examples: int) -> dict[str, Any]:
        """What a step takes: examples, seconds (median), peak GiB, and FLOPs where they were counted."""
        flops = sum(self.flops.values()) * (1 + self.backward)
        return figures(self.device, examples, statistics.median(self.seconds), self.peak, flops)

    def phase_figures(self, examples: int) -> dict[str, dict[str, Any]]:
        """The same of each phase, and of what lies between them."""
        found = {
            name: figures(
                self.device,
                examples,
                statistics.median(spent.values()),
                self.peaks[name],
                self.flops.get(name, 0.0) * (1 + self.backward),
            )
            for name, spent in self.phases.items()
        }
        rest = statistics.median(self.seconds) - sum(own["seconds"] for own in found.values())
        return found | {"all else": figures(self.device, examples, max(rest, 0.0), None, 0.0)}


def figures(device: Device, examples: int, seconds: float, peak: float | None, flops: float) -> dict[str, Any]:
    """A row: MFU is the rate of the FLOPs against the device's peak in bf16, null where either is not known."""
    return {
        "examples": examples,
        "seconds": seconds,
        "peak_gib": peak,
        "flops": flops or None,
        "mfu": flops / seconds / device.peak if flops and seconds and device.peak else None,
    }


class _Watched:
    """Goes before a StageModule among a class's bases: steps are watched; no dev split is measured, no part kept."""

    starts_trained = False
    watch: Watch

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.watch.begin()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.watch.end()

    def evaluate(self) -> dict[str, float]:
        return {"unmeasured": 0.0}

    def export(self, folder: Path) -> None:
        """Writes nothing."""


class _WatchedWarmUp(_Watched):
    """A stage whose every step reads one batch, which is made beforehand."""

    made: dict[str, Any]

    def batch_at(self, step: int) -> dict[str, Any]:
        return dict(self.made)

    def training_step(self, batch: Any, step: int) -> Any:
        with self.watch.counting():
            return super().training_step(batch, step)  # type: ignore[misc]


class WatchedEncoder(_WatchedWarmUp, EncoderModule):
    """Stage 1."""


class WatchedDecoder(_WatchedWarmUp, DecoderModule):
    """Stage 2."""


class _WatchedReward:
    """A reward whose calls are a phase."""

    def __init__(self, reward: Any, watch: Watch) -> None:
        self.reward, self.name = reward, reward.name
        self.call = watch.phase("score", reward)

    def __call__(self, user_prompts: Any, images: Any) -> Any:
        return self.call(user_prompts, images)


class WatchedRl(_Watched, RlModule):
    """Stage 3, in four phases: refine, draw, score, and update, with the log-probabilities that it needs."""

    def under(self, watch: Watch) -> WatchedRl:
        """Watches; returns itself."""
        self.watch = watch
        scorer, refiner = self.scorer, self.policy.refiner
        scorer.rewards = [_WatchedReward(reward, watch) for reward in scorer.rewards]
        phases = ("refine", refiner, "actions"), ("draw", scorer, "draw")
        for phase, owner, method in (*phases, ("update", self, "experience"), ("update", self, "learn")):
            setattr(owner, method, watch.phase(phase, getattr(owner, method)))
        return self

    def on_train_start(self) -> None:
        """Leaves the frozen parts' hashes, which a run takes once, out of it."""

    def on_train_end(self) -> None:
        """Neither compares them."""
