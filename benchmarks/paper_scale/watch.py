"""Instrumented stages of prip-train: seconds, memory and FLOPs of a step and of its phases."""

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
"""Step whose FLOPs are counted; the one before fills caches and creates the optimizer's state."""
UNTIMED = 2
"""Steps before the timed ones."""


class FlopCount(TorchDispatchMode):
    """Sums FLOPs by torch's own formulas; torch's FlopCounterMode, which also tracks modules, fails on what the stages
    run without gradients."""

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
    """Measures seconds and peak memory of steps and their phases, and the FLOPs of one untimed step."""

    def __init__(self, device: Device, backward: float) -> None:
        """Count the backward pass as `backward` times the counted FLOPs."""
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
        """Whether the current step is timed."""
        return self.step >= UNTIMED

    def begin(self) -> None:
        """Begin a step."""
        self.step += 1
        if self.step == UNTIMED:
            self._ended = self.device.now()
            self.device.forget_peak()

    def end(self) -> None:
        """End a step; its time is that since the end of the previous one, including its batch."""
        now = self.device.now()
        if self.timed:
            self.seconds.append(now - self._ended)
            self.peak = max(self.peak, self.device.peak_gib())
        self._ended = now

    @contextmanager
    def counting(self, name: str = "") -> Iterator[None]:
        """Count the FLOPs computed inside, if this is the counted step."""
        if self.step != COUNTED:
            yield
            return
        with FlopCount() as counter:
            yield
        self.flops[name] = self.flops.get(name, 0.0) + counter.total

    def phase(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function as a phase of the step; phases must not be nested."""

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
        """Return the figures of a step: examples, median seconds, peak GiB, and FLOPs."""
        flops = sum(self.flops.values()) * (1 + self.backward)
        return figures(self.device, examples, statistics.median(self.seconds), self.peak, flops)

    def phase_figures(self, examples: int) -> dict[str, dict[str, Any]]:
        """Return the same of each phase, and of the time between them."""
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
    """Return a row; MFU is the FLOP/s relative to the device's bf16 peak, None if either is unknown."""
    return {
        "examples": examples,
        "seconds": seconds,
        "peak_gib": peak,
        "flops": flops or None,
        "mfu": flops / seconds / device.peak if flops and seconds and device.peak else None,
    }


class _Watched:
    """Mixin before a StageModule: watches its steps, and neither validates nor exports."""

    starts_trained = False
    watch: Watch

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.watch.begin()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.watch.end()

    def evaluate(self) -> dict[str, float]:
        return {"unmeasured": 0.0}

    def export(self, folder: Path) -> None:
        """Write nothing."""


class _WatchedWarmUp(_Watched):
    """A stage whose steps all read one batch made in advance."""

    made: dict[str, Any]

    def batch_at(self, step: int) -> dict[str, Any]:
        return dict(self.made)

    def training_step(self, batch: Any, step: int) -> Any:
        with self.watch.counting():
            return super().training_step(batch, step)  # type: ignore[misc]


class WatchedEncoder(_WatchedWarmUp, EncoderModule):
    """The encoder warm-up."""


class WatchedDecoder(_WatchedWarmUp, DecoderModule):
    """The decoder warm-up."""


class _WatchedReward:
    """A reward whose calls are a phase."""

    def __init__(self, reward: Any, watch: Watch) -> None:
        self.reward, self.name = reward, reward.name
        self.call = watch.phase("score", reward)

    def __call__(self, user_prompts: Any, images: Any) -> Any:
        return self.call(user_prompts, images)


class WatchedRl(_Watched, RlModule):
    """RL in four phases: refine, draw, score, and update with its log-probabilities."""

    def under(self, watch: Watch) -> WatchedRl:
        """Watch this module; return it."""
        self.watch = watch
        scorer, sampler = self.context.scorer.images, self.context.policy.refiner.sampler
        scorer.rewards = [_WatchedReward(reward, watch) for reward in scorer.rewards]
        phases = ("refine", sampler, "sample"), ("refine", sampler, "sample_under_masks"), ("draw", scorer, "draw")
        for phase, owner, method in (*phases, ("update", self, "experience"), ("update", self, "learn")):
            setattr(owner, method, watch.phase(phase, getattr(owner, method)))
        return self

    def on_train_start(self) -> None:
        """Skip the fingerprints of the frozen parts, which a run computes once."""

    def on_train_end(self) -> None:
        """Skip their comparison."""
