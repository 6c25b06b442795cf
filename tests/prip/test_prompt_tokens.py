"""What pipelines of every family read of refined prompts, seen at their own tokenizers."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from tiny_pipelines import clip_text_config, t5_encoder, t5_like_tokenizer

from prip.generators.prompt_tokens import PipelineTokens
from prip.refiner import Refiner
from prip.text.clip_tokens import clip_tokenizer, count_clip_tokens
from prip.text.prompts import check_user_prompt, modifiers_added
from prip.text.webui_syntax import plain_prompt, text_read_by_webui

diffusers = pytest.importorskip("diffusers", reason="the generate extra is not installed")
pytestmark = pytest.mark.filterwarnings("ignore::prip.errors.PripWarning")

TOY = "<toy>"
"""A textual inversion."""
CLIP = ("sd", "sd-toy", "sdxl", "sd3", "flux")
FAMILIES = {
    "sd": "StableDiffusionPipeline",
    "sd-toy": "StableDiffusionPipeline",
    "sdxl": "StableDiffusionXLPipeline",
    "sd3": "StableDiffusion3Pipeline",
    "sd3-clip": "StableDiffusion3Pipeline",
    "flux": "FluxPipeline",
    "if": "IFPipeline",
    "pixart": "PixArtAlphaPipeline",
    "sigma": "PixArtSigmaPipeline",
    "sana": "SanaPipeline",
    "lumina2": "Lumina2Pipeline",
}


def real_clip(vectors: int = 1) -> Any:
    """CLIP's own tokenizer, with a textual inversion of several vectors."""
    from tokenizers import Tokenizer, processors
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer.from_str(clip_tokenizer().to_str())
    start, end = "<|startoftext|>", "<|endoftext|>"
    specials = [(token, backend.token_to_id(token)) for token in (start, end)]
    backend.post_processor = processors.TemplateProcessing(single=f"{start} $A {end}", special_tokens=specials)
    names = {"bos_token": start, "eos_token": end, "pad_token": end}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=77, **names)
    tokenizer.add_tokens([TOY, *(f"{TOY}_{number}" for number in range(1, vectors))])
    return tokenizer


def clip_pair(number: str = "", vectors: int = 1, projects: bool = False) -> dict[str, Any]:
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    tokenizer = real_clip(vectors)
    kind = CLIPTextModelWithProjection if projects else CLIPTextModel
    return {f"tokenizer{number}": tokenizer, f"text_encoder{number}": kind(clip_text_config(tokenizer))}


def t5_pair(number: str = "") -> dict[str, Any]:
    tokenizer = t5_like_tokenizer()
    return {f"tokenizer{number}": tokenizer, f"text_encoder{number}": t5_encoder(tokenizer)}


def pipeline_of(family: str) -> Any:
    """A pipeline of a family with its tokenizers and small text encoders, and nothing to draw with."""
    parts: dict[str, Any]
    if family == "sdxl":
        parts = {**clip_pair(), **clip_pair("_2", 7, projects=True)}
    elif family.startswith("sd3"):
        third = t5_pair("_3") if family == "sd3" else {"tokenizer_3": None, "text_encoder_3": None}
        parts = {**clip_pair(projects=True), **clip_pair("_2", projects=True), **third}
    elif family == "flux":
        parts = {**clip_pair(), **t5_pair("_2")}
    elif family in ("sd", "sd-toy"):
        parts = clip_pair(vectors=4 if family == "sd-toy" else 1)
    else:
        parts = t5_pair()
    kind = getattr(diffusers, FAMILIES[family])
    names = set(inspect.signature(kind.__init__).parameters) - {"self"}
    parts |= {name: False for name in names if name.startswith("requires_")}
    pipe = kind(**{name: parts.get(name) for name in names if name in parts or not _has_default(kind, name)})
    if family == "sd3-clip":
        pipe.transformer = SimpleNamespace(config=SimpleNamespace(joint_attention_dim=32))
    return pipe


def _has_default(kind: type, name: str) -> bool:
    return inspect.signature(kind.__init__).parameters[name].default is not inspect.Parameter.empty


class Seen(NamedTuple):
    """A text that a pipeline gave to a tokenizer."""

    tokenizer: Any
    tokens: int
    """All that the text has, start and end tokens included."""
    most: int
    """How many of them are read."""


def encoded(pipe: Any, prompt: str, monkeypatch: pytest.MonkeyPatch) -> list[Seen]:
    """Encode a prompt as the pipeline's call does; return what it gave to its tokenizers."""
    from transformers import PreTrainedTokenizerBase

    call, seen = PreTrainedTokenizerBase.__call__, list[Seen]()

    def watch(self: Any, text: Any = None, *arguments: Any, **named: Any) -> Any:
        if named.get("truncation"):
            (own,) = [text] if isinstance(text, str) else text
            whole = call(self, own, add_special_tokens=named.get("add_special_tokens", True), verbose=False)
            seen.append(Seen(self, len(whole["input_ids"]), named["max_length"]))
        return call(self, text, *arguments, **named)

    defaults = {name: one.default for name, one in inspect.signature(type(pipe).__call__).parameters.items()}
    given = {"prompt": prompt, "device": torch.device("cpu"), "num_images_per_prompt": 1}
    given |= {"do_classifier_free_guidance": False, "prompt_2": None, "prompt_3": None}
    wanted = inspect.signature(pipe.encode_prompt).parameters
    arguments = {name: {**defaults, **given}[name] for name in wanted if name in {**defaults, **given}}
    with monkeypatch.context() as watched, torch.no_grad():
        watched.setattr(PreTrainedTokenizerBase, "__call__", watch)
        pipe.encode_prompt(**arguments)
    return seen


