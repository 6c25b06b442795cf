"""`prip-train stand-ins`: small models with random weights in the paper's places, and a small DiffusionDB.

Every architecture is the real one, so that the other stages run on them as they will on the published weights: a
rehearsal of a preset without a download.
"""

from __future__ import annotations

import logging
from typing import Any

import pandas as pd

from prip.files import replace_folder
from prip.generators import load_generator
from prip.loading.strict import quiet
from prip.miniature.prompts import system_prompt
from prip.randomness import random_generator

from ..data.diffusiondb import Sampling
from ..data.drawing import draw_all, plan_drawings
from ..runs.run_folder import stage_folder, write_metrics
from ..runs.seeds import seed_everything
from ..settings import StandInsSettings
from .language import write_llama, write_t5
from .pictures import write_blip2, write_reward, write_stable_diffusion

STAGE = "stand-ins"
REWARDS = ("image-reward", "hps-v2.0", "clip-score", "aesthetic")
_log = logging.getLogger(__name__)


def run(settings: StandInsSettings) -> dict[str, Any]:
    """Writes RUN/parts and RUN/diffusiondb; returns the names of the parts and how many images were drawn."""
    folder = stage_folder(settings, STAGE)
    texts = sorted({system_prompt("train", random_generator(STAGE, settings.seed, i)) for i in range(200)})
    writers: dict[str, Any] = {
        "t5": lambda place: write_t5(place, texts),
        "llama": lambda place: write_llama(place, texts),
        "pivot_encoder": write_blip2,
        "generator": lambda place: write_stable_diffusion(place, settings.image_size),
    }
    writers |= {f"rewards/{name}": lambda place, name=name: write_reward(place, name) for name in REWARDS}
    for name, write in writers.items():
        seed_everything(settings.seed, STAGE, name)
        with quiet():
            replace_folder(settings.run / "parts" / name, write)
    prompts = pd.DataFrame({"prompt": texts[: settings.prompts], "split": "train"})
    generator = load_generator(str(settings.run / "parts" / "generator"), device="cpu", steps=1, guidance=1.0)
    plan = plan_drawings(prompts, "user", settings.images_per_prompt, settings.seed)
    drawn = draw_all(plan, generator, Sampling(1, 1.0), settings.run / "diffusiondb", 16, settings.progress)
    metrics = {"stage": STAGE, "parts": list(writers), "images": drawn}
    write_metrics(folder, metrics)
    _log.info("stand-ins: %s, and %d images, in %s", ", ".join(writers), drawn, settings.run)
    return metrics
