"""The diffusers generator on a tiny Stable Diffusion with random weights."""

from __future__ import annotations

import logging

import pytest
import torch

from prip.errors import CheckpointError
from prip.generators import load_generator
from prip.protocols import Generator

diffusers = pytest.importorskip("diffusers", reason="the generate extra is not installed")

PROMPTS = ["a cat in town", "one robot, golden hour", "a cat in town"]


@pytest.fixture(scope="module")
def generator():
    from tiny_diffusion import tiny_pipeline

    from prip.generators.diffusion import DiffusersGenerator, DrawingOptions
    from prip.training.settings import UnetSizes
    from prip.training.world.generator import train_text_tokenizer

    torch.manual_seed(0)
    tokenizer = train_text_tokenizer(PROMPTS, UnetSizes(vocab_size=300, max_tokens=32))
    pipeline = tiny_pipeline(tokenizer, patch_size=8)
    return DiffusersGenerator(pipeline, DrawingOptions(steps=3, guidance=2.0, batch_size=2))


def test_an_image_depends_on_its_prompt_and_seed_alone(generator):
    assert isinstance(generator, Generator)
    images = generator(PROMPTS, [5, 6, 5])
    assert images.shape == (3, 3, 32, 32) and images.dtype == torch.uint8
    difference = (images[0].int() - images[2].int()).abs().max()
    assert difference <= 1, "a pair gives the same image wherever it stands, to one rounding step"
    assert not torch.equal(images[0], generator(PROMPTS[:1], [8])[0])
    assert generator([], []).shape == (0, 3, 32, 32)
    with pytest.raises(ValueError, match="seeds"):
        generator(PROMPTS, [1])


def test_a_sampler_that_adds_noise_takes_it_from_the_seed(generator, tmp_path):
    generator.save_pretrained(tmp_path)
    ancestral = load_generator(str(tmp_path))
    scheduler = ancestral.pipeline.scheduler
    ancestral.pipeline.scheduler = diffusers.EulerAncestralDiscreteScheduler.from_config(scheduler.config)
    images = ancestral(PROMPTS, [5, 6, 5])
    torch.manual_seed(1)
    again = ancestral(PROMPTS[::-1], [5, 6, 5]).flip(0)
    assert (images.int() - again.int()).abs().max() <= 1
    assert not torch.equal(images[0], ancestral(PROMPTS[:1], [8])[0])


def test_a_cut_prompt_is_not_logged_at_length(generator, caplog):
    told = []
    for name in ("transformers", "diffusers"):
        logger = logging.getLogger(name)
        logger.addHandler(caplog.handler)
        told.append(logger)
    try:
        generator.pipeline.tokenizer.deprecation_warnings.clear()
        long = "a cat in town " * 20
        generator([long], [1])
        assert caplog.records == []
        logging.getLogger(type(generator.pipeline).__module__).warning("something else")
        generator.pipeline.encode_prompt(long, "cpu", 1, False)
    finally:
        for logger in told:
            logger.removeHandler(caplog.handler)
    messages = [record.getMessage() for record in caplog.records]
    assert messages[0] == "something else" and any("was truncated" in message for message in messages[1:])


def test_progress_is_shown_where_it_is_asked_for(generator, capsys):
    generator.show_progress("plain")
    generator(PROMPTS[:1], [1])
    assert "plain:   0%" in capsys.readouterr().err
    generator.show_progress(None)
    generator(PROMPTS[:1], [1])
    assert capsys.readouterr().err == ""


@pytest.mark.gpu
def test_a_gpu_draws_what_the_cpu_draws(generator, tmp_path):
    generator.save_pretrained(tmp_path)
    images = load_generator(str(tmp_path), device="cuda")(PROMPTS, [5, 6, 5])
    assert (images.int() - generator(PROMPTS, [5, 6, 5]).int()).abs().max() <= 2


def test_nothing_trains_and_tokens_are_counted(generator):
    parts = [part for part in generator.pipeline.components.values() if isinstance(part, torch.nn.Module)]
    assert parts and not any(parameter.requires_grad for part in parts for parameter in part.parameters())
    assert generator.token_limit == 30
    assert generator.count_tokens("a cat in town") == 4


def test_it_saves_and_loads_with_its_sampling(generator, tmp_path):
    generator.save_pretrained(tmp_path)
    loaded = load_generator(str(tmp_path))
    assert (loaded.steps, loaded.guidance) == (3, 2.0)
    assert torch.equal(loaded(PROMPTS, [1, 2, 3]), generator(PROMPTS, [1, 2, 3]))
    assert load_generator(str(tmp_path), steps=2).steps == 2
    with pytest.raises(CheckpointError, match="no diffusers pipeline"):
        load_generator(str(tmp_path / "unet" / "nothing"))


def test_mini_images_are_those_of_noise_drawn_by_key(generator):
    """What prip-mini's figures were measured on: initial noise by the key ("latents", seed)."""
    from prip.randomness import random_generator

    latents = torch.stack([torch.randn(16, 4, 4, generator=random_generator("latents", seed)) for seed in (5, 6)])
    images = generator.pipeline(
        prompt=PROMPTS[:2],
        latents=latents,
        generator=[random_generator("steps", seed) for seed in (5, 6)],
        num_inference_steps=3,
        guidance_scale=2.0,
        output_type="pt",
    ).images
    assert torch.equal(generator(PROMPTS[:2], [5, 6]), (images.clamp(0, 1) * 255).round().to(torch.uint8))


def test_the_autoencoder_keeps_what_its_components_span():
    from prip.generators.autoencoder import PatchAutoencoder

    torch.manual_seed(0)
    basis = torch.randn(6, 3 * 8 * 8)
    images = (torch.randn(40 * 16, 6) @ basis).view(40, 16, 192).transpose(1, 2)
    images = torch.nn.functional.fold(images, 32, 8, stride=8)
    autoencoder = PatchAutoencoder(8, 6)
    assert autoencoder.fit(images) == pytest.approx(1, abs=1e-4)
    latents = autoencoder.encode(images)
    assert latents.shape == (40, 6, 4, 4) and float(latents.var()) == pytest.approx(1, rel=0.05)
    torch.testing.assert_close(autoencoder.decode(latents).sample, images, rtol=1e-3, atol=1e-2)
    with pytest.raises(ValueError, match="power of two"):
        PatchAutoencoder(6)


def test_a_saved_pipeline_does_not_tell_where_it_was_loaded_from(generator, tmp_path):
    generator.save_pretrained(tmp_path / "first")
    load_generator(str(tmp_path / "first"), device="cpu").save_pretrained(tmp_path / "second")
    saved = sorted((tmp_path / "second").rglob("*.json"))
    assert len(saved) > 4 and not [path for path in saved if str(tmp_path) in path.read_text(encoding="utf-8")]
    again = load_generator(str(tmp_path / "second"), device="cpu")
    assert torch.equal(again(PROMPTS, [1, 2, 3]), generator(PROMPTS, [1, 2, 3]))
