"""The SUR adapter: its file as the authors write it, its arithmetic, and its place in Stable Diffusion."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from prip.errors import CheckpointError, InputError
from prip.generators import load_generator

pytest.importorskip("diffusers", reason="the generate extra is not installed")

from prip.generators.sur_adapter import SurAdapter, from_published, load_sur_adapter  # noqa: E402

PROMPTS = ["a cat in town", "a dog on the beach, golden hour", "a cat in town"]
WIDTH, FEEDFORWARD = 16, 24
OPTIONS = {"device": "cpu", "steps": 2, "safety_checker": False}


def published(width: int = WIDTH, feedforward: int = FEEDFORWARD, depth: int = 2, seed: int = 0) -> dict[str, Tensor]:
    """Random weights under the names and with the shapes of the authors' Adapter, what they do not read too."""

    def layer(start: str) -> dict[str, tuple[int, ...]]:
        shapes = {
            "self_attn.in_proj_weight": (3 * width, width),
            "self_attn.in_proj_bias": (3 * width,),
            "self_attn.out_proj.weight": (width, width),
            "linear1.weight": (feedforward, width),
            "linear1.bias": (feedforward,),
            "linear2.weight": (width, feedforward),
        }
        vectors = (
            "self_attn.out_proj.bias",
            "linear2.bias",
            "norm1.weight",
            "norm1.bias",
            "norm2.weight",
            "norm2.bias",
        )
        return {start + name: shape for name, shape in {**shapes, **dict.fromkeys(vectors, (width,))}.items()}

    shapes = layer("encoder_layer.")
    for place in range(depth):
        shapes |= layer(f"transformer_encoder.layers.{place}.")
    squares = ["fc", *(f"attention.{name}" for name in ("query_layer", "key_layer", "value_layer"))]
    for name in (*squares, "attention.output_layer.0", "attention.output_layer.2"):
        shapes |= {f"{name}.weight": (width, width), f"{name}.bias": (width,)}
    source = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=source) / math.sqrt(width) for name, shape in shapes.items()}


def worked_by_hand(w: dict[str, Tensor], x: Tensor, share: float) -> Tensor:
    """The authors' forward pass without dropout, text by text and head by head, in float64."""
    w, x = {name: value.double() for name, value in w.items()}, x.double()
    texts, tokens, width = x.shape
    size = width // 8

    def linear(name: str, value: Tensor) -> Tensor:
        return value @ w[name + ".weight"].T + w[name + ".bias"]

    def norm(name: str, value: Tensor) -> Tensor:
        centred = value - value.mean(-1, keepdim=True)
        return (
            centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * w[name + ".weight"] + w[name + ".bias"]
        )

    hidden = x
    for place in range(2):
        start = f"transformer_encoder.layers.{place}."
        joint = hidden @ w[start + "self_attn.in_proj_weight"].T + w[start + "self_attn.in_proj_bias"]
        q, k, v = joint.split(width, dim=-1)
        mixed = torch.zeros_like(hidden)
        for token in range(tokens):
            for head in range(8):
                cut = slice(head * size, (head + 1) * size)
                for text in range(texts):
                    scores = torch.stack([q[text, token, cut] @ k[other, token, cut] for other in range(texts)])
                    shares = (scores / math.sqrt(size)).exp() / (scores / math.sqrt(size)).exp().sum()
                    mixed[text, token, cut] = sum(shares[other] * v[other, token, cut] for other in range(texts))
        hidden = norm(start + "norm1", hidden + linear(start + "self_attn.out_proj", mixed))
        inner = linear(start + "linear1", hidden).clamp(min=0)
        hidden = norm(start + "norm2", hidden + linear(start + "linear2", inner))
    out = []
    for text in range(texts):
        scores = linear("attention.query_layer", hidden[text]) @ linear("attention.key_layer", x[text]).T
        shares = (scores / math.sqrt(width)).softmax(-1)
        mixed = shares @ x[text] + x[text]
        first = linear("attention.output_layer.0", mixed).clamp(min=0)
        out.append(linear("fc", linear("attention.output_layer.2", first) + mixed))
    return share * torch.stack(out) + (1 - share) * x


