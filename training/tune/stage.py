"""Tune the generator itself on the rewards by reward feedback learning (ReFL: Xu et al. 2023, Algorithm 1).

A step draws prompts without gradient up to one of the sampler's last steps, and trains the denoiser on the rewards of
the image that it predicts there (the pull). Anchors, images drawn by the untuned generator, keep it in place: it must
denoise them as well as before. Algorithm 1 alternates the two losses; here they are added.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from prip.files import hash_of_texts
from prip.fingerprints import check_unchanged, fingerprints, freeze
from prip.randomness import random_generator

from ..engine.loop import train
from ..engine.optimizers import scheduled_optimizer, train_only
from ..engine.stage_module import StageModule
from ..engine.step_order import StepOrder
from ..rollouts.image_scorer import drawing_inputs
from ..rollouts.offloading import move
from ..runs.pinned_settings import pin_tune
from ..runs.preview import Column, write_preview
from ..runs.processes import process_rank
from ..runs.run_folder import stage_folder
from ..runs.seeds import DEV_SEED, derive_seed, permutation_indices
from ..settings import TuneSettings
from . import refl
from .diffusion import TunableDiffusion
from .parts import STAGE, Anchors, TuneParts, load_tune_parts, read_or_draw_anchors, scored_for


class TuneModule(StageModule):
    """The reward loss and the anchor loss of the denoiser. All other parts are frozen, and no submodules."""

    stage = STAGE
    starts_trained = True

    def __init__(
        self, tunable: TunableDiffusion, parts: TuneParts, anchors: Anchors, settings: TuneSettings, folder: Path
    ) -> None:
        super().__init__()
        self.tunable, self.parts, self.anchors, self.settings, self.folder = tunable, parts, anchors, settings, folder
        self.total, self.loop = parts.total, settings.loop
        self.frozen = {**tunable.frozen, **{f"reward {reward.name}": reward for reward in parts.rewards}}
        for part in self.frozen.values():
            freeze(part)
        self.denoiser = tunable.denoiser
        self.trained = train_only(self, "denoiser.*")
        if settings.gradient_checkpointing:
            self.denoiser.enable_gradient_checkpointing()  # type: ignore[operator]
        self.prompts = list(dict.fromkeys(parts.train_prompts(settings.pull.prompts)))
        shape = self.loop.batch_size, self.loop.accumulate, settings.seed
        self.order = StepOrder(len(self.prompts), *shape, self.stage)
        self.anchor_order = StepOrder(len(anchors), *shape, f"{self.stage}/anchors")
        dev = list(dict.fromkeys(parts.user_prompts["dev"]))
        chosen = permutation_indices(0, min(settings.dev.prompts, len(dev)), len(dev), self.stage, "dev")
        self.dev_prompts = [dev[index] for index in chosen]
        self.previewed = self.dev_prompts[: settings.dev.preview_prompts]
        self.untuned = tunable.generator(self.previewed, [DEV_SEED] * len(self.previewed))
        self._before: dict[str, str] = {}
        self.train(False)

    def train(self, mode: bool = True) -> TuneModule:
        """Stay in eval mode, in which the generator draws."""
        super().train(False)
        return self

    def on_fit_start(self) -> None:
        self.tunable.to(self.device)
        move(list(self.parts.rewards), self.device)

    def on_train_start(self) -> None:
        self._before = fingerprints(self.frozen)

    def on_train_end(self) -> None:
        check_unchanged(self.stage, self.frozen, self._before)

    def batch_at(self, step: int) -> dict[str, Any]:
        """Return this process's share of a batch.

        Returns:
            prompts and seeds (n,) to draw, the sampler_step with a gradient, and the indices of the anchors (n,) with
            whether each keeps its prompt (with_prompt) and the seed of its noise and timestep (noise_seeds).
        """
        step, part = divmod(step, self.loop.accumulate)
        processes, settings = self.trainer.world_size, self.settings
        seed = derive_seed(settings.seed, self.stage, step, 0)
        chance = random.Random(seed)
        indices, anchors = self.order.examples(step, processes), self.anchor_order.examples(step, processes)
        steps = self.tunable.steps()
        sampler_step = chance.randrange(max(0, steps - settings.pull.last_steps), steps)
        seeds = [derive_seed(seed, "image", number) for number in range(len(indices))]
        kept = [chance.random() >= settings.anchor.prompt_dropout for _ in anchors]
        noise_seeds = [derive_seed(seed, "noise", number) for number in range(len(anchors))]
        share = self.order.share(part, self.global_rank, processes)
        return {
            "prompts": [self.prompts[index] for index in indices[share]],
            "seeds": seeds[share],
            "sampler_step": sampler_step,
            "anchors": anchors[share],
            "with_prompt": kept[share],
            "noise_seeds": noise_seeds[share],
        }

    def training_step(self, batch: dict[str, Any], step: int) -> Tensor:
        settings = self.settings
        noisy = self.tunable.draw(batch["prompts"], batch["seeds"], batch["sampler_step"])
        user_prompts = scored_for(batch["prompts"], settings.pull.prompts)
        rewards = self.total.scores_with_gradient(user_prompts, self.tunable.images(noisy))
        pull = refl.pull_loss(rewards, settings.pull.cap)
        hold = self.anchor_loss(batch["anchors"], batch["with_prompt"], batch["noise_seeds"])
        self.log_step("reward", rewards.mean(), prog_bar=True)
        self.log_step("pull_loss", pull)
        self.log_step("anchor_loss", hold)
        return settings.pull.weight * pull + settings.anchor.weight * hold

    def anchor_loss(self, anchors: list[int], with_prompt: list[bool], noise_seeds: list[int]) -> Tensor:
        """Return the mean squared error of the denoiser on noisy anchors, at uniformly drawn timesteps."""
        clean = self.anchors.latents[anchors]
        shares = self.tunable.pipeline.scheduler.alphas_cumprod
        generators = [random_generator(STAGE, seed) for seed in noise_seeds]
        timesteps = torch.stack([torch.randint(len(shares), (), generator=generator) for generator in generators])
        noise = torch.stack([torch.randn(clean.shape[1:], generator=generator) for generator in generators])
        clean, timesteps, noise = (tensor.to(self.device) for tensor in (clean, timesteps, noise))
        kept = self.tunable.kept(timesteps)
        prompts = [self.anchors.prompts[i] if keep else "" for i, keep in zip(anchors, with_prompt, strict=True)]
        text = self.tunable.text(prompts, guided=False)
        predicted = self.tunable.denoise(refl.noisy_latents(clean, noise, kept), timesteps, text)
        target = refl.network_target(self.tunable.kind, clean, noise, kept)
        return torch.nn.functional.mse_loss(predicted.float(), target)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        return scheduled_optimizer(self.settings.optimizer, self.trained, self.loop)

    def evaluate(self) -> dict[str, float]:
        """Measure images of the dev split drawn with all steps and fixed seeds, and write a preview.

        Returns:
            dev_reward (the standardized sum), dev_reward_NAME of each reward, and dev_spread: the standard deviation of
            a pixel among the images of a prompt, in 0..255.
        """
        count = self.settings.dev.images_per_prompt
        seeds, together = list(range(DEV_SEED, DEV_SEED + count)), max(1, self.loop.batch_size // count)
        starts = range(0, len(self.dev_prompts), together)
        names = [reward.name for reward in self.parts.rewards]
        sums = torch.zeros(len(names) + 2, dtype=torch.float64)
        for prompts, counts in self.my_share([self.dev_prompts[start : start + together] for start in starts]):
            user_prompts = [prompt for prompt in prompts for _ in seeds]
            images = self.tunable.generator(user_prompts, seeds * len(prompts))
            scores = self.total.parts(user_prompts, images)
            spread = images.unflatten(0, (-1, count)).double().std(dim=1, correction=0).flatten(1).mean(dim=1)
            columns = [self.total.combine(scores), *(scores[name] for name in names)]
            if counts:
                sums += torch.stack([*(column.double().sum() / count for column in columns), spread.sum()])
        means = (self.summed(sums) / len(self.dev_prompts)).tolist()
        if self.previewed and self.trainer.is_global_zero:
            self.preview(self.folder / "previews" / f"step-{self.trainer.global_step:06}.png")
        raw = {f"dev_reward_{name}": mean for name, mean in zip(names, means[1:-1], strict=True)}
        return {"dev_reward": means[0], **raw, "dev_spread": means[-1]}

    def preview(self, path: Path) -> None:
        """Write the picture: images of the untuned generator above those of the tuned one, with the gain."""
        tuned = self.tunable.generator(self.previewed, [DEV_SEED] * len(self.previewed))
        gains = (self.total(self.previewed, tuned) - self.total(self.previewed, self.untuned)).tolist()
        rows = zip(self.previewed, self.untuned, tuned, gains, strict=True)
        write_preview(path, [Column(prompt, "tuned", before, after, gain) for prompt, before, after, gain in rows])

    def export(self, folder: Path) -> None:
        """Write the whole pipeline, with the obedience of the untuned one, if it was measured."""
        self.tunable.generator.save_pretrained(folder)
        obedience = Path(self.settings.generator_source(self.settings.run)) / "obedience.json"
        if obedience.is_file():
            shutil.copy(obedience, folder / obedience.name)


def run(settings: TuneSettings, parts: TuneParts | None = None) -> dict[str, Any]:
    """Tune the generator and return the metrics; the best pipeline is in RUN/tune/part.

    `parts` replaces the parts that the settings name. Raise InputError if the generator or a reward cannot be used.
    """
    settings = pin_tune(settings)
    parts = parts or load_tune_parts(settings)
    tunable = TunableDiffusion(parts.generator)
    parts.total.check_differentiable()
    inputs = drawing_inputs(parts.generator, parts.rewards)
    inputs["user_prompts"] = hash_of_texts([*parts.user_prompts["train"], "", *parts.user_prompts["dev"]])
    inputs["system_prompts"] = hash_of_texts(parts.system_prompts)
    inputs["statistics"] = repr(parts.statistics)
    folder = stage_folder(settings, STAGE, inputs)
    anchors = read_or_draw_anchors(
        tunable,
        parts,
        settings.anchor,
        seed=settings.seed,
        batch_size=settings.loop.batch_size,
        path=folder / f"anchors{process_rank() or ''}.safetensors",
    )
    module = TuneModule(tunable, parts, anchors, settings, folder)
    clip = settings.optimizer.clip
    return train(module, settings, settings.loop, folder, monitor="dev_reward", mode="max", clip=clip)
