"""BLIP-2 as the pivot encoder, random weights: against transformers' own, from its folders and from lavis' files."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_blip2 import tiny_blip2_config

from prip.errors import CheckpointError, InputError
from prip.pivot_encoders import load_pivot_encoder
from prip.pivot_encoders.blip2 import Blip2PivotEncoder
from prip.pivot_encoders.lavis import rename_lavis_keys
from prip.protocols import PivotEncoder


@pytest.fixture(scope="module")
def reference():
    """transformers' whole BLIP-2, with text branch and heads."""
    from transformers import Blip2ForImageTextRetrieval

    config = tiny_blip2_config()
    config.qformer_config.use_qformer_text_input = True
    torch.manual_seed(0)
    model = Blip2ForImageTextRetrieval(config).eval()
    torch.nn.init.normal_(model.query_tokens)
    return model


@pytest.fixture(scope="module")
def folder(reference, tmp_path_factory):
    """The reference, saved as on the Hub."""
    place = tmp_path_factory.mktemp("blip2")
    reference.save_pretrained(place)
    return place


@pytest.fixture()
def images() -> torch.Tensor:
    return torch.randint(0, 256, (3, 3, 40, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def lavis_state(depth: int, width: int, layers: int, text: int, side: int, hidden: int = 48) -> dict[str, tuple]:
    """Shapes of lavis' stage-1 checkpoint by its own key names, the ViT included."""
    shapes: dict[str, tuple] = {
        "query_tokens": (1, 4 if width == 32 else 32, text),
        "temp": (),
        "visual_encoder.cls_token": (1, 1, width),
        "visual_encoder.pos_embed": (1, side * side + 1, width),
        "visual_encoder.patch_embed.proj.weight": (width, 3, 14, 14),
        "visual_encoder.patch_embed.proj.bias": (width,),
    }
    linear: dict[str, tuple[int, int]] = {}
    norms: dict[str, int] = {"ln_vision": width, "Qformer.bert.embeddings.LayerNorm": text}
    for i in range(depth):
        block = f"visual_encoder.blocks.{i}."
        norms |= {block + "norm1": width, block + "norm2": width}
        shapes |= {block + "attn.qkv.weight": (3 * width, width)}
        shapes |= {block + "attn.q_bias": (width,), block + "attn.v_bias": (width,)}
        linear |= {block + "attn.proj": (width, width), block + "mlp.fc1": (hidden, width)}
        linear |= {block + "mlp.fc2": (width, hidden)}
    for i in range(layers):
        layer = f"Qformer.bert.encoder.layer.{i}."
        for attention, source in [("attention", text)] + ([("crossattention", width)] if i % 2 == 0 else []):
            linear |= {f"{layer}{attention}.self.{name}": (text, source) for name in ("key", "value")}
            linear |= {f"{layer}{attention}.self.query": (text, text), f"{layer}{attention}.output.dense": (text, text)}
            norms |= {f"{layer}{attention}.output.LayerNorm": text}
        for suffix in ("", "_query"):
            inner = 3072 if text == 768 else 32
            linear |= {
                f"{layer}intermediate{suffix}.dense": (inner, text),
                f"{layer}output{suffix}.dense": (text, inner),
            }
            norms |= {f"{layer}output{suffix}.LayerNorm": text}
    vocabulary = 30523 if text == 768 else 40
    linear |= {"vision_proj": (8, text), "text_proj": (8, text), "itm_head": (2, text)}
    linear |= {"Qformer.cls.predictions.transform.dense": (text, text)}
    norms |= {"Qformer.cls.predictions.transform.LayerNorm": text}
    shapes |= {"Qformer.bert.embeddings.word_embeddings.weight": (vocabulary, text)}
    shapes |= {"Qformer.bert.embeddings.position_embeddings.weight": (512, text)}
    shapes |= {"Qformer.bert.embeddings.position_ids": (1, 512)}
    shapes |= {"Qformer.cls.predictions.bias": (vocabulary,), "Qformer.cls.predictions.decoder.bias": (vocabulary,)}
    shapes |= {"Qformer.cls.predictions.decoder.weight": (vocabulary, text)}
    shapes |= {f"{name}.weight": size for name, size in linear.items()}
    shapes |= {f"{name}.bias": size[:1] for name, size in linear.items()}
    shapes |= {f"{name}.{end}": (size,) for name, size in norms.items() for end in ("weight", "bias")}
    return shapes


def test_pivots_are_transformers_last_hidden_state(reference, folder, images):
    encoder = load_pivot_encoder(folder, device="cpu")
    assert isinstance(encoder, PivotEncoder)
    assert (encoder.pivot_length, encoder.pivot_width) == (4, 16)
    pivots = encoder(images)
    assert pivots.shape == (3, 4, 16) and pivots.dtype == torch.float32
    with torch.no_grad():
        seen = reference.vision_model(encoder.preprocess(images)).last_hidden_state
        expected = reference.qformer(reference.query_tokens.expand(3, -1, -1), encoder_hidden_states=seen)
    torch.testing.assert_close(pivots, expected.last_hidden_state, rtol=1e-5, atol=1e-6)
    assert pivots.std(dim=0).mean() > 1e-3, "images differ in their pivots"
    torch.testing.assert_close(encoder(images, batch_size=1), pivots, rtol=1e-4, atol=1e-5)
    assert encoder(images[:0]).shape == (0, 4, 16)


def test_only_what_is_used_is_there_and_it_is_frozen(folder):
    encoder = load_pivot_encoder(folder, device="cpu")
    names = {name for name, _ in encoder.named_parameters()}
    assert {name.split(".")[0] for name in names} == {"vision_model", "query_tokens", "qformer"}
    assert not any(".intermediate." in name or ".layer.0.output." in name for name in names)
    assert not any(parameter.requires_grad for parameter in encoder.parameters()) and not encoder.training


def test_images_are_preprocessed_as_transformers_does(images):
    from PIL import Image
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    encoder = Blip2PivotEncoder(tiny_blip2_config())
    processor = BlipImageProcessorPil(size={"height": 28, "width": 28})
    drawn = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    expected = processor(drawn, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(encoder.preprocess(images), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", ["bf16", "float16"])
def test_the_qformer_stays_float32(folder, images, dtype):
    encoder = load_pivot_encoder(folder, device="cpu", dtype=dtype)
    dtypes = {name: parameter.dtype for name, parameter in encoder.named_parameters()}
    half = torch.bfloat16 if dtype == "bf16" else torch.float16
    assert all(one == (half if name.startswith("vision") else torch.float32) for name, one in dtypes.items())
    pivots = encoder(images)
    assert pivots.dtype == torch.float32
    torch.testing.assert_close(pivots, load_pivot_encoder(folder, device="cpu")(images), rtol=0, atol=0.1)
    with pytest.raises(InputError, match="dtype"):
        load_pivot_encoder(folder, dtype="int7")


def test_it_saves_in_transformers_format(folder, images, tmp_path):
    from transformers import Blip2VisionModelWithProjection

    encoder = load_pivot_encoder(folder, device="cpu")
    encoder.save_pretrained(tmp_path)
    assert torch.equal(load_pivot_encoder(tmp_path, device="cpu")(images), encoder(images))
    theirs, info = Blip2VisionModelWithProjection.from_pretrained(tmp_path, output_loading_info=True)
    assert set(info["missing_keys"]) == {"vision_projection.weight", "vision_projection.bias"}
    assert not info["unexpected_keys"]
    torch.testing.assert_close(theirs.query_tokens, encoder.query_tokens)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("qformer.layernorm.weight", "missing"),
        ("vision_model.embeddings.class_embedding", "missing"),
        (None, "unexpect"),
    ],
)
def test_every_key_is_accounted_for(folder, tmp_path, key, message):
    state = load_file(folder / "model.safetensors")
    if key is None:
        state["vision_model.extra.weight"] = torch.zeros(1)
    else:
        del state[key]
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=message):
        load_pivot_encoder(tmp_path)


def test_a_foreign_folder_is_refused(tiny_checkpoint, tmp_path):
    with pytest.raises(CheckpointError, match="expected model_type prip_pivot_encoder or blip-2"):
        load_pivot_encoder(tiny_checkpoint / "encoder")
    with pytest.raises(CheckpointError, match="unknown checkpoint"):
        load_pivot_encoder(str(tmp_path / "nothing"))


def test_every_key_of_lavis_at_full_size_has_its_place():
    shapes = lavis_state(depth=39, width=1408, layers=12, text=768, side=16, hidden=6144)
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in shapes.items()}
        from transformers import Blip2Config

        model = Blip2PivotEncoder(Blip2Config())
    renamed = rename_lavis_keys(state)
    model.load_state_dict(renamed, strict=True, assign=True)
    assert (model.pivot_length, model.pivot_width) == (32, 768)
    assert sum(value.numel() for value in renamed.values()) == 1_091_114_496


