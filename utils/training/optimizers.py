"""The optimizers of adapters: a row each.

adamw       AdamW, fused: one call a step (Loshchilov and Hutter 2019, arXiv 1711.05101)
adamw8bit   the same with its moments in 8 bits, of the extra `quantization` (arXiv 2110.02861); on CUDA
prodigy     finds its own step size, lr then a factor, 1 as a rule, of the extra `prodigy` (arXiv 2306.06101)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from utils.errors import UserError, nearest

Weights = Sequence[Tensor] | list[dict[str, Any]]
"""Tensors, or groups of them with learning rates of their own, as torch has it."""


def _adamw(weights: Weights, lr: float) -> Optimizer:
    # fused: one call a step; the default loops over hundreds of small matrices, 6 times slower on a CPU
    return torch.optim.AdamW(weights, lr=lr, fused=True)


def _adamw8bit(weights: Weights, lr: float) -> Optimizer:
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError:
        raise UserError(_needs("adamw8bit", "bitsandbytes", "quantization")) from None
    return AdamW8bit(weights, lr=lr)


def _prodigy(weights: Weights, lr: float) -> Optimizer:
    try:
        from prodigyopt import Prodigy
    except ImportError:
        raise UserError(_needs("prodigy", "prodigyopt", "prodigy")) from None
    return Prodigy(weights, lr=lr, weight_decay=0.01, use_bias_correction=True, safeguard_warmup=True)


def _needs(name: str, package: str, extra: str) -> str:
    return f"optimizer: {name} needs {package}, found none; pip install -e '.[{extra}]' brings it"


OPTIMIZERS: dict[str, Callable[[Weights, float], Optimizer]] = {
    "adamw": _adamw,
    "adamw8bit": _adamw8bit,
    "prodigy": _prodigy,
}
"""The values of the key `optimizer`."""


def build_optimizer(name: str, weights: Weights, lr: float) -> Optimizer:
    """The optimizer of a config's key `optimizer`.

    Raises:
        UserError: an unknown name; a package that is not installed.
    """
    if name not in OPTIMIZERS:
        known = ", ".join(OPTIMIZERS)
        raise UserError(f"optimizer: expected one of {known}, found {name}{nearest(name, OPTIMIZERS)}")
    return OPTIMIZERS[name](weights, lr)
