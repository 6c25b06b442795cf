"""Samplers of diffusion pipelines by name."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from ..errors import InputError, require

if TYPE_CHECKING:
    from diffusers import SchedulerMixin

STORED = "stored"
"""Name of a pipeline's own sampler."""

DEFAULT = "dpm-solver++"
"""Sampler of published pipelines; those that match flows keep their own."""

SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    DEFAULT: ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "sde-dpm-solver++": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "solver_order": 2}),
    "ddim": ("DDIMScheduler", {}),
    "ddpm": ("DDPMScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler-ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "lcm": ("LCMScheduler", {}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "unipc": ("UniPCMultistepScheduler", {}),
}
"""Class of diffusers by short name, and the settings that override the pipeline's own."""


def matches_flows(scheduler: Any) -> bool:
    """Return whether a sampler integrates a flow rather than removing noise."""
    return "FlowMatch" in type(scheduler).__name__ or bool(scheduler.config.get("use_flow_sigmas"))


def make_scheduler(name: str, present: Any) -> SchedulerMixin:
    """Make a sampler for a pipeline.

    Args:
        name: A key of SCHEDULERS, a class of diffusers, or STORED.
        present: The pipeline's own sampler, whose noise schedule is kept.

    Raises:
        InputError: If there is no such sampler, or it removes noise and the pipeline matches flows.
    """
    if name == STORED:
        return present
    diffusers = require("diffusers", "generate")
    class_name, options = SCHEDULERS.get(name, (name, {}))
    kind: Any = getattr(diffusers, class_name, None)
    is_scheduler = inspect.isclass(kind) and issubclass(kind, diffusers.SchedulerMixin)
    if not is_scheduler:
        known = ", ".join([STORED, *SCHEDULERS])
        raise InputError(f"scheduler: expected {known} or a scheduler class of diffusers, got {name!r}")
    takes = inspect.signature(kind.__init__).parameters
    options = dict(options)
    if matches_flows(present) and "FlowMatch" not in class_name:
        if "use_flow_sigmas" not in takes:
            raise InputError(f"scheduler: expected one for flow matching, as the pipeline has, got {name!r}")
        options |= {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
        options["flow_shift"] = present.config.get("flow_shift", present.config.get("shift", 1.0))
    if present.config.get("beta_schedule") == "squaredcos_cap_v2" and "lambda_min_clipped" in takes:
        options["lambda_min_clipped"] = -5.1  # the log-SNR diverges where the cosine schedule ends in pure noise
    return kind.from_config(present.config, **options)
