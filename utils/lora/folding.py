"""The same LoRA with another alpha or rank: what alpha / rank was goes into B, what rank lacks is zeros.

A factor that is a power of two is exact. Others round as the numbers' type does, to float32 at least.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import torch
from torch import Tensor

from utils.lora.linear import MAX_RANK, LinearLora
from utils.lora.names import by_part


def fold_alpha(loras: Mapping[str, LinearLora]) -> dict[str, LinearLora]:
    """LoRAs of one rank, the greatest in a part, and alpha = rank: for readers that know B A alone."""
    folded: dict[str, LinearLora] = {}
    for own in by_part(loras).values():
        rank = max(lora.rank for lora in own.values())
        folded |= {name: padded(with_alpha(lora, lora.rank), rank) for name, lora in own.items()}
    return folded


def with_alpha(lora: LinearLora, alpha: float) -> LinearLora:
    """The LoRA with this alpha, B by as much greater; bit for bit as it is if it has that alpha."""
    if lora.alpha == alpha:
        return lora
    return LinearLora(lora.weight_a, _scaled(lora.weight_b, lora.alpha / alpha), float(alpha))


def padded(lora: LinearLora, rank: int) -> LinearLora:
    """The LoRA with rows and columns of zeros up to a rank, exactly; alpha / rank stays."""
    more = rank - lora.rank
    if more <= 0:
        return lora
    weight_a = torch.nn.functional.pad(lora.weight_a, (0, 0, 0, more))
    weight_b = torch.nn.functional.pad(lora.weight_b, (0, more))
    return LinearLora(weight_a, weight_b, lora.scale * rank)


def unmistakable(loras: Mapping[str, LinearLora]) -> dict[str, LinearLora]:
    """The same LoRAs with alphas that stock diffusers cannot take for others'.

    It takes a linear's alpha, where it is not the commonest, for that of every linear whose name ends like
    it: proj_out's for single_transformer_blocks.0.proj_out's. So such a linear gets the alpha that is the
    commonest of the rest: by zeros if that is possible, else by a factor in B.
    """
    ends = [name for name in loras if any(other.endswith(f".{name}") for other in loras)]
    rest = Counter(lora.alpha for name, lora in loras.items() if name not in ends)
    if not rest:
        return dict(loras)
    common = rest.most_common(1)[0][0]
    return {name: _towards(lora, common) if name in ends else lora for name, lora in loras.items()}


def of_one_alpha(loras: Mapping[str, LinearLora]) -> dict[str, LinearLora]:
    """The same LoRAs with the commonest alpha in all: stock diffusers reads one for a text encoder."""
    common = Counter(lora.alpha for lora in loras.values()).most_common(1)[0][0]
    return {name: _towards(lora, common) for name, lora in loras.items()}


def _towards(lora: LinearLora, alpha: float) -> LinearLora:
    rank = alpha * lora.rank / lora.alpha if lora.alpha else 0.0
    if rank.is_integer() and lora.rank < rank <= MAX_RANK:
        return padded(lora, int(rank))
    return with_alpha(lora, alpha) if alpha else lora


def _scaled(weight_b: Tensor, factor: float) -> Tensor:
    """B times a factor; in float32 at least if it could not be divided out again without loss."""
    exact = weight_b.double() * factor
    scaled = exact.to(weight_b.dtype)
    if factor and not torch.equal((scaled.double() / factor).to(weight_b.dtype), weight_b):
        scaled = exact.to(torch.promote_types(weight_b.dtype, torch.float32))
    return scaled
