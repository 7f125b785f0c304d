"""Flow schedules: how clean latents become noisy ones, and which velocity a model is to predict there.

Convention: sigma in [0, 1], 1 = noise; velocity = d x_t / d sigma. torch only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # see utils/flow/objectives.py
    from torch import Tensor


class Schedule(Protocol):
    """A path from clean latents (sigma = 0) towards noise (sigma = 1)."""

    def add_noise(self, x_0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """x_t (B, C, h, w) at noise level sigma (B,) in [0, 1]."""
        ...

    def velocity(self, x_0: Tensor, noise: Tensor) -> Tensor:
        """d x_t / d sigma (B, C, h, w); on these straight paths the same at every sigma."""
        ...


@dataclass(frozen=True)
class RectifiedFlow:
    """The straight line from data to noise, x_t = (1 - sigma) x_0 + sigma noise (Liu et al. 2022)."""

    def add_noise(self, x_0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """x_t (B, C, h, w) of clean latents and standard normal noise (B, C, h, w), sigma (B,) in [0, 1]."""
        sigma = per_sample(sigma, x_0)
        return (1 - sigma) * x_0 + sigma * noise

    def velocity(self, x_0: Tensor, noise: Tensor) -> Tensor:
        """noise - x_0 (B, C, h, w)."""
        return noise - x_0


@dataclass(frozen=True)
class ContentPreserving:
    """PairEdit's content-preserving schedule, x_t = x_0 + sigma beta noise (arXiv 2506.07992).

    The image keeps its full strength at every noise level, so the content adapter can memorise it and leave
    nothing but the edit to the semantic adapter.

    Attributes:
        beta: strength of the noise at sigma = 1; the YAML's `noise_scales`.
    """

    beta: float = 1.0

    def add_noise(self, x_0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """x_t (B, C, h, w) of clean latents and standard normal noise (B, C, h, w), sigma (B,) in [0, 1]."""
        return x_0 + per_sample(sigma, x_0) * self.beta * noise

    def velocity(self, x_0: Tensor, noise: Tensor) -> Tensor:
        """beta * noise (B, C, h, w)."""
        return self.beta * noise


def shift_mu(
    image_seq_len: int,
    base_shift: float = 0.5,
    max_shift: float = 1.15,
    base_seq: int = 256,
    max_seq: int = 4096,
) -> float:
    """FLUX's log-shift for an image of `image_seq_len` tokens.

    A line through (base_seq, base_shift) and (max_seq, max_shift): larger images need more of the steps at
    high noise (Esser et al. 2024, section 5.3.2; the defaults are FLUX.1-dev's).
    """
    slope = (max_shift - base_shift) / (max_seq - base_seq)
    return base_shift + slope * (image_seq_len - base_seq)


def shifted_sigmas(
    num_inference_steps: int,
    image_seq_len: int,
    base_shift: float = 0.5,
    max_shift: float = 1.15,
    base_seq: int = 256,
    max_seq: int = 4096,
) -> Tensor:
    """The noise levels of a sampling run, as FluxPipeline's scheduler lays them out.

    sigma' = e^mu / (e^mu + 1/sigma - 1) over sigma = 1, ..., 1/N, then 0 (Esser et al. 2024, equation 23).

    Args:
        num_inference_steps: N >= 1.
        image_seq_len: number of image tokens, h/2 * w/2 for latents of h x w.
        base_shift, max_shift, base_seq, max_seq: the line that gives mu, see `shift_mu`.

    Returns:
        (N + 1,) float32, falling from 1 to 0; step index i goes from sigmas[i] to sigmas[i + 1].

    Raises:
        ValueError: if N < 1.
    """
    import torch

    if num_inference_steps < 1:
        raise ValueError(f"num_inference_steps must be at least 1, found {num_inference_steps}")
    exp_mu = math.exp(shift_mu(image_seq_len, base_shift, max_shift, base_seq, max_seq))
    sigmas = torch.linspace(1, 1 / num_inference_steps, num_inference_steps, dtype=torch.float64)
    shifted = exp_mu / (exp_mu + 1 / sigmas - 1)
    return torch.cat([shifted, shifted.new_zeros(1)]).float()


def per_sample(sigma: Tensor, like: Tensor) -> Tensor:
    """(B,) to (B, 1, ..., 1) with the rank of `like`."""
    return sigma.reshape(-1, *[1] * (like.ndim - 1))
