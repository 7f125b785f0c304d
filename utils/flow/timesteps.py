"""Which noise levels a training step sees: distributions of sigma over [0, 1].

    steps          the sampler's own levels, those of start_step..end_step, each as likely
    uniform        every level as likely
    logit_normal   sigmoid of a standard normal: more in the middle     (arXiv 2403.03206, section 3.1)
    shifted        logit_normal, moved to more noise as the sampler's levels are for an image of this size

Everything random is drawn on the CPU from the generator given.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

Draw = Callable[[Tensor, Tensor, int, Generator], Tensor]
"""(sampler's levels (N + 1,), those of start_step..end_step (K,), count, generator) -> sigma (count,)."""


def _steps(levels: Tensor, own: Tensor, count: int, generator: Generator) -> Tensor:
    return own[torch.randint(len(own), (count,), generator=generator).to(own.device)]


def _uniform(levels: Tensor, own: Tensor, count: int, generator: Generator) -> Tensor:
    return torch.rand(count, generator=generator)


def _logit_normal(levels: Tensor, own: Tensor, count: int, generator: Generator) -> Tensor:
    return torch.randn(count, generator=generator).sigmoid()


def _shifted(levels: Tensor, own: Tensor, count: int, generator: Generator) -> Tensor:
    sigma = _logit_normal(levels, own, count, generator)
    return shifted_by(shift_of(levels), sigma)


def shifted_by(shift: float, sigma: Tensor) -> Tensor:
    """Levels moved to more noise, for a shift above 1."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def shift_of(levels: Tensor) -> float:
    """By how much a sampler's levels (N + 1,) are shifted from N even steps; 1 where they are not.

    shift sigma / (1 + (shift - 1) sigma), solved for shift at the level in the middle.
    """
    steps = len(levels) - 1
    if steps < 2:
        return 1.0
    middle = steps // 2
    even, found = 1 - middle / steps, float(levels[middle])
    return found * (1 - even) / (even * (1 - found))


TIMESTEPS: dict[str, Draw] = {
    "steps": _steps,
    "uniform": _uniform,
    "logit_normal": _logit_normal,
    "shifted": _shifted,
}
"""The values of the key `timesteps`."""


def draw_sigmas(
    timesteps: str,
    levels: Tensor,
    first: int,
    last: int,
    count: int,
    generator: Generator,
    shift: float = 1.0,
) -> Tensor:
    """Noise levels (count,) of a training step, on the device of `levels`.

    Args:
        timesteps: a key of TIMESTEPS.
        levels: the sampler's (N + 1,), falling from 1 to 0, for images of this size.
        first, last: step indices between which `steps` draws.
        count: how many.
        generator: on the CPU.
        shift: of what is drawn, 1 for none.
    """
    sigma = TIMESTEPS[timesteps](levels, levels[first : last + 1], count, generator)
    return (sigma if shift == 1 else shifted_by(shift, sigma)).to(levels.device)
