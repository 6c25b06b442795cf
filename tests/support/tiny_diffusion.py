"""A Stable Diffusion small enough for tests: random weights, four latents a side."""

from __future__ import annotations

from typing import Any


def tiny_pipeline(tokenizer: Any, patch_size: int = 4) -> Any:
    """A StableDiffusionPipeline that draws images of 4 * patch_size pixels a side."""
    import torch
    from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from prip.generators.autoencoder import PatchAutoencoder

    channels, width = 16, 16
    autoencoder = PatchAutoencoder(patch_size, channels)
    autoencoder.fit(torch.rand(64, 3, 4 * patch_size, 4 * patch_size) * 2 - 1)
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=width,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    unet = UNet2DConditionModel(
        sample_size=4,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(16,),
        down_block_types=["CrossAttnDownBlock2D"],
        up_block_types=["CrossAttnUpBlock2D"],
        layers_per_block=1,
        cross_attention_dim=width,
        attention_head_dim=8,
        norm_num_groups=8,
    )
    return StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
