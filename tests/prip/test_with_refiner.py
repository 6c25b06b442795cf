"""Pipelines that refine their prompt first, on small random-weight pipelines of every family."""

from __future__ import annotations

import copy
import functools
import gc
import inspect
import multiprocessing
import pickle
import subprocess
import sys
import weakref
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from prip.diffusers import _Refining, with_refiner
from prip.errors import CheckpointError, InputError, PripWarning
from prip.refiner import Refiner

pytest.importorskip("diffusers", reason="the generate extra is not installed")

SMALL = {"height": 16, "width": 16, "num_inference_steps": 2, "output_type": "np"}
FAMILIES = ["sd", "sdxl", "sd3", "flux"]


@functools.cache
def plain(family: str) -> Any:
    """A pipeline of a family, without PRIP."""
    import tiny_pipelines

    torch.manual_seed(0)
    pipe = tiny_pipelines.stable_diffusion(safety_checker=None) if family == "sd" else tiny_pipelines.FAMILIES[family]()
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()  # as what is loaded is: a T5 has dropout
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def refiner() -> Refiner:
    return Refiner.from_pretrained(device="cpu")


def noise(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("family", FAMILIES)
def test_it_draws_what_the_plain_pipeline_draws_of_the_refined_prompt(family: str, refiner: Refiner) -> None:
    pipe = plain(family)
    refining = with_refiner(pipe, refiner)
    output = refining("a cat", generator=noise(), **SMALL)
    assert output.refined_prompt.startswith("a cat, ") and refining.refined_prompt == output.refined_prompt
    same = pipe(output.refined_prompt, generator=noise(), **SMALL).images
    other = pipe("a cat", generator=noise(), **SMALL).images
    assert np.array_equal(output.images, same) and not np.array_equal(output.images, other)
    torch.manual_seed(5)
    unseeded = refining("a cat", **SMALL).images
    torch.manual_seed(5)
    assert np.array_equal(unseeded, pipe(output.refined_prompt, **SMALL).images), "torch's own stream is not touched"


@pytest.mark.parametrize("family", FAMILIES)
def test_lists_negative_prompts_and_images_per_prompt_go_through(family: str, refiner: Refiner) -> None:
    pipe = plain(family)
    refining = with_refiner(pipe, refiner)
    negative = {} if family == "flux" else {"negative_prompt": ["dull", "grey"]}
    prompts = ["a cat", "a boat"]
    named = {**SMALL, **negative, "num_images_per_prompt": 2}
    output = refining(prompt=prompts, generator=[noise(n) for n in range(4)], **named)
    assert len(output.images) == 4 and isinstance(output.refined_prompt, list)
    assert [text.split(",")[0] for text in output.refined_prompt] == prompts == ["a cat", "a boat"]
    same = pipe(output.refined_prompt, generator=[noise(n) for n in range(4)], **named).images
    assert np.array_equal(output.images, same)


@pytest.mark.parametrize(("family", "others"), [("sdxl", 1), ("sd3", 2), ("flux", 1)])
def test_further_prompts_follow_unless_they_are_given(family: str, others: int, refiner: Refiner) -> None:
    pipe = plain(family)
    refining = with_refiner(pipe, refiner)
    given = {f"prompt_{number + 2}": "a dog" for number in range(others)}
    output = refining("a cat", **given, generator=noise(), **SMALL)
    assert np.array_equal(output.images, pipe(output.refined_prompt, **given, generator=noise(), **SMALL).images)
    follow = refining("a cat", generator=noise(), **SMALL).images
    assert not np.array_equal(follow, output.images)


def test_the_refinement_is_turned_off_and_its_options_changed_for_a_call(refiner: Refiner) -> None:
    pipe = plain("sd3")
    refining = with_refiner(pipe, refiner, banned_terms=["golden hour"])
    assert "golden hour" not in refining("a cat", **SMALL).refined_prompt
    assert "golden hour" in refining("a cat", refine={"banned_terms": []}, **SMALL).refined_prompt
    styled = refining("a cat", refine={"styles": ["watercolor"], "strength": 0.5}, **SMALL).refined_prompt
    assert styled == refiner.refine("a cat", styles=["watercolor"], strength=0.5, banned_terms=["golden hour"])
    output = refining("a cat", refine=False, generator=noise(), **SMALL)
    assert output.refined_prompt is None and refining.refined_prompt is None
    assert np.array_equal(output.images, pipe("a cat", generator=noise(), **SMALL).images)


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3", "if"])
def test_it_draws_with_the_suggested_negative_prompt(family: str, refiner: Refiner) -> None:
    pipe = plain(family)
    refining = with_refiner(pipe, refiner, with_negative=True)
    output = refining("a cat, no hats", generator=noise(), **SMALL)
    negative = output.drawn_negative_prompt
    assert negative.startswith("hats") and negative == refining.drawn_negative_prompt
    same = pipe(output.refined_prompt, negative_prompt=negative, generator=noise(), **SMALL).images
    assert np.array_equal(output.images, same)
    output = refining(["a cat, no hats", "a dog", ""], negative_prompt=["people", "", "dull"], **SMALL)
    assert [text.split(",")[0] for text in output.drawn_negative_prompt][::2] == ["people", "dull"]
    assert output.drawn_negative_prompt[0].startswith("people, hats") and output.drawn_negative_prompt[2] == "dull"
    limit = refining._refinement.refiner.token_limit
    count = refining._refinement.refiner.sampler.counter
    assert all(count(text) <= limit for text in output.drawn_negative_prompt)


def test_without_guidance_no_negative_prompt_is_drawn_with(refiner: Refiner) -> None:
    pipe = plain("sd")
    refining = with_refiner(pipe, refiner, with_negative=True)
    _, negative = pipe.encode_prompt("a cat", pipe.device, 1, True)
    for named in ({"guidance_scale": 1.0}, {"negative_prompt_embeds": negative}):
        assert refining("a cat", **named, **SMALL).drawn_negative_prompt is None
    assert refining("a cat", refine=False, **SMALL).drawn_negative_prompt is None
    flux = with_refiner(plain("flux"), refiner, with_negative=True)
    assert flux("a cat", **SMALL).drawn_negative_prompt is None, "its guidance is distilled"
    assert flux("a cat, no hats", true_cfg_scale=2.0, **SMALL).drawn_negative_prompt.startswith("hats")


def test_a_pipeline_without_negative_prompts_is_refused(refiner: Refiner) -> None:
    pipe = plain("sd")

    def call(self: Any, prompt: Any = None) -> Any: ...

    kind = type("Plain", (type(pipe),), {"__call__": call})
    with pytest.raises(InputError, match="with_negative: expected False for Plain, which takes no negative prompt"):
        with_refiner(kind(**pipe.components, requires_safety_checker=False), refiner, with_negative=True)


def test_embeddings_are_used_as_they_are(refiner: Refiner, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = plain("sd")
    refining = with_refiner(pipe, refiner)
    embeddings, negative = pipe.encode_prompt("a cat", pipe.device, 1, True)
    named = {"prompt_embeds": embeddings, "negative_prompt_embeds": negative, **SMALL}
    with pytest.raises(ValueError, match="Cannot forward both"), monkeypatch.context() as nothing:
        nothing.setattr(Refiner, "refine", lambda *arguments, **options: pytest.fail("refined for nothing"))
        refining("a cat", **named)
    output = refining(generator=noise(), **named)
    assert output.refined_prompt is None
    assert np.array_equal(output.images, pipe("a cat", generator=noise(), **SMALL).images)


def test_the_refined_prompt_of_a_tuple(refiner: Refiner) -> None:
    refining = with_refiner(plain("sd"), refiner)
    output = refining("a cat", return_dict=False, **SMALL)
    assert isinstance(output, tuple) and len(output) == 2
    assert refining.refined_prompt.startswith("a cat, ")


def test_a_budget_above_what_the_pipeline_reads_is_told(refiner: Refiner) -> None:
    refining = with_refiner(plain("sd"), refiner, token_budget=60)
    with pytest.warns(PripWarning, match="token_budget=60 is above the generator's limit: it reads 22 tokens") as told:
        refining("a cat", **SMALL)
    assert told[0].filename == __file__
    refiner.refine("a cat", token_budget=600)  # counted for no generator in particular: no warning


@pytest.mark.parametrize(("family", "part"), [("sd", ""), ("sdxl", ""), ("sd3", "_3"), ("flux", "_2")])
def test_the_budget_is_what_the_text_encoder_that_reads_furthest_reads(
    family: str, part: str, refiner: Refiner
) -> None:
    pipe = plain(family)
    tokenizer = getattr(pipe, "tokenizer" + part)
    text = with_refiner(pipe, refiner)("a cat", **SMALL).refined_prompt
    count = len(tokenizer(text)["input_ids"])
    assert count <= {"sd": 24, "sdxl": 24, "sd3": 256, "flux": 512}[family]
    if part:
        assert text == refiner.refine("a cat"), "CLIP would have cut this off, the T5 reads it"
        short = with_refiner(pipe, refiner)("a cat", max_sequence_length=20, **SMALL).refined_prompt
        assert short.startswith("a cat, ") and len(tokenizer(short)["input_ids"]) <= 20
    else:
        assert len(text) < len(refiner.refine("a cat"))


def test_without_its_t5_stable_diffusion_3_reads_as_far_as_clip(refiner: Refiner) -> None:
    from diffusers import StableDiffusion3Pipeline

    pipe = StableDiffusion3Pipeline(**{**plain("sd3").components, "text_encoder_3": None})
    pipe.set_progress_bar_config(disable=True)
    text = with_refiner(pipe, refiner)("a cat", **SMALL).refined_prompt
    assert len(pipe.tokenizer(text)["input_ids"]) <= 24


@pytest.mark.parametrize("family", FAMILIES)
def test_image_to_image_pipelines_refine_too(family: str, refiner: Refiner) -> None:
    from diffusers import AutoPipelineForImage2Image

    pipe = AutoPipelineForImage2Image.from_pipe(plain(family))
    pipe.set_progress_bar_config(disable=True)
    refining = with_refiner(pipe, refiner)
    named = {"image": torch.zeros(1, 3, 16, 16), "strength": 0.9, "num_inference_steps": 3, "output_type": "np"}
    if family == "flux":
        named |= {"height": 16, "width": 16}
    output = refining("a cat", generator=noise(), **named)
    assert output.refined_prompt.startswith("a cat, ")
    assert np.array_equal(output.images, pipe(output.refined_prompt, generator=noise(), **named).images)
    if family in ("sd3", "flux"):
        assert output.refined_prompt == refiner.refine("a cat"), "counted by the T5, as text to image is"


def test_it_is_the_pipeline_still(refiner: Refiner, tmp_path: Any) -> None:
    from diffusers import AutoPipelineForImage2Image, DiffusionPipeline, EulerDiscreteScheduler

    pipe = plain("sd")
    refining = with_refiner(pipe, refiner)
    assert isinstance(refining, type(pipe)) and type(refining) is not type(pipe)
    assert (
        repr(refining) == repr(pipe)
        and refining.unet is pipe.unet
        and list(refining.components) == list(pipe.components)
    )
    before = pipe.scheduler
    refining.scheduler = EulerDiscreteScheduler.from_config(before.config)
    assert pipe.scheduler is before and refining.components["scheduler"] is refining.scheduler is not before
    refining.enable_attention_slicing()
    refining.disable_attention_slicing()
    assert refining.to("cpu", torch.float32) is refining and refining.device.type == "cpu"
    assert "guidance_scale" in inspect.signature(refining.__call__).parameters
    assert inspect.signature(refining.__call__).parameters["refine"].default is True
    drawn = refining("a cat", generator=noise(), **SMALL)
    refining.save_pretrained(tmp_path)
    loaded = DiffusionPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert type(loaded) is type(pipe), "stored as the pipeline that it is"
    again = loaded(drawn.refined_prompt, generator=noise(), **SMALL)
    assert np.array_equal(again.images, drawn.images)
    assert type(AutoPipelineForImage2Image.from_pipe(refining)).__name__ == "StableDiffusionImg2ImgPipeline"


def test_a_pipeline_that_refines_gets_the_new_refiner_in_place_of_its_own(refiner: Refiner) -> None:
    once = with_refiner(plain("sd3"), refiner, banned_terms=["golden hour"])
    once("a cat", **SMALL)
    twice = with_refiner(once, refiner)
    assert type(twice).__mro__.count(type(plain("sd3"))) == 1 and twice.refined_prompt is None
    assert twice("a cat", **SMALL).refined_prompt == refiner.refine("a cat")


def test_mistakes_are_told_before_anything_is_loaded(refiner: Refiner, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers import DDPMPipeline, DDPMScheduler

    pipe = plain("sd")
    monkeypatch.setattr(Refiner, "from_pretrained", lambda *arguments: pytest.fail("loaded too early"))
    for wrong in ("pipe", None, pipe.unet):
        with pytest.raises(InputError, match="pipe: expected a text-to-image pipeline"):
            with_refiner(wrong)
    with pytest.raises(InputError, match="got DDPMPipeline, which takes no prompt"):
        with_refiner(DDPMPipeline(pipe.unet, DDPMScheduler()))
    with pytest.raises(InputError, match="unknown option 'sead'; did you mean seed"):
        with_refiner(pipe, sead=1)
    with pytest.raises(InputError, match="unknown option 'num_alternatives'; expected seed, temperature"):
        with_refiner(pipe, num_alternatives=2)
    with pytest.raises(InputError, match="temperature: expected a number of at least 0"):
        with_refiner(pipe, temperature=-1)
    refining = with_refiner(pipe, refiner)
    monkeypatch.setattr(pipe.unet, "forward", lambda *arguments, **named: pytest.fail("drew too early"))
    with pytest.raises(InputError, match="unknown option 'sead'"):
        refining("a cat", refine={"sead": 1}, **SMALL)
    with pytest.raises(InputError, match="refine: expected True, False or a mapping of options, got 1"):
        refining("a cat", refine=1, **SMALL)
    with pytest.raises(InputError, match=r"prompt\[2\]"):
        refining(["a cat", " ", "a\0cat"], **SMALL)


def test_a_refiner_that_is_not_there() -> None:
    with pytest.raises(CheckpointError, match="no-such-folder"):
        with_refiner(plain("sd"), "./no-such-folder")


def test_a_prompt_without_room_comes_back_with_a_warning(refiner: Refiner) -> None:
    refining = with_refiner(plain("sd"), refiner)
    prompt = "two red apples in a bowl by the river at night in the forest"
    with pytest.warns(PripWarning, match="returned unchanged"):
        assert refining(prompt, **SMALL).refined_prompt == prompt


@pytest.mark.parametrize("family", ["sd", "flux"])
def test_prompts_without_words_are_drawn_as_they_are(family: str, refiner: Refiner) -> None:
    pipe = plain(family)
    refining = with_refiner(pipe, refiner, styles=["watercolor"])
    for empty in ("", " \n", ".,"):
        output = refining(empty, generator=noise(), **SMALL)
        assert output.refined_prompt == empty
        assert np.array_equal(output.images, pipe(empty, generator=noise(), **SMALL).images)
    output = refining(["", "a cat", ""], generator=[noise(n) for n in range(3)], **SMALL)
    assert output.refined_prompt == ["", refining("a cat", **SMALL).refined_prompt, ""]
    same = pipe(output.refined_prompt, generator=[noise(n) for n in range(3)], **SMALL).images
    assert np.array_equal(output.images, same)
    assert refining(["", ""], **SMALL).refined_prompt == ["", ""]


@pytest.mark.parametrize("family", ["sd", "sd3"])
def test_prompts_of_several_lines_are_refined(family: str, refiner: Refiner) -> None:
    pipe = plain(family)
    output = with_refiner(pipe, refiner)(["a cat,\nin\tthe rain\n", "a dog"], generator=noise(), **SMALL)
    assert output.refined_prompt[0].startswith("a cat,\nin\tthe rain, ")
    assert np.array_equal(output.images, pipe(output.refined_prompt, generator=noise(), **SMALL).images)


def test_the_budget_is_within_what_the_pipeline_reads_unless_a_call_says_so(refiner: Refiner) -> None:
    from diffusers import FluxPipeline

    class ShortFlux(FluxPipeline):
        """Reads 20 tokens by default, of the 512 of its T5."""

        def __call__(self, prompt: Any = None, max_sequence_length: int = 20, **named: Any) -> Any:
            return super().__call__(prompt, max_sequence_length=max_sequence_length, **named)

    pipe = ShortFlux(**plain("flux").components)
    pipe.set_progress_bar_config(disable=True)
    refining = with_refiner(pipe, refiner)
    text = refining("a cat", **SMALL).refined_prompt
    assert text.startswith("a cat, ") and len(pipe.tokenizer_2(text)["input_ids"]) <= 20
    assert refining("a cat", max_sequence_length=512, **SMALL).refined_prompt == refiner.refine("a cat")
    assert len(pipe.tokenizer_2(refiner.refine("a cat"))["input_ids"]) > 20


def test_a_refiner_that_is_loaded_here_goes_where_the_pipeline_goes(
    refiner: Refiner, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = plain("sd")
    moved: list[tuple[Any, str]] = []
    monkeypatch.setattr(Refiner, "to", lambda self, device: moved.append((self.model, str(device))))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # where a Refiner would go by itself
    own = with_refiner(pipe)._refinement.refiner
    assert own.device.type == "cpu"
    refining = with_refiner(pipe, "prip-mini")
    assert refining.to("cpu") is refining and moved == [(refining._refinement.refiner.model, "cpu")]
    assert refining.to(torch.float64).unet.dtype == torch.float64 and moved[1][1] == "cpu"
    pipe.to(torch.float32)
    with_refiner(pipe, refiner).to("cpu")
    assert len(moved) == 2, "one that was given stays where it is"
    monkeypatch.setattr(type(pipe), "device", torch.device("meta"))  # offloaded, layer by layer
    assert with_refiner(pipe)._refinement.refiner.device.type == "cpu"


def test_a_refiner_goes_with_its_pipeline_when_that_is_deleted() -> None:
    refining = with_refiner(plain("sd"))
    gone = weakref.ref(refining._refinement.refiner.model)
    del refining
    gc.collect()
    assert gone() is None


def test_copies_and_pickles_refine_alike(refiner: Refiner) -> None:
    pipe = plain("sd")
    refining = with_refiner(pipe, refiner, banned_terms=["golden hour"])
    drawn = refining("a cat", generator=noise(), **SMALL)
    copies = {
        "copy": copy.copy(refining),
        "deepcopy": copy.deepcopy(refining),
        "pickle": pickle.loads(pickle.dumps(refining)),
    }
    for name, other in copies.items():
        assert isinstance(other, type(pipe)) and type(other) is type(refining)
        assert (other.unet is pipe.unet) is (name == "copy")
        assert other.refined_prompt == drawn.refined_prompt
        again = other("a cat", generator=noise(), **SMALL)
        assert again.refined_prompt == drawn.refined_prompt and np.array_equal(again.images, drawn.images), name


@pytest.mark.slow
def test_a_process_that_is_spawned_refines_alike(refiner: Refiner) -> None:
    from tiny_pipelines import drawn

    refining = with_refiner(plain("sd"), refiner)
    images, text = drawn(refining)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as elsewhere:
        their_images, their_text = elsewhere.submit(drawn, refining).result()
    assert their_text == text and np.array_equal(their_images, images)


def test_what_diffusers_makes_of_its_class_draws_as_the_plain_pipeline(refiner: Refiner) -> None:
    from diffusers import AutoPipelineForImage2Image, AutoPipelineForInpainting, AutoPipelineForText2Image

    pipe = plain("sd")
    refining = with_refiner(pipe, refiner)
    for auto, name in (
        (AutoPipelineForText2Image, "StableDiffusionPipeline"),
        (AutoPipelineForImage2Image, "StableDiffusionImg2ImgPipeline"),
        (AutoPipelineForInpainting, "StableDiffusionInpaintPipeline"),
    ):
        other = auto.from_pipe(refining)
        assert type(other).__name__ == name and other.unet is pipe.unet
        assert not isinstance(other, _Refining)
        assert with_refiner(other, refiner).unet is pipe.unet
    again = refining.from_pipe(refining)
    again.set_progress_bar_config(disable=True)
    output = again("a cat", generator=noise(), **SMALL)
    assert output.refined_prompt is None
    assert np.array_equal(output.images, pipe("a cat", generator=noise(), **SMALL).images)


def test_callbacks_are_given_the_pipeline_that_refines(refiner: Refiner) -> None:
    refining = with_refiner(plain("sd"), refiner)
    seen = []

    def after_step(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        seen.append((pipe, step, pipe.refined_prompt))
        return tensors

    output = refining("a cat", callback_on_step_end=after_step, **SMALL)
    assert [pipe for pipe, _, _ in seen[:2]] == [refining] * 2 and seen[0][2] == output.refined_prompt


def test_without_diffusers_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['diffusers'] = None\n"
        "from prip.diffusers import with_refiner\n"
        "assert 'torch' not in sys.modules\n"
        "try: with_refiner(object())\n"
        "except ImportError as error: print(type(error).__name__, error)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.startswith("MissingExtraError diffusers is not installed") and ".[generate]" in result.stdout
