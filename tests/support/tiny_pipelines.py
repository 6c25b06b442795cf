"""Diffusers pipelines of every family, small enough for tests: random weights, images of 16 or 32 pixels."""

from __future__ import annotations

from typing import Any


def clip_like_tokenizer(max_length: int = 24) -> Any:
    """A byte-level BPE with CLIP's frame: a begin and an end token."""
    from tiny_parts import USER_PROMPTS

    from prip.training.settings import UnetSizes
    from prip.training.world.generator import train_text_tokenizer

    return train_text_tokenizer(USER_PROMPTS, UnetSizes(vocab_size=300, max_tokens=max_length))


def t5_like_tokenizer() -> Any:
    """A unigram tokenizer with T5's habits: words begin with a metaspace, a text ends with one end token."""
    from tiny_parts import MODIFIERS, USER_PROMPTS
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("  ", " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator([*USER_PROMPTS, *MODIFIERS] * 4, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    )


def clip_text_config(tokenizer: Any, **changes: Any) -> Any:
    """A CLIP text encoder of width 16 with two layers: SDXL and SD3 read the last but one."""
    from transformers import CLIPTextConfig

    shape: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    shape |= {"num_attention_heads": 2, "projection_dim": 16, "max_position_embeddings": tokenizer.model_max_length}
    return CLIPTextConfig(vocab_size=len(tokenizer), **{**shape, **ids, **changes})


def t5_encoder(tokenizer: Any, width: int = 16) -> Any:
    """A T5 encoder with one layer."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(vocab_size=len(tokenizer), d_model=width, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    return T5EncoderModel(config)


def autoencoder(channels: int = 4, **changes: Any) -> Any:
    """A variational autoencoder that halves the resolution once."""
    from diffusers import AutoencoderKL

    shape: dict[str, Any] = {"block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4}
    shape |= {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
    return AutoencoderKL(latent_channels=channels, sample_size=16, **{**shape, **changes})


def unet(channels: int = 4, out_channels: int | None = None, cross: int = 16, **changes: Any) -> Any:
    """A UNet of width 16 over latents of 8 a side."""
    from diffusers import UNet2DConditionModel

    shape: dict[str, Any] = {
        "sample_size": 8,
        "block_out_channels": (16, 16),
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "layers_per_block": 1,
        "attention_head_dim": 8,
        "norm_num_groups": 8,
    }
    return UNet2DConditionModel(
        in_channels=channels, out_channels=out_channels or channels, cross_attention_dim=cross, **{**shape, **changes}
    )


def stable_diffusion(**changes: Any) -> Any:
    """Stable Diffusion 1.x, with PNDM and a safety checker as it is published."""
    from diffusers import PNDMScheduler, StableDiffusionPipeline
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPTextModel, CLIPVisionConfig
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tokenizer = clip_like_tokenizer()
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision_config = CLIPVisionConfig(image_size=16, patch_size=8, **vision)
    checker = CLIPConfig(vision_config=vision_config, text_config=clip_text_config(tokenizer), projection_dim=16)
    parts: dict[str, Any] = {
        "vae": autoencoder(),
        "text_encoder": CLIPTextModel(clip_text_config(tokenizer)),
        "tokenizer": tokenizer,
        "unet": unet(),
        "scheduler": PNDMScheduler(beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1),
        "safety_checker": StableDiffusionSafetyChecker(checker),
        "feature_extractor": CLIPImageProcessorPil(
            size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}, do_resize=True
        ),
    }
    return StableDiffusionPipeline(**{**parts, **changes})


def stable_diffusion_xl() -> Any:
    """Stable Diffusion XL: two text encoders, a pooled text and the size as further conditions."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    tokenizer = clip_like_tokenizer()
    network = unet(
        cross=32,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 16,
        transformer_layers_per_block=1,
        use_linear_projection=True,
    )
    return StableDiffusionXLPipeline(
        vae=autoencoder(),
        text_encoder=CLIPTextModel(clip_text_config(tokenizer)),
        text_encoder_2=CLIPTextModelWithProjection(clip_text_config(tokenizer)),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=network,
        scheduler=EulerDiscreteScheduler(beta_schedule="scaled_linear", steps_offset=1),
        add_watermarker=False,
    )


def stable_diffusion_3() -> Any:
    """Stable Diffusion 3: a transformer that matches flows, two CLIPs and a T5."""
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
    from transformers import CLIPTextModelWithProjection

    clip, t5 = clip_like_tokenizer(), t5_like_tokenizer()
    network = SD3Transformer2DModel(
        sample_size=8,
        patch_size=1,
        in_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=32,
        caption_projection_dim=32,
        pooled_projection_dim=32,
        out_channels=4,
    )
    return StableDiffusion3Pipeline(
        transformer=network,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=autoencoder(shift_factor=0.06, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=CLIPTextModelWithProjection(clip_text_config(clip)),
        tokenizer=clip,
        text_encoder_2=CLIPTextModelWithProjection(clip_text_config(clip)),
        tokenizer_2=clip,
        text_encoder_3=t5_encoder(t5, width=32),
        tokenizer_3=t5,
    )


def flux() -> Any:
    """Flux: packed latents, guidance as an input."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextModel

    clip, t5 = clip_like_tokenizer(), t5_like_tokenizer()
    network = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        pooled_projection_dim=16,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=True,
    )
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=autoencoder(shift_factor=0.06, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=CLIPTextModel(clip_text_config(clip)),
        tokenizer=clip,
        text_encoder_2=t5_encoder(t5),
        tokenizer_2=t5,
        transformer=network,
    )


def deepfloyd_if() -> Any:
    """DeepFloyd-IF's first stage: pixels, a T5, a learned variance."""
    from diffusers import DDPMScheduler, IFPipeline

    tokenizer = t5_like_tokenizer()
    scheduler = DDPMScheduler(
        beta_schedule="squaredcos_cap_v2", variance_type="learned_range", thresholding=True, sample_max_value=1.5
    )
    return IFPipeline(
        tokenizer=tokenizer,
        text_encoder=t5_encoder(tokenizer),
        unet=unet(3, out_channels=6, sample_size=16),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        watermarker=None,
        requires_safety_checker=False,
    )


def deepfloyd_if_upscaler() -> Any:
    """DeepFloyd-IF's second stage: from 16 to 32 pixels a side; the noise on the small image is an input."""
    from diffusers import DDPMScheduler, IFSuperResolutionPipeline

    tokenizer = t5_like_tokenizer()
    return IFSuperResolutionPipeline(
        tokenizer=tokenizer,
        text_encoder=t5_encoder(tokenizer),
        unet=unet(6, out_channels=6, sample_size=32, num_class_embeds=1000),
        scheduler=DDPMScheduler(variance_type="learned_range", thresholding=True, sample_max_value=1.0),
        image_noising_scheduler=DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        safety_checker=None,
        feature_extractor=None,
        watermarker=None,
        requires_safety_checker=False,
    )


FAMILIES = {
    "sd": stable_diffusion,
    "sdxl": stable_diffusion_xl,
    "sd3": stable_diffusion_3,
    "flux": flux,
    "if": deepfloyd_if,
}
"""How each is made; all draw 16 x 16 pixels by default but Flux, which is asked to."""


def drawn(refining: Any) -> tuple[Any, str]:
    """What a pipeline that refines draws, and from which text; here, so that a process of its own can import it."""
    import torch

    noise = torch.Generator().manual_seed(1)
    output = refining("a cat", generator=noise, height=16, width=16, num_inference_steps=2, output_type="np")
    return output.images, output.refined_prompt