def check(family: str, prompts: list[str], refiner: Refiner, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Refine prompts for a family; return how many texts are at the limit, and how many gained a modifier."""
    pipe = pipeline_of(family)
    tokens = PipelineTokens(pipe)
    texts = refiner.counted_by(tokens).refine(prompts, token_budget=tokens.default_limit)
    endless = refiner.refine(prompts, token_budget=100_000)
    full = gained = 0
    for prompt, text, longer in zip(prompts, texts, endless, strict=True):
        added, more = modifiers_added(prompt, text), modifiers_added(prompt, longer)
        reads = [one for one in encoded(pipe, text, monkeypatch) if one.tokenizer in tokens.tokenizers]
        assert reads
        if not added:
            continue
        gained += 1
        assert all(one.tokens <= one.most for one in reads), (family, text, reads)
        if len(added) < len(more) and added == more[: len(added)]:
            full += 1
            free = min(one.most - one.tokens for one in reads)
            next_one = tokens.count_tokens(f", {more[len(added)]}")
            assert free < next_one + 3, (family, text, longer, reads)
    return full, gained


@pytest.fixture(scope="module")
def refiner() -> Refiner:
    return Refiner.from_pretrained("prip-mini", device="cpu")


LONG = "a portrait of an old fisherman (with a red hat:1.2) standing on the beach, ((rain)), his dog, [wooden] boat"
PROMPTS = [
    *(f"a   cat,    in \n\n{LONG}   , {LONG}", LONG.replace(" ", "   ")),
    *("a cat", "A Cat in the Snow!!!", f"a photo of {TOY} and {TOY}, {TOY}.", "a cat <lora:style:0.8>, {red|blue} hat"),
    *(LONG, f"{LONG}, {LONG[:60]}", f"{LONG}, {TOY}, seagulls, fog, waves", f"{LONG}, {LONG}, {LONG}"),
    *(f"{LONG}, {'(' * depth}{TOY}{')' * depth}" for depth in range(1, 6)),
    *(f"{LONG}, [{' '.join(f'Seagull{place}' for place in range(count))}], {TOY}" for count in range(1, 20, 3)),
    *(" ".join(f"{LONG}, ".split() * 9)[:length] for length in range(100, 900, 30)),
]


@pytest.mark.parametrize("family", FAMILIES)
def test_no_pipeline_is_given_more_than_it_reads(
    family: str, refiner: Refiner, monkeypatch: pytest.MonkeyPatch
) -> None:
    full, gained = check(family, PROMPTS, refiner, monkeypatch)
    assert gained > 3 and full > 0


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_no_real_prompt_exceeds_what_a_pipeline_reads(
    family: str, refiner: Refiner, monkeypatch: pytest.MonkeyPatch, real_data: Callable[[str], Path]
) -> None:
    """A third of those with brackets and other marks, a textual inversion put into every third."""
    prompts = []
    for number, prompt in enumerate(marked_prompts(real_data)[::3]):
        words = prompt.split(" ")
        if number % 3 == 0:
            words.insert(random.Random(number).randrange(len(words) + 1), TOY)
        prompts.append(" ".join(words))
    assert len(prompts) > 130
    full, gained = check(family, prompts, refiner, monkeypatch)
    assert gained > 15
    assert full > 0 or PipelineTokens(pipeline_of(family)).default_limit > 200, "hardly a prompt is as long"


def marked_prompts(real_data: Callable[[str], Path]) -> list[str]:
    """Real prompts with brackets or other marks of weights and templates."""
    lines = []
    for name in ("diffusiondb_prompts.txt", "imagereward_refl_prompts.txt", "pickapic_prompts.txt"):
        lines += real_data(name).read_text(encoding="utf-8").splitlines()
    marked = [line for line in dict.fromkeys(lines) if any(mark in line for mark in ("(", "[", "{", "<", "|", "::"))]
    return [check_user_prompt(line) for line in marked if line.strip(" .,")]


def test_brackets_count_where_they_are_read(refiner: Refiner) -> None:
    prompt = f"({LONG}:1.1), ((seagulls)), ((fog)), (((waves))), ((((a lighthouse)))), (clouds:1.3), (foam:1.1)"
    plain, webui = (refiner.refine(prompt, webui_syntax=switch) for switch in (False, True))
    assert count_clip_tokens(plain) <= 75
    assert len(modifiers_added(prompt, webui)) > len(modifiers_added(prompt, plain))
    assert count_clip_tokens(plain_prompt(webui)) <= 75 < count_clip_tokens(webui)
    assert text_read_by_webui("a (b:0) cat, (c:-1)").split() == ["a", "cat", "b", "c"]