def save_lavis(folder, shapes: dict[str, tuple], separate_vision: bool):
    """Writes lavis' file, and EVA's beside it with one block more and a classifier, as they are published."""
    source = torch.Generator().manual_seed(1)
    state = {key: 0.1 * torch.randn(shape, generator=source) for key, shape in shapes.items()}
    if separate_vision:
        vision = {
            key.removeprefix("visual_encoder."): state.pop(key) for key in list(state) if key.startswith("visual")
        }
        extra = {"blocks.2.norm1.weight": torch.zeros(32), "norm.weight": torch.zeros(32), "head.bias": torch.zeros(9)}
        torch.save(vision | extra, folder / "eva_vit_g.pth")
    torch.save({"model": state}, folder / "blip2_pretrained.pth")
    return folder / "blip2_pretrained.pth"


TINY = {"depth": 2, "width": 32, "layers": 2, "text": 16, "side": 2}


@pytest.mark.parametrize("separate_vision", [False, True])
def test_lavis_files_load(tmp_path, images, monkeypatch, separate_vision):
    file = save_lavis(tmp_path, lavis_state(**TINY), separate_vision)
    monkeypatch.setattr("prip.pivot_encoders.blip2.Blip2Config", tiny_blip2_config)
    encoder = load_pivot_encoder(file, device="cpu")
    assert encoder.vision_model.post_layernorm.eps == 1e-5
    bias = encoder.vision_model.encoder.layers[0].self_attn.qkv.bias
    assert (bias[32:64] == 0).all() and (bias[:32] != 0).all() and (bias[64:] != 0).all()
    pivots = encoder(images)
    encoder.save_pretrained(tmp_path / "converted")
    torch.testing.assert_close(load_pivot_encoder(tmp_path / "converted", device="cpu")(images), pivots, rtol=0, atol=0)


