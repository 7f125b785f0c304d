"""Photographs by a LoRA trained on each: the paper's way, and how the edit joins in (arXiv 2506.07992)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

import torch
from torch import Tensor

from utils.flow.sampling import Fields, VelocityFn, sweep

Term = tuple[float, Mapping[str, float]]
"""(factor, adapter scales): this much of the velocity at these."""

Rule = Callable[[float, float], list[Term]]
"""(slider scale s other than 0, weight w) -> the edited velocity beside an inversion LoRA, a sum of terms."""


def _difference(scale: float, weight: float) -> list[Term]:
    """v_inv + w (v(semantic s) - v): the semantic adapter's change, added to the photograph's velocity."""
    return [(1.0, {"inversion": 1.0}), (weight, {"semantic": scale}), (-weight, {})]


def _joint(scale: float, weight: float) -> list[Term]:
    """v_inv + w (v(inversion + semantic s) - v_inv): both adapters active at once."""
    return [(1 - weight, {"inversion": 1.0}), (weight, {"inversion": 1.0, "semantic": scale})]


def _authors(scale: float, weight: float) -> list[Term]:
    """v_inv + w (v(semantic s) - v_inv): the authors' own rule, which jumps between scale 0 and any other."""
    return [(1 - weight, {"inversion": 1.0}), (weight, {"semantic": scale})]


RULES: dict[str, Rule] = {"difference": _difference, "joint": _joint, "authors": _authors}


@dataclass(frozen=True)
class Lora:
    """The adapter "inversion", trained on the photograph, leads there from any noise (arXiv 2506.07992).

    Attributes:
        rule: how the edit joins in, a key of RULES.
        weight: w, `semantic_cfg_scale`.
    """

    uses_noise: ClassVar[bool] = True
    rule: str = "difference"
    weight: float = 0.75

    def edit(
        self, fields: Fields, x_0: Tensor, sigmas: Tensor, skip: int, scales: Sequence[float], noise: Tensor
    ) -> dict[float, Tensor]:
        """See `Inversion.edit`; x_0 is known to the adapter alone."""

        def velocity_for(scales: Sequence[float]) -> VelocityFn:
            return _sums(fields, [self._terms(scale) for scale in scales])

        return sweep(velocity_for, noise, sigmas, skip, scales)

    def _terms(self, scale: float) -> list[Term]:
        return RULES[self.rule](scale, self.weight) if scale else [(1.0, {"inversion": 1.0})]


def _sums(fields: Fields, sums: Sequence[Sequence[Term]]) -> VelocityFn:
    """Velocity of a batch with a sum of terms for each of its equal parts; all terms in one forward pass."""
    terms = [term for one in sums for term in one]
    velocity = fields(*(scales for _, scales in terms))

    def summed(x: Tensor, sigma: Tensor) -> Tensor:
        parts, levels = (_each_term(each, sums) for each in (x, sigma))
        velocities = velocity(torch.cat(parts), torch.cat(levels)).chunk(len(terms))
        weighted = [factor * v for (factor, _), v in zip(terms, velocities, strict=True)]
        rest = iter(weighted)
        return torch.cat([torch.stack([*islice(rest, len(one))]).sum(0) for one in sums])

    return summed


def _each_term(batch: Tensor, sums: Sequence[Sequence[Term]]) -> list[Tensor]:
    """Each of a batch's parts as often as its sum has terms."""
    return [part for one, part in zip(sums, batch.chunk(len(sums)), strict=True) for _ in one]
