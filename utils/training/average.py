"""The moving mean of a training's weights: what is saved in place of the last ones, where it is asked for.

mean = decay mean + (1 - decay) weights        after each step, from the weights as they began
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Average:
    """The mean of some weights.

    Attributes:
        decay: share of itself that it keeps each step.
        means: of the weights, in their order, on their device.
    """

    decay: float
    means: list[Tensor]

    @classmethod
    def of(cls, weights: Sequence[Tensor], decay: float) -> Self:
        """Begun from the weights as they are."""
        return cls(decay, [weight.detach().clone() for weight in weights])

    def update(self, weights: Sequence[Tensor]) -> None:
        """Take in the weights after a step."""
        with torch.no_grad():
            torch._foreach_lerp_(self.means, [weight.detach() for weight in weights], 1 - self.decay)

    @contextmanager
    def in_place_of(self, weights: Sequence[Tensor]) -> Iterator[None]:
        """Inside, the weights are the means; afterwards what they were, bit for bit."""
        before = [weight.detach().clone() for weight in weights]
        try:
            _copy(self.means, weights)
            yield
        finally:
            _copy(before, weights)


def as_saved(average: Average | None, weights: Sequence[Tensor]) -> AbstractContextManager[None]:
    """Inside, the weights are what is saved: their means, or themselves without an average."""
    return nullcontext() if average is None else average.in_place_of(weights)


def restore_means(average: Average | None, saved: Sequence[Tensor]) -> None:
    """Put saved means back; raises ValueError for more or fewer than there are, none without an average."""
    _copy(saved, [] if average is None else average.means)


def _copy(values: Sequence[Tensor], weights: Sequence[Tensor]) -> None:
    for weight, value in zip(weights, values, strict=True):
        weight.data.copy_(value)
