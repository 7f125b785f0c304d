"""The autoencoder: FLUX's topology (8x, 16 latent channels, no quant convs), sized for 128 px portraits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor

from tinyflux.faces import Faces, to_pixels
from tinyflux.fit import Losses, Schedule, fit

KL_WEIGHT = 2e-4
"""Per latent element. Enough that decoding tolerates the noise a sampler leaves, too little to blur."""


def build_vae() -> AutoencoderKL:
    """An untrained autoencoder."""
    return AutoencoderKL(
        block_out_channels=(16, 32, 64, 96),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=8,
        sample_size=128,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def vae_losses(
    vae: AutoencoderKL, faces: Faces, batch_size: int, crop_steps: int, device: torch.device
) -> Callable[[int, torch.Generator], Losses]:
    """|x - x'| + (x - x')^2, and the KL divergence of the posterior from N(0, 1) (arXiv 1312.6114, eq. 10).

    The first `crop_steps` see crops of a quarter of the image: four times the steps in the same time.
    """

    def losses(step: int, generator: torch.Generator) -> Losses:
        index = torch.randint(len(faces), (batch_size,), generator=generator)
        pixels = to_pixels(faces[index]).to(device)
        if step < crop_steps:
            pixels = _random_crop(pixels, generator)
        with torch.autocast(device.type, torch.bfloat16):
            posterior = vae.encode(pixels).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=generator).to(device)
            error = vae.decode(posterior.mean + posterior.std * noise).sample.float() - pixels
        return {
            "l1": error.abs().mean(),
            "mse": error.square().mean(),
            "kl": KL_WEIGHT * kl_divergence(posterior),
        }

    return losses


def _random_crop(pixels: Tensor, generator: torch.Generator) -> Tensor:
    side = pixels.shape[-1] // 2
    top, left = torch.randint(0, side + 1, (2,), generator=generator).tolist()
    return pixels[..., top : top + side, left : left + side]


def kl_divergence(posterior: DiagonalGaussianDistribution) -> Tensor:
    """Mean over latent elements, in nats."""
    mean, logvar = posterior.mean.float(), posterior.logvar.float()
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()


def train_vae(
    faces: Faces, schedule: Schedule, batch_size: int, crop_steps: int, checkpoint: Path, device: torch.device
) -> AutoencoderKL:
    """Train, then set `scaling_factor` and `shift_factor` so that latents have mean 0 and variance 1."""
    vae = build_vae().to(device)
    vae = fit(vae, vae_losses(vae, faces, batch_size, crop_steps, device), schedule, checkpoint)
    sample = encode(vae, faces, torch.arange(min(2048, len(faces))), device).float()
    vae.register_to_config(
        scaling_factor=round(1 / sample.std().item(), 4), shift_factor=round(sample.mean().item(), 4)
    )
    return vae


@torch.no_grad()
def encode(
    vae: AutoencoderKL, faces: Faces, index: Tensor, device: torch.device, batch_size: int = 64
) -> Tensor:
    """Posterior means (B, 16, 16, 16) in float16, unscaled, of the faces at `index` (B,)."""
    batches = index.split(batch_size)
    return torch.cat([encode_pixels(vae, to_pixels(faces[batch]).to(device)).cpu() for batch in batches])


@torch.no_grad()
def encode_pixels(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """Posterior means (B, 16, h, w) in float16, unscaled, of pixels (B, 3, H, W) in [-1, 1]."""
    with torch.autocast(pixels.device.type, torch.bfloat16):
        return vae.encode(pixels).latent_dist.mean.half()


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """Encode and decode (B, 3, H, W) in [-1, 1] by the posterior mean."""
    return vae.decode(vae.encode(pixels).latent_dist.mean).sample.clamp(-1, 1)
