"""The autoencoder's topology and its losses, on exact cases."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor

from tinyflux.vae import KL_WEIGHT, build_vae, encode, kl_divergence, reconstruct, vae_losses

CPU = torch.device("cpu")


class Images:
    """uint8 images behind an index, as tinyflux.faces.Faces has them."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Tensor) -> Tensor:
        return self.images[index]


NOISE = Images(torch.randint(0, 256, (5, 3, 32, 32), generator=torch.Generator().manual_seed(0)).byte())


class Perfect:
    """A stand-in for the autoencoder: the posterior is N(pixels + offset, exp(logvar))."""

    def __init__(self, offset: float = 0.0, logvar: float = -30.0) -> None:
        self.offset, self.logvar, self.sides = offset, logvar, []

    def encode(self, pixels: Tensor) -> SimpleNamespace:
        self.sides.append(tuple(pixels.shape[-2:]))
        moments = torch.cat([pixels + self.offset, torch.full_like(pixels, self.logvar)], dim=1)
        return SimpleNamespace(latent_dist=DiagonalGaussianDistribution(moments))

    def decode(self, latents: Tensor) -> SimpleNamespace:
        return SimpleNamespace(sample=latents)


def loss(vae: Perfect, step: int = 5) -> dict[str, float]:
    named = vae_losses(vae, NOISE, 8, 3, CPU)(step, torch.Generator().manual_seed(1))
    return {name: value.item() for name, value in named.items()}


@torch.no_grad()
def test_it_has_fluxs_topology() -> None:
    vae = build_vae().eval()
    posterior = vae.encode(torch.zeros(2, 3, 64, 128)).latent_dist
    assert posterior.mean.shape == (2, 16, 8, 16)
    assert vae.decode(posterior.mean).sample.shape == (2, 3, 64, 128)
    assert vae.quant_conv is None
    assert vae.post_quant_conv is None
    assert sum(parameter.numel() for parameter in vae.parameters()) < 2_000_000


def test_the_divergence_of_gaussians() -> None:
    """KL(N(m, s^2) || N(0, 1)) = (m^2 + s^2 - 1) / 2 - log s; torch.distributions has it too."""
    assert kl_divergence(SimpleNamespace(mean=torch.zeros(3), logvar=torch.zeros(3))).item() == 0
    assert kl_divergence(SimpleNamespace(mean=torch.ones(3), logvar=torch.zeros(3))).item() == 0.5
    mean, logvar = torch.tensor([0.3, -2.0, 1.0]), torch.tensor([0.5, -3.0, 0.0])
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, (logvar / 2).exp()), normal(0.0, 1.0)).mean()
    torch.testing.assert_close(kl_divergence(SimpleNamespace(mean=mean, logvar=logvar)), expected)


def test_losses_of_a_constant_error() -> None:
    assert loss(Perfect())["l1"] == pytest.approx(0, abs=1e-5)
    off = loss(Perfect(offset=-0.3))
    assert off["l1"] == pytest.approx(0.3, abs=1e-4)
    assert off["mse"] == pytest.approx(0.09, abs=1e-4)


def test_the_latent_is_drawn_from_the_posterior() -> None:
    """At a deviation of 0.1 the error is that noise: E|e| = 0.1 sqrt(2 / pi), E e^2 = 0.01."""
    drawn = loss(Perfect(logvar=2 * math.log(0.1)))
    assert drawn["l1"] == pytest.approx(0.1 * math.sqrt(2 / math.pi), rel=0.03)
    assert drawn["mse"] == pytest.approx(0.01, rel=0.05)


def test_the_divergence_is_weighted() -> None:
    flat = Images(torch.full((5, 3, 32, 32), 255, dtype=torch.uint8))  # latents of 1, deviation 1
    named = vae_losses(Perfect(logvar=0.0), flat, 2, 0, CPU)(0, torch.Generator())
    assert named["kl"].item() == pytest.approx(KL_WEIGHT * 0.5)


def test_the_first_steps_see_crops() -> None:
    vae = Perfect()
    for step in range(5):
        loss(vae, step)
    assert vae.sides == [(16, 16)] * 3 + [(32, 32)] * 2


@torch.no_grad()
def test_encoding_in_batches_and_reconstructing() -> None:
    vae = build_vae().eval()
    index = torch.tensor([4, 0, 2])
    latents = encode(vae, NOISE, index, CPU, batch_size=2)
    assert latents.dtype == torch.float16
    pixels = NOISE[index].float() / 127.5 - 1
    posterior = vae.encode(pixels).latent_dist
    assert (latents.float() - posterior.mean).square().mean() < 1e-3 * posterior.mean.var()
    expected = vae.decode(posterior.mean).sample
    torch.testing.assert_close(reconstruct(vae, pixels), expected.clamp(-1, 1), atol=1e-5, rtol=1e-4)
