"""Flow schedules: how clean latents become noisy ones, and which velocity a model is to predict there.

Convention: sigma in [0, 1], 1 = noise; velocity = d x_t / d sigma. torch only.
"""

from __future__ import annotations

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


def per_sample(sigma: Tensor, like: Tensor) -> Tensor:
    """(B,) to (B, 1, ..., 1) with the rank of `like`."""
    return sigma.reshape(-1, *[1] * (like.ndim - 1))
