"""A linear autoencoder of image patches: the latent space of the miniature's diffusion generator."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput
from torch import Tensor, nn


class PatchAutoencoder(ModelMixin, ConfigMixin):
    """Principal components of non-overlapping patches, with the interface of StableDiffusionPipeline's VAE.

    Images are float `(n, 3, height, width)` in -1..1, latents `(n, latent_channels, height / patch, width / patch)`.
    Latents have unit variance overall, not per channel, so that their errors are proportional to pixel errors.
    """

    @register_to_config
    def __init__(
        self,
        patch_size: int = 8,
        latent_channels: int = 64,
        scaling_factor: float = 1.0,
        force_upcast: bool = False,
        block_out_channels: list[int] | None = None,
    ) -> None:
        """Build with zero weights; pipelines read scaling_factor, force_upcast and the length of block_out_channels,
        which is the number of times that the resolution is halved, plus one."""
        super().__init__()
        if patch_size & (patch_size - 1):
            raise ValueError(f"patch_size: expected a power of two, got {patch_size}")
        self.register_to_config(block_out_channels=[1] * (int(math.log2(patch_size)) + 1))
        self.components = nn.Parameter(torch.zeros(latent_channels, 3, patch_size, patch_size), requires_grad=False)
        self.mean = nn.Parameter(torch.zeros(1, 3, patch_size, patch_size), requires_grad=False)
        self.scale = nn.Parameter(torch.ones(1), requires_grad=False)

    @torch.no_grad()
    def fit(self, images: Tensor) -> float:
        """Fit to images in -1..1; return the share of variance that the components keep."""
        channels, _, patch, _ = self.components.shape
        patches = F.unfold(images, patch, stride=patch).transpose(1, 2).reshape(-1, 3 * patch * patch)
        mean = patches.mean(0)
        variance, vectors = torch.linalg.eigh(torch.cov((patches - mean).T))
        largest = variance[-channels:]
        self.mean.copy_(mean.view_as(self.mean))
        self.components.copy_(vectors[:, -channels:].flip(1).T.reshape(self.components.shape))
        self.scale.fill_(float(largest.mean().rsqrt()))
        return float(largest.sum() / variance.sum())

    def _tiled_mean(self, height: int, width: int) -> Tensor:
        return self.mean.tile(1, 1, height, width)

    def encode(self, images: Tensor) -> Tensor:
        """Encode images to latents."""
        patch = self.components.shape[-1]
        mean = self._tiled_mean(images.shape[-2] // patch, images.shape[-1] // patch)
        return F.conv2d(images - mean, self.components, stride=patch) * self.scale

    def decode(
        self, latents: Tensor, return_dict: bool = True, generator: object = None
    ) -> DecoderOutput | tuple[Tensor]:
        """Decode latents to images."""
        images = F.conv_transpose2d(latents / self.scale, self.components, stride=self.components.shape[-1])
        images = images + self._tiled_mean(*latents.shape[-2:])
        return DecoderOutput(sample=images) if return_dict else (images,)
