"""DeepFloyd-IF with its second stage, on small random-weight pipelines: 16 pixels a side become 32."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_parts import USER_PROMPTS

from prip.errors import CheckpointError, InputError
from prip.generators import load_generator

pytest.importorskip("diffusers", reason="the generate extra is not installed")

PROMPTS = [USER_PROMPTS[0], "a dog on the beach, golden hour", USER_PROMPTS[0]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[str, str]:
    """Both stages as they are on the Hub, the second with a text encoder of its own too."""
    from tiny_pipelines import deepfloyd_if, deepfloyd_if_upscaler

    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("if")
    deepfloyd_if().save_pretrained(root / "one")
    deepfloyd_if_upscaler().save_pretrained(root / "two")
    return str(root / "one"), str(root / "two")


def load(folders: tuple[str, str], **options):
    return load_generator(folders[0], **{"upscaler": folders[1], "device": "cpu", "steps": 2, **options})


@pytest.mark.parametrize("scheduler", ["stored", None])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_an_image_does_not_depend_on_its_batch(folders, scheduler: str | None, guidance: float) -> None:
    generator = load(folders, scheduler=scheduler, guidance=guidance)
    images = generator(PROMPTS, [1, 2, 1])
    assert images.shape == (3, 3, 32, 32) and images.dtype == torch.uint8
    assert (images[0].int() - images[2].int()).abs().max() <= 1
    torch.manual_seed(7)
    assert (generator(PROMPTS[1:2], [2])[0].int() - images[1].int()).abs().max() <= 1
    assert not torch.equal(generator(PROMPTS[:1], [3])[0], images[0])
    assert generator([], []).shape == (0, 3, 32, 32)


def test_the_second_stage_reads_the_embeddings_and_the_image_of_the_first(folders) -> None:
    from diffusers import IFPipeline, IFSuperResolutionPipeline

    from prip.generators.seeded import seeded

    generator = load(folders, scheduler="stored")
    images = generator(PROMPTS[1:2], [2])
    one = IFPipeline.from_pretrained(folders[0])
    two = IFSuperResolutionPipeline.from_pretrained(folders[1], text_encoder=None)
    prompt, negative = one.encode_prompt(PROMPTS[1])
    embeddings = {"prompt_embeds": prompt, "negative_prompt_embeds": negative, "num_inference_steps": 2}
    with seeded(one, [2]) as generators:
        small = one(**embeddings, guidance_scale=7.0, generator=generators, output_type="pt").images
    assert small.shape == (1, 3, 16, 16)
    with seeded(two, [2], ("upscaler latents", "upscaler steps")) as generators:
        large = two(**embeddings, image=small, guidance_scale=4.0, generator=generators, output_type="np").images
    wanted = (torch.from_numpy(large).permute(0, 3, 1, 2) * 255).round()
    assert (images.int() - wanted.int()).abs().max() <= 1
    assert len(generator._encodings) == 1, "encoded once for both stages"
    assert generator.upscaler.pipeline.text_encoder is None


def test_sizes_are_those_of_the_last_stage(folders) -> None:
    generator = load(folders, height=24, width=48)
    assert generator(PROMPTS[:1], [1]).shape == (1, 3, 24, 48)
    assert generator([], []).shape == (0, 3, 24, 48)
    with pytest.raises(InputError, match="width: expected a multiple of the upscaler's factor 2, got 17"):
        load(folders, width=17)


def test_both_stages_have_the_sampler_and_the_settings(folders) -> None:
    generator = load(folders, dtype="bf16", channels_last=True)
    second = generator.upscaler.pipeline
    assert type(second.scheduler).__name__ == "DPMSolverMultistepScheduler"
    assert type(second.image_noising_scheduler).__name__ == "DDPMScheduler", "not a sampler"
    assert {parameter.dtype for parameter in second.unet.parameters()} == {torch.bfloat16}
    assert second.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    assert not any(parameter.requires_grad for parameter in second.unet.parameters())
    plain = load(folders, upscaler=None)
    assert generator.sampling.startswith(f"{plain.sampling}, upscaled by {folders[1]}: guidance 4.0, DPMSolver")
    assert generator.to("meta").upscaler.pipeline.unet.device.type == "meta"


def test_what_does_not_fit_is_refused(folders, tmp_path: Path) -> None:
    from tiny_pipelines import deepfloyd_if_upscaler, stable_diffusion, unet

    from prip.generators.diffusion import DiffusersGenerator
    from prip.generators.pipelines import Upscaler

    with pytest.raises(InputError, match="expected an IFSuperResolutionPipeline, got IFPipeline"):
        load(folders, upscaler=folders[0])
    with pytest.raises(CheckpointError, match="upscaler: no diffusers pipeline at"):
        load(folders, upscaler=str(tmp_path / "nothing"))
    with pytest.raises(InputError, match="expected an IFPipeline as generator, got StableDiffusionPipeline"):
        DiffusersGenerator(stable_diffusion(), upscaler=Upscaler(deepfloyd_if_upscaler()))
    odd = deepfloyd_if_upscaler()
    odd.unet = unet(6, sample_size=24, num_class_embeds=1000)
    with pytest.raises(InputError, match="expected a multiple of the first stage's size 16, got 24"):
        DiffusersGenerator(load(folders).pipeline, upscaler=Upscaler(odd))
    with pytest.raises(InputError, match="cannot be saved as one pipeline"):
        load(folders).save_pretrained(tmp_path / "saved")
