"""The generator on small random-weight pipelines of every family, with their own scheduler, text encoders and sizes."""

from __future__ import annotations

import functools

import pytest
import torch
from tiny_parts import USER_PROMPTS

from prip.errors import CheckpointError, InputError
from prip.generators import load_generator
from prip.generators.safety import blackened

pytest.importorskip("diffusers", reason="the generate extra is not installed")

PROMPTS = [USER_PROMPTS[0], "a dog on the beach, golden hour", USER_PROMPTS[0]]
SIZE = {"height": 16, "width": 16}


def make_generator(family: str, **options):
    from tiny_pipelines import FAMILIES

    from prip.generators.diffusion import DiffusersGenerator, DrawingOptions

    torch.manual_seed(0)
    return DiffusersGenerator(FAMILIES[family](), DrawingOptions(**{"steps": 2, "guidance": 3.0, **SIZE, **options}))


@pytest.fixture(scope="module")
def sd_folder(tmp_path_factory):
    """A Stable Diffusion as it is on the Hub: PNDM, a safety checker, no word of PRIP's."""
    from tiny_pipelines import stable_diffusion

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("sd")
    stable_diffusion().save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3", "flux", "if"])
def test_an_image_does_not_depend_on_its_batch(family):
    generator = make_generator(family)
    images = generator(PROMPTS, [1, 2, 1])
    assert images.shape == (3, 3, 16, 16) and images.dtype == torch.uint8
    assert (images[0].int() - images[2].int()).abs().max() <= 1
    assert (generator(PROMPTS[1:2], [2])[0].int() - images[1].int()).abs().max() <= 1
    assert not torch.equal(generator(PROMPTS[:1], [3])[0], images[0])
    assert generator([], []).shape == (0, 3, 16, 16)


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3", "flux", "if"])
def test_kept_embeddings_draw_what_the_pipeline_draws_from_the_prompts(family):
    generator = make_generator(family)
    images = generator(PROMPTS, [1, 2, 1])
    assert len(generator._encodings) == 2, "each distinct prompt is encoded once"
    generator._encodings = None
    assert (generator(PROMPTS, [1, 2, 1]).int() - images.int()).abs().max() <= 1


@pytest.mark.parametrize(
    ("family", "scheduler"),
    [("sd", "sde-dpm-solver++"), ("sd", "euler-ancestral"), ("if", "ddpm"), ("sdxl", "lcm"), ("flux", "dpm-solver++")],
)
def test_later_noise_comes_from_the_seed_too(family, scheduler):
    from prip.generators.schedulers import make_scheduler

    generator = make_generator(family, steps=3)
    generator.pipeline.scheduler = make_scheduler(scheduler, generator.pipeline.scheduler)
    images = generator(PROMPTS, [1, 2, 1])
    torch.manual_seed(7)
    again = torch.cat([generator(PROMPTS[1:2], [2]), generator(PROMPTS[:1], [1])])
    assert (again.int() - images[[1, 0]].int()).abs().max() <= 1


def test_a_scheduler_that_ignores_the_seeds_is_refused():
    from diffusers import FlowMatchEulerDiscreteScheduler

    generator = make_generator("sd3")
    generator.pipeline.scheduler = FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)
    with pytest.raises(InputError, match="FlowMatchEulerDiscreteScheduler draws random numbers"):
        generator(PROMPTS, [1, 2, 1])


def test_noise_is_the_same_at_every_dtype():
    from prip.generators.seeded import seeded

    pipeline = make_generator("sdxl").pipeline
    assert pipeline.scheduler.init_noise_sigma > 10, "noise is scaled before it is rounded"
    noise = {}
    for dtype in (torch.float32, torch.bfloat16):
        with seeded(pipeline, [1, 2]) as generators:
            noise[dtype] = pipeline.prepare_latents(2, 4, 16, 16, dtype, torch.device("cpu"), generators)
    assert noise[torch.bfloat16].dtype == torch.bfloat16 and noise[torch.float32].shape == (2, 4, 8, 8)
    assert torch.equal(noise[torch.float32].bfloat16(), noise[torch.bfloat16])