@pytest.mark.parametrize(
    "key", ["ln_vision.weight", "query_tokens", "Qformer.bert.encoder.layer.0.output_query.dense.bias"]
)
def test_lavis_files_are_read_strictly(tmp_path, monkeypatch, key):
    monkeypatch.setattr("prip.pivot_encoders.blip2.Blip2Config", tiny_blip2_config)
    shapes = lavis_state(**TINY)
    with pytest.raises(CheckpointError, match="foreign_thing"):
        load_pivot_encoder(save_lavis(tmp_path, shapes | {"foreign_thing": (1,)}, False), device="cpu")
    del shapes[key]
    with pytest.raises(CheckpointError, match="query_tokens" if key == "query_tokens" else "Missing key"):
        load_pivot_encoder(save_lavis(tmp_path, shapes, False), device="cpu")


def test_lavis_files_without_vision_or_with_code_are_refused(tmp_path):
    file = save_lavis(tmp_path, lavis_state(**TINY), True)
    (tmp_path / "eva_vit_g.pth").unlink()
    with pytest.raises(CheckpointError, match="there is no eva_vit_g.pth beside it"):
        load_pivot_encoder(file)
    torch.save({"model": {"query_tokens": print}}, file)
    with pytest.raises(CheckpointError, match="cannot be read as a file of tensors"):
        load_pivot_encoder(file)