@pytest.mark.parametrize("texts", [1, 2])
def test_it_computes_what_the_authors_forward_pass_says(texts: int) -> None:
    weights = published()
    adapter = from_published(weights, 0.3, "x")
    embeddings = torch.randn(texts, 5, WIDTH, generator=torch.Generator().manual_seed(1))
    wanted = worked_by_hand(weights, embeddings, 0.3)
    assert (adapter(embeddings) - wanted).abs().max() < 1e-5
    assert (wanted - embeddings).abs().mean() > 0.1, "an adapter that does nothing would not pass"


def test_a_prompt_is_adapted_with_its_negative_and_no_other() -> None:
    weights = published()
    adapter = from_published(weights, 0.5, "x")
    prompt, negative = torch.randn(2, 1, 5, WIDTH, generator=torch.Generator().manual_seed(2)).bfloat16()
    adapted, adapted_negative = adapter.condition(prompt, negative)
    assert adapted.dtype == torch.bfloat16 and adapted_negative is not None
    wanted = worked_by_hand(weights, torch.cat([negative, prompt]), 0.5)
    assert torch.allclose(adapted_negative.double(), wanted[:1], atol=0.02)
    assert torch.allclose(adapted.double(), wanted[1:], atol=0.02)
    alone, none = adapter.condition(prompt, None)
    assert none is None and not torch.equal(alone, adapted), "in the encoder the two read each other"


def write(folder: Path, weights: dict[str, Tensor], name: str = "adapter.pt") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(weights, folder / name)
    return str(folder / name)


def test_the_file_is_read_in_every_form(tmp_path: Path) -> None:
    weights = published()
    file = write(tmp_path / "llm13B_adapterw0.1", weights, "adapter_checkpoint1000.pt")
    adapter = load_sur_adapter(file)
    assert adapter.weight == 0.1 and adapter.name == file, "the weight is in the folder's name alone"
    state = adapter.state_dict()
    used = {name for name in weights if not name.startswith(("encoder_layer.", "attention.value_layer."))}
    assert state.keys() == used and all(torch.equal(state[name], weights[name]) for name in used)
    assert not any(parameter.requires_grad for parameter in adapter.parameters()) and not adapter.training
    (tmp_path / "safe").mkdir()
    save_file(weights, tmp_path / "safe" / "adapter.safetensors")
    again = load_sur_adapter(str(tmp_path / "safe"), weight=0.1)
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())
    save_file({name: weights[name] for name in used}, tmp_path / "safe" / "adapter.safetensors")
    assert load_sur_adapter(str(tmp_path / "safe"), weight=1).weight == 1.0, "what is not read may be left out"


def test_what_is_no_adapter_is_refused(tmp_path: Path) -> None:
    weights = published()
    without = {name: value for name, value in weights.items() if name != "attention.key_layer.bias"}
    wide = {**weights, "attention.key_layer.weight": torch.zeros(8, WIDTH), "more": torch.zeros(1)}
    cases = {
        "missing attention.key_layer.bias": without,
        "unexpected more; mismatched attention.key_layer.weight": wide,
        "holds no SUR adapter: fc.bias is missing": {"unet": torch.zeros(1)},
        "mismatched encoder_layer.norm1.bias": {**weights, "encoder_layer.norm1.bias": torch.zeros(3)},
        "missing .*layers.2": {**weights, "transformer_encoder.layers.3.norm1.bias": torch.zeros(WIDTH)},
        "holds no SUR adapter: 1000000000 layers": {
            **weights,
            "transformer_encoder.layers.999999999.x": torch.zeros(1),
        },
    }
    for place, (message, held) in enumerate(cases.items()):
        with pytest.raises(CheckpointError, match=message):
            load_sur_adapter(write(tmp_path / str(place), held), weight=0.1)
    with (tmp_path / "adapter.pt").open("wb") as stream:
        pickle.dump({"fc.bias": Path("/")}, stream)
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        load_sur_adapter(str(tmp_path), weight=0.1)
    plain = write(tmp_path / "adapterwhat", weights)
    with pytest.raises(InputError, match=r"adapter_weight: .* got None, and .* is not in a folder"):
        load_sur_adapter(plain)
    with pytest.raises(InputError, match="adapter_weight: expected a number from 0 to 1, got 2"):
        load_sur_adapter(plain, weight=2)