@pytest.mark.parametrize(("family", "limit"), [("sd", 22), ("sdxl", 22), ("sd3", 255), ("flux", 511), ("if", 76)])
def test_tokens_are_counted_by_the_encoder_that_reads_furthest(family, limit):
    generator = make_generator(family)
    assert generator.token_limit == limit
    tokenizer = getattr(generator.pipeline, {"sd3": "tokenizer_3", "flux": "tokenizer_2"}.get(family, "tokenizer"))
    assert generator.count_tokens("a cat") == len(tokenizer("a cat", add_special_tokens=False)["input_ids"])


def test_the_default_of_a_published_pipeline_is_dpm_solver(sd_folder, tmp_path):
    generator = load_generator(sd_folder, device="cpu")
    scheduler = generator.pipeline.scheduler
    assert type(scheduler).__name__ == "DPMSolverMultistepScheduler"
    assert scheduler.config.algorithm_type == "dpmsolver++" and scheduler.config.beta_schedule == "scaled_linear"
    assert (generator.steps, generator.guidance) == (20, 7.5)
    assert type(load_generator(sd_folder, scheduler="stored").pipeline.scheduler).__name__ == "PNDMScheduler"
    assert type(load_generator(sd_folder, scheduler="DDIMScheduler").pipeline.scheduler).__name__ == "DDIMScheduler"
    with pytest.raises(InputError, match="scheduler: expected stored, dpm-solver"):
        load_generator(sd_folder, scheduler="UNet2DModel")
    tuned = load_generator(sd_folder, device="cpu", scheduler="euler", steps=3, height=24, width=16)
    tuned.save_pretrained(tmp_path)
    loaded = load_generator(str(tmp_path), device="cpu")
    assert type(loaded.pipeline.scheduler).__name__ == "EulerDiscreteScheduler"
    assert (loaded.steps, loaded.height, loaded.width) == (3, 24, 16)
    assert loaded(PROMPTS[:1], [1]).shape == (1, 3, 24, 16) and loaded.sampling == tuned.sampling


def test_flow_matching_keeps_its_own_sampler(tmp_path):
    from prip.generators.schedulers import make_scheduler

    generator = make_generator("sd3")
    generator.pipeline.save_pretrained(tmp_path)
    loaded = load_generator(str(tmp_path), device="cpu", steps=2)
    assert type(loaded.pipeline.scheduler).__name__ == "FlowMatchEulerDiscreteScheduler"
    assert loaded.guidance == 7.0, "the pipeline's own default"
    config = make_scheduler("dpm-solver++", loaded.pipeline.scheduler).config
    assert config.use_flow_sigmas and config.prediction_type == "flow_prediction" and config.flow_shift == 3.0
    with pytest.raises(InputError, match="scheduler: expected one for flow matching.* got 'ddim'"):
        make_scheduler("ddim", loaded.pipeline.scheduler)


def test_the_safety_checker_goes_only_when_asked(sd_folder):
    assert load_generator(sd_folder).pipeline.safety_checker is not None
    free = load_generator(sd_folder, device="cpu", safety_checker=False, steps=2)
    assert free.pipeline.safety_checker is None
    strict = load_generator(sd_folder, device="cpu", steps=2)
    strict.pipeline.safety_checker.forward = lambda images, clip_input: (0 * images, [True] * len(images))
    black, shown = strict(PROMPTS[:1], [1]), free(PROMPTS[:1], [1])
    assert black.max() == 0 and shown.max() > 0
    images = torch.cat([black, shown])
    assert blackened(strict, images).tolist() == [True, False]
    assert blackened(free, images).tolist() == [False, False] and blackened(strict, images[:0]).tolist() == []


