"""The LoRA layer: all adapters that act in two matrix products, each part of the batch at its own scales.

peft makes, names and removes the adapters; this is its linear layer with another forward pass. Side by side,
the matrices of n adapters of rank r are those of one of rank n r:

    y = W x + B (s * (A x)),   A = [A_1; A_2; ...],   B = [B_1, B_2, ...],   s = scale alpha / rank of each

s may differ along the batch. So all scales of a slider, or both passes of a training step, are one forward
pass of the model; and since scales are values in a tensor, a compiled model is not compiled anew for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import torch
from peft.tuners import lora
from torch import Tensor, nn
from torch.nn import functional

from utils.flow.mixes import Mix

Sizes = tuple[tuple[str, int, float], ...]
FrozenMixes = tuple[tuple[tuple[tuple[str, float], ...], tuple[str, ...]], ...]


@dataclass(frozen=True)
class Acting:
    """What a layer adds to its base for a batch of G equal parts.

    Attributes:
        parts: (adapter, whether it learns) in turn; an adapter may be there twice, for parts of the batch in
            which it learns and others in which it does not.
        scales: (G, ranks of all parts together).
    """

    parts: tuple[tuple[str, bool], ...]
    scales: Tensor


class StackedLora(lora.Linear):
    """A linear with adapters, of which those in `acting` act; None leaves it to peft, where all are off."""

    acting: Acting | None = None

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(B, ..., in_features) -> (B, ..., out_features), in the base layer's dtype."""
        if self.acting is None:
            return super().forward(x, *args, **kwargs)
        result = self.base_layer(x, *args, **kwargs)
        a, b = self._stacked(self.acting.parts)
        if not torch.is_autocast_enabled(x.device.type):
            x = x.to(a.dtype)
        hidden = functional.linear(x, a)  # (B, ..., ranks)
        hidden = _scaled(hidden, self.acting.scales)
        return (result + functional.linear(hidden, b)).to(result.dtype)

    def _stacked(self, parts: Sequence[tuple[str, bool]]) -> tuple[Tensor, Tensor]:
        """A (ranks, in_features) and B (out_features, ranks) of all parts; without gradient to idle ones."""
        weights = [(lora_weights(self, name), learns) for name, learns in parts]
        pairs = [(a, b) if learns else (a.detach(), b.detach()) for (a, b), learns in weights]
        if len(pairs) == 1:
            return pairs[0]
        return torch.cat([a for a, _ in pairs]), torch.cat([b for _, b in pairs], dim=1)


def lora_weights(layer: lora.LoraLayer, name: str) -> tuple[Tensor, Tensor]:
    """A (rank, in_features) and B (out_features, rank) of one adapter in one layer."""
    linear_a, linear_b = cast(nn.Linear, layer.lora_A[name]), cast(nn.Linear, layer.lora_B[name])
    return linear_a.weight, linear_b.weight


@lru_cache(maxsize=1024)
def acting(sizes: Sizes, mixes: FrozenMixes, device: torch.device) -> Acting | None:
    """What a layer is to do for a batch of len(mixes) equal parts; None where none of its adapters acts.

    Remembered, so that a training step makes no tensor anew and does not wait for a copy to the device.

    Args:
        sizes: (name, rank, alpha) of the layer's adapters, in the order they were added: float sums depend
            on it.
        mixes: `frozen` of one mix a part of the batch.
        device: of the scales.
    """
    parts, columns = [], []
    for name, rank, alpha in sizes:
        for learns in (True, False):
            scales = [dict(scales).get(name, 0.0) * ((name in train) is learns) for scales, train in mixes]
            if any(scales):
                parts.append((name, learns))
                columns += [[scale * alpha / rank for scale in scales]] * rank
    if not parts:
        return None
    return Acting(tuple(parts), torch.tensor(columns).T.contiguous().to(device))


def frozen(mixes: Sequence[Mix]) -> FrozenMixes:
    """Mixes as a key of a dict."""
    return tuple((tuple(mix.scales.items()), mix.train) for mix in mixes)


def _scaled(hidden: Tensor, scales: Tensor) -> Tensor:
    """(B, ..., R) times (G, R), each row's part of the batch at its own."""
    groups, ranks = scales.shape
    if groups == 1:
        return hidden * scales[0]
    by_group = hidden.unflatten(0, (groups, -1))
    return (by_group * scales.reshape(groups, *[1] * (hidden.ndim - 1), ranks)).flatten(0, 1)
