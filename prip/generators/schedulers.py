"""Samplers of diffusion pipelines by name."""

from __future__ import annotations

import inspect
from typing import Any

from ..errors import InputError, require

STORED = "stored"
"""The name of the sampler that a pipeline comes with."""

DEFAULT = "dpm-solver++"
"""For a pipeline that does not say how PRIP is to sample it; one that matches flows keeps its own."""

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
"""Short names, each with the scheduler of diffusers and what it is made with besides the pipeline's own settings."""


def matches_flows(scheduler: Any) -> bool:
    """Returns whether a pipeline's sampler integrates a flow rather than removing noise."""
    return "FlowMatch" in type(scheduler).__name__ or bool(scheduler.config.get("use_flow_sigmas"))


def make_scheduler(name: str, present: Any) -> Any:
    """Returns the sampler `name`, a key of SCHEDULERS or a class of diffusers, for the noise schedule of `present`.

    Raises InputError for a name that is neither, and for a sampler of noise where the pipeline matches flows.
    """
    if name == STORED:
        return present
    diffusers = require("diffusers", "generate")
    class_name, options = SCHEDULERS.get(name, (name, {}))
    kind: Any = getattr(diffusers, class_name, None)
    is_scheduler = inspect.isclass(kind) and issubclass(kind, diffusers.SchedulerMixin)
    if not is_scheduler:
        known = ", ".join([STORED, *SCHEDULERS])
        raise InputError(f"scheduler: wanted {known} or the name of a scheduler of diffusers, got {name!r}")
    takes = inspect.signature(kind.__init__).parameters
    options = dict(options)
    if matches_flows(present) and "FlowMatch" not in class_name:
        if "use_flow_sigmas" not in takes:
            raise InputError(f"scheduler: {name!r} removes noise, but the pipeline matches flows")
        options |= {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
        options["flow_shift"] = present.config.get("flow_shift", present.config.get("shift", 1.0))
    if present.config.get("beta_schedule") == "squaredcos_cap_v2" and "lambda_min_clipped" in takes:
        options["lambda_min_clipped"] = -5.1  # the cosine schedule ends in pure noise, where its logarithm diverges
    made: Any = kind
    return made.from_config(present.config, **options)