@pytest.fixture(scope="module")
def sd_folder(tmp_path_factory) -> str:
    from tiny_pipelines import stable_diffusion

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("sd")
    stable_diffusion().save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_stable_diffusion_draws_from_adapted_embeddings(sd_folder: str, tmp_path: Path, guidance: float) -> None:
    weights = published()
    file = write(tmp_path, weights)
    generator = load_generator(sd_folder, adapter=file, adapter_weight=0.4, guidance=guidance, **OPTIONS)
    images = generator(PROMPTS, [1, 2, 1])
    assert torch.equal(generator(PROMPTS[1:2], [2])[0], images[1]), "other prompts do not come in"
    assert len(generator._encodings) == 2, "each distinct prompt is encoded once"
    plain = load_generator(sd_folder, guidance=guidance, **OPTIONS)
    arguments = plain._encodings(PROMPTS[1:2], guided=guidance > 1)
    together = torch.cat([arguments[name] for name in ("negative_prompt_embeds", "prompt_embeds") if name in arguments])
    wanted = worked_by_hand(weights, together, 0.4).float()
    plain._encodings = lambda prompts, guided: dict(
        zip(("prompt_embeds", "negative_prompt_embeds"), wanted.flip(0).split(1), strict=False)
    )
    drawn = plain(PROMPTS[1:2], [2])[0]
    assert (drawn.int() - images[1].int()).abs().max() <= 1
    unchanged = load_generator(sd_folder, guidance=guidance, **OPTIONS)(PROMPTS[1:2], [2])[0]
    assert (drawn.int() - unchanged.int()).abs().max() > 1


def test_sampling_tells_the_adapter_and_it_moves_along(sd_folder: str, tmp_path: Path) -> None:
    file = write(tmp_path / "adapterw0.2", published())
    generator = load_generator(sd_folder, adapter=file, **OPTIONS)
    plain = load_generator(sd_folder, **OPTIONS)
    assert generator.sampling == f"{plain.sampling}, SUR adapter of {file} by 0.2"
    assert generator.sampling != load_generator(sd_folder, adapter=file, adapter_weight=0.3, **OPTIONS).sampling
    generator.to("meta")
    assert {parameter.device.type for parameter in generator.adapter.parameters()} == {"meta"}
    with pytest.raises(InputError, match="cannot be saved as one pipeline"):
        generator.save_pretrained(tmp_path / "saved")


def test_an_adapter_that_does_not_fit_is_refused(sd_folder: str, tmp_path: Path) -> None:
    from tiny_pipelines import deepfloyd_if

    from prip.generators.diffusion import DiffusersGenerator

    with pytest.raises(InputError, match="expected one for embeddings of width 16, got width 32"):
        load_generator(sd_folder, adapter=write(tmp_path, published(32)), adapter_weight=0.1, **OPTIONS)
    adapter: SurAdapter = from_published(published(), 0.1, "x")
    with pytest.raises(InputError, match="expected a StableDiffusionPipeline, got IFPipeline"):
        DiffusersGenerator(deepfloyd_if(), adapter=adapter)
    with pytest.raises(InputError, match="adapter_weight: expected None without an adapter"):
        load_generator(sd_folder, adapter_weight=0.1, **OPTIONS)
    with pytest.raises(CheckpointError, match="adapter.pt of checkpoint 'org/adapter'.*HF_HUB_OFFLINE is set"):
        load_generator(sd_folder, adapter="org/adapter@main", adapter_weight=0.1, **OPTIONS)