def test_a_tuned_unet_takes_the_pipelines_place(sd_folder, tmp_path):
    from tiny_pipelines import unet

    torch.manual_seed(5)
    tuned = unet()
    tuned.save_pretrained(tmp_path / "alone")
    tuned.save_pretrained(tmp_path / "whole" / "unet")
    options = {"device": "cpu", "steps": 2, "safety_checker": False}
    plain = load_generator(sd_folder, **options)
    for place in ("alone", "whole"):
        generator = load_generator(sd_folder, unet=str(tmp_path / place), **options)
        ours, theirs = generator.pipeline.unet.state_dict(), tuned.state_dict()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
        assert not any(parameter.requires_grad for parameter in generator.pipeline.unet.parameters())
        assert not torch.equal(generator(PROMPTS, [1, 2, 1]), plain(PROMPTS, [1, 2, 1]))
        assert generator.sampling != plain.sampling
    unet(block_out_channels=(16, 24)).save_pretrained(tmp_path / "other")
    state = tmp_path / "other" / "diffusion_pytorch_model.safetensors"
    state.write_bytes((tmp_path / "alone" / "diffusion_pytorch_model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="unet"):
        load_generator(sd_folder, unet=str(tmp_path / "other"))
    with pytest.raises(CheckpointError, match="unet: no UNet"):
        load_generator(sd_folder, unet=str(tmp_path / "nothing"))
    make_generator("flux").pipeline.save_pretrained(tmp_path / "flux")
    with pytest.raises(InputError, match="unet: expected a pipeline with a UNet, got FluxPipeline"):
        load_generator(str(tmp_path / "flux"), unet=str(tmp_path / "alone"))


def test_half_precision_and_channels_last(sd_folder):
    generator = load_generator(sd_folder, device="cpu", dtype="bf16", channels_last=True, safety_checker=False, steps=2)
    networks = [part for part in generator.pipeline.components.values() if isinstance(part, torch.nn.Module)]
    assert {parameter.dtype for part in networks for parameter in part.parameters()} == {torch.bfloat16}
    assert generator.pipeline.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    full = load_generator(sd_folder, device="cpu", safety_checker=False, steps=2)
    difference = (generator(PROMPTS, [1, 2, 1]).float() - full(PROMPTS, [1, 2, 1]).float()).abs()
    assert difference.mean() < 8


def test_prompts_are_encoded_by_themselves_and_kept_up_to_a_bound():
    generator = make_generator("sd", prompt_cache=2, batch_size=2)
    encoded = []
    encode = generator.pipeline.encode_prompt

    @functools.wraps(encode)
    def recorded(prompt, *args, **kwargs):
        encoded.extend([] if prompt is None else [prompt])
        return encode(prompt, *args, **kwargs)

    generator.pipeline.encode_prompt = recorded
    generator([*PROMPTS, "a dog"], [1, 2, 3, 4])
    assert encoded == [[PROMPTS[0]], [PROMPTS[1]], [""], ["a dog"]]
    generator(PROMPTS[:1], [9])
    assert len(encoded) == 4 and len(generator._encodings) == 2
    generator(PROMPTS[1:2], [9])
    assert encoded[4:] == [[PROMPTS[1]]], "the one that was used longest ago had to go"


def test_it_moves_with_what_it_keeps(sd_folder):
    generator = load_generator(sd_folder, device="cpu", safety_checker=False, steps=2)
    images = generator(PROMPTS, [1, 2, 1])
    assert generator.to("meta") is generator
    kept = [*generator._encodings._kept.values(), generator._encodings._negative]
    assert {value.device.type for row in kept for value in row.values()} == {"meta"}
    assert generator.pipeline.unet.device.type == "meta" and images.device.type == "cpu"


def test_revisions_are_told_once(sd_folder, tmp_path):
    with pytest.raises(InputError, match="which has one, got 'other'"):
        load_generator("org/name@main", revision="other")
    with pytest.raises(CheckpointError, match="no diffusers pipeline at 'org/name@main'"):
        load_generator("org/name@main")


@pytest.mark.slow
def test_compiled_networks_draw_the_same(sd_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    options = {"device": "cpu", "safety_checker": False, "steps": 2}
    images = load_generator(sd_folder, compile=True, **options)(PROMPTS, [1, 2, 1])
    assert any(tmp_path.iterdir()), "compiled here, not taken from elsewhere"
    assert (images.int() - load_generator(sd_folder, **options)(PROMPTS, [1, 2, 1]).int()).abs().max() <= 1
