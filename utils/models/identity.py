"""Which base a transformer is: a hash that tells bases apart."""

from __future__ import annotations

from hashlib import sha256

import torch
from torch import Tensor, nn

from utils.models.adapters import linear_layers

_REMEMBERED = "_pairedit_base_hash"
_SAMPLES = 16  # weights of each linear that the base's hash looks at


def base_hash(transformer: nn.Module) -> str:
    """Tell base models apart: a hash of the names, shapes and some weights of all linears, 16 hex digits.

    Of each linear, 16 evenly spaced weights are read, in bfloat16, so that the hash is the same in whatever
    dtype the base is loaded, and of a transformer with adapters that of its base. Once weights are quantized
    or spread over processes it can't be read off them: `remember_base_hash` before.
    """
    if (remembered := getattr(transformer, _REMEMBERED, None)) is not None:
        return remembered
    names, values = [], []
    for name, linear in linear_layers(transformer).items():
        weight = linear.weight.detach().flatten()
        index = evenly_spaced(len(weight)).to(weight.device)
        names.append(f"{name} {tuple(linear.weight.shape)}")
        values.append(weight[index].to(torch.bfloat16))
    digest = sha256("\n".join(names).encode())
    digest.update(torch.cat(values).view(torch.uint8).cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def remember_base_hash(transformer: nn.Module) -> None:
    """Have `base_hash` of this transformer stay what it is now, whatever becomes of its weights."""
    setattr(transformer, _REMEMBERED, base_hash(transformer))


def evenly_spaced(length: int) -> Tensor:
    """Indices of 16 of `length` values, the first and the last among them; exact for any length."""
    return torch.arange(_SAMPLES) * (length - 1) // (_SAMPLES - 1)
