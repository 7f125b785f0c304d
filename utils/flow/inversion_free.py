"""Photographs without training: the flow run backwards, steered, or left out.

    euler         the flow run backwards, Euler steps           Liu et al. 2022, arXiv 2209.03003
    rf_solver     the same with second-order steps              RF-Solver, arXiv 2411.04746
    fireflow      second order at first-order cost              FireFlow, arXiv 2412.07517
    rf_inversion  steered to noise and back to the photograph   RF-Inversion, arXiv 2410.10792
    flowedit      no inversion: transport by differences        FlowEdit, arXiv 2412.08629
    flowslider    the same, only what steers it scaled          FlowSlider, arXiv 2604.02088

A class each; the formulas stand in their docstrings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from utils.flow.sampling import Fields, VelocityFn, euler_sample
from utils.flow.schedules import per_sample

Step = Callable[[VelocityFn, Tensor, Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor | None]]
"""(velocity, x at sigma, sigma, next sigma, memory) -> (x at the next sigma, memory for the next step)."""


def euler_step(
    velocity: VelocityFn, x: Tensor, sigma: Tensor, sigma_next: Tensor, memory: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """x' = x + (sigma' - sigma) v(x, max(sigma, sigma')).

    Upwards the velocity is taken at the noise level that sampling will leave from: at sigma = 0 the model was
    never trained, and both directions then use the same levels.
    """
    level = torch.maximum(sigma, sigma_next)
    return x + (sigma_next - sigma) * velocity(x, level.expand(len(x))), None


def midpoint_step(
    velocity: VelocityFn, x: Tensor, sigma: Tensor, sigma_next: Tensor, memory: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """x' = x + h v + h^2 / 2 dv/dsigma, h = sigma' - sigma       (RF-Solver, arXiv 2411.04746)

    with dv/dsigma = (v(x + h/2 v, sigma + h/2) - v) / (h/2), which makes it the midpoint rule.
    """
    half = (sigma_next - sigma) / 2
    v = velocity(x, sigma.expand(len(x)))
    v_middle = velocity(x + half * v, (sigma + half).expand(len(x)))
    return x + 2 * half * v_middle, None


def fireflow_step(
    velocity: VelocityFn, x: Tensor, sigma: Tensor, sigma_next: Tensor, memory: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """The midpoint rule with the last step's middle velocity in place of v(x, sigma).

    (FireFlow, arXiv 2412.07517, algorithm 1: one forward pass a step but for the first.)
    """
    half = (sigma_next - sigma) / 2
    v = velocity(x, sigma.expand(len(x))) if memory is None else memory
    v_middle = velocity(x + half * v, (sigma + half).expand(len(x)))
    return x + 2 * half * v_middle, v_middle


@dataclass(frozen=True)
class Backwards:
    """Run the base model's flow from the photograph up to the noise level of `skip`, then down with the edit.

    What lies above that level is never edited, so it is not visited.

    Attributes:
        step: of either direction.
    """

    uses_noise: ClassVar[bool] = False
    step: Step

    def edit(
        self, fields: Fields, x_0: Tensor, sigmas: Tensor, skip: int, scales: Sequence[float], noise: Tensor
    ) -> dict[float, Tensor]:
        """See `Inversion.edit`; there is no chance in it."""
        x_skip = self.integrate(fields({}), x_0, sigmas[skip:].flip(0))
        edited = self.integrate(_edited(fields, scales), _copies(x_skip, scales), sigmas[skip:])
        return _by_scale(edited, scales)

    @torch.no_grad()
    def integrate(self, velocity: VelocityFn, x: Tensor, sigmas: Tensor) -> Tensor:
        """Take x (B, ...) at sigmas[0] through all of sigmas, in either direction."""
        memory: Tensor | None = None
        for sigma, sigma_next in pairwise(sigmas):
            x, memory = self.step(velocity, x, sigma, sigma_next, memory)
        return x


@dataclass(frozen=True)
class RFInversion:
    """Steer the flow to a given noise on the way up, and to the photograph on the way down.

        up    v = v(x) + gamma ((noise - x) / (1 - sigma) - v(x))
        down  v = v(x; semantic s) + eta ((x - x_0) / sigma - v(x; semantic s))
    (RF-Inversion, arXiv 2410.10792, equations 8 and 15, with sigma = 1 - t.)

    Attributes:
        gamma: pull of the noise, in [0, 1].
        eta: pull of the photograph, in [0, 1].
        held: share of the steps down, from the first, in which eta acts.
    """

    uses_noise: ClassVar[bool] = True
    gamma: float = 0.5
    eta: float = 0.9
    held: float = 0.5

    def edit(
        self, fields: Fields, x_0: Tensor, sigmas: Tensor, skip: int, scales: Sequence[float], noise: Tensor
    ) -> dict[float, Tensor]:
        """See `Inversion.edit`."""
        base, down = fields({}), sigmas[skip:]
        release = down[round(self.held * (len(down) - 1))]
        x_skip = self.up(base, x_0, down.flip(0), noise)

        velocity, x_photo = _edited(fields, scales), _copies(x_0, scales)

        def steered(x: Tensor, sigma: Tensor) -> Tensor:
            v = velocity(x, sigma)
            to_photo = (x - x_photo) / per_sample(sigma, x)
            return torch.lerp(v, to_photo, self.eta * per_sample(sigma > release, x))

        return _by_scale(euler_sample(steered, _copies(x_skip, scales), down), scales)

    @torch.no_grad()
    def up(self, velocity: VelocityFn, x: Tensor, sigmas: Tensor, noise: Tensor) -> Tensor:
        """Take x (B, ...) at sigmas[0] = 0 up through all of sigmas, steered to `noise` (B, ...)."""
        for sigma, sigma_next in pairwise(sigmas):
            v = velocity(x, sigma_next.expand(len(x)))  # at the level that sampling will leave from
            to_noise = (noise - x) / (1 - sigma)
            x = x + (sigma_next - sigma) * torch.lerp(v, to_noise, self.gamma)
        return x


# --- without inversion ---


@dataclass(frozen=True)
class FlowEdit:
    """Transport the photograph by the difference of two velocities, edited and not, under the same noise.

        x_source = (1 - sigma) x_0 + sigma noise
        x_edited = z + x_source - x_0                            z = x_0 at first
        dz/dsigma = v(x_edited; semantic s) - v(x_source)        averaged over `draws` noises a step
    (FlowEdit, arXiv 2412.08629, algorithm 1; n_max = N - skip, n_min = 0.) At scale 0 the two
    velocities are one and z stays x_0: the reconstruction is exact.

    Attributes:
        draws: noises a step; their mean steadies the direction, each costs forward passes.
    """

    uses_noise: ClassVar[bool] = True
    draws: int = 1

    @torch.no_grad()
    def edit(
        self, fields: Fields, x_0: Tensor, sigmas: Tensor, skip: int, scales: Sequence[float], noise: Tensor
    ) -> dict[float, Tensor]:
        """See `Inversion.edit`. Each step's noise is `noise` newly shuffled: chance lies in it alone."""
        generator = torch.Generator().manual_seed(0)
        edited = [scale for scale in dict.fromkeys(scales) if scale]
        if not edited:
            return dict.fromkeys(scales, x_0)
        z = _copies(x_0, edited)
        for sigma, sigma_next in pairwise(sigmas[skip:]):
            change = torch.zeros_like(z)
            for _ in range(self.draws):
                x_source = (1 - sigma) * x_0 + sigma * _shuffled(noise, generator)
                x_edited = z + _copies(x_source - x_0, edited)
                change = change + self.change(fields, x_source, x_edited, sigma, edited) / self.draws
            z = z + (sigma_next - sigma) * change
        moved = _by_scale(z, edited)
        return {scale: moved.get(scale, x_0) for scale in scales}

    def change(
        self, fields: Fields, x_source: Tensor, x_edited: Tensor, sigma: Tensor, scales: Sequence[float]
    ) -> Tensor:
        """dz/dsigma (len(scales) B, ...) at x_source (B, ...) and x_edited, a part for each scale."""
        velocity = fields({}, *({"semantic": scale} for scale in scales))
        v = velocity(torch.cat([x_source, x_edited]), sigma.expand(len(x_source) + len(x_edited)))
        v_source, v_edited = v[: len(x_source)], v[len(x_source) :]
        return v_edited - _copies(v_source, scales)


@dataclass(frozen=True)
class FlowSlider(FlowEdit):
    """FlowEdit's difference in two, of which the slider scales the second alone.

        fidelity    v(x_edited) - v(x_source)                 holds what was edited to the photograph
        steering    v(x_edited; semantic 1) - v(x_edited)     moves it
        dz/dsigma = fidelity + s steering
    (FlowSlider, arXiv 2604.02088; there two prompts stand where the adapter is off and on.)
    """

    def change(
        self, fields: Fields, x_source: Tensor, x_edited: Tensor, sigma: Tensor, scales: Sequence[float]
    ) -> Tensor:
        """See `FlowEdit.change`."""
        velocity = fields({}, *({} for _ in scales), *({"semantic": 1.0} for _ in scales))
        states = torch.cat([x_source, x_edited, x_edited])
        v = velocity(states, sigma.expand(len(states)))
        v_source, v_edited, v_adapted = v.split([len(x_source), len(x_edited), len(x_edited)])
        s = torch.tensor(scales).repeat_interleave(len(x_source)).to(x_edited)
        fidelity = v_edited - _copies(v_source, scales)
        steering = v_adapted - v_edited
        return fidelity + per_sample(s, x_edited) * steering


# --- all scales as one batch ---


def _edited(fields: Fields, scales: Sequence[float]) -> VelocityFn:
    """The velocity of a batch with a part at each slider scale."""
    return fields(*({"semantic": scale} for scale in scales))


def _copies(x: Tensor, scales: Sequence[float]) -> Tensor:
    """(B, ...) -> (len(scales) B, ...), a part for each scale."""
    return x.repeat(len(scales), *[1] * (x.ndim - 1))


def _by_scale(x: Tensor, scales: Sequence[float]) -> dict[float, Tensor]:
    """(len(scales) B, ...) -> {scale: (B, ...)}."""
    return dict(zip(scales, x.chunk(len(scales)), strict=True))


def _shuffled(noise: Tensor, generator: torch.Generator) -> Tensor:
    """The values of each image's noise in a new order: standard normal again."""
    order = torch.randperm(noise[0].numel(), generator=generator).to(noise.device)
    return noise.flatten(1)[:, order].reshape(noise.shape)
