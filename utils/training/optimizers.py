"""The optimizers of adapters: a row each; nothing heavy is imported before one is built.

adamw       AdamW, fused: one call a step (Loshchilov and Hutter 2019, arXiv 1711.05101)
adamw8bit   the same with its moments in 8 bits, of the extra `quantization` (arXiv 2110.02861)
prodigy     finds its own step size, lr then a factor, 1 as a rule, of the extra `prodigy` (arXiv 2306.06101)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from utils.errors import UserError, nearest

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

    Weights = Sequence[Tensor] | list[dict[str, Any]]
    """Tensors, or groups of them with learning rates of their own, as torch has it."""


@dataclass(frozen=True)
class Kind:
    """A way to step.

    Attributes:
        build: weights, learning rate, weight decay -> the optimizer.
        called: its class, as sd-scripts names it in a LoRA's header.
        package: what it needs beside torch, if anything; extra: of this project, which brings it.
    """

    build: Callable[[Weights, float, float], Optimizer]
    called: str
    package: str = ""
    extra: str = ""


def _adamw(weights: Weights, lr: float, weight_decay: float) -> Optimizer:
    from torch.optim import AdamW

    # fused: one call a step; the default loops over hundreds of small matrices, 6 times slower on a CPU
    return AdamW(weights, lr=lr, weight_decay=weight_decay, fused=True)


def _adamw8bit(weights: Weights, lr: float, weight_decay: float) -> Optimizer:
    from bitsandbytes.optim import AdamW8bit

    return AdamW8bit(weights, lr=lr, weight_decay=weight_decay)


def _prodigy(weights: Weights, lr: float, weight_decay: float) -> Optimizer:
    from prodigyopt import Prodigy

    return Prodigy(weights, lr=lr, weight_decay=weight_decay, use_bias_correction=True, safeguard_warmup=True)


OPTIMIZERS: dict[str, Kind] = {
    "adamw": Kind(_adamw, "torch.optim.AdamW"),
    "adamw8bit": Kind(_adamw8bit, "bitsandbytes.optim.AdamW8bit", "bitsandbytes", "quantization"),
    "prodigy": Kind(_prodigy, "prodigyopt.Prodigy", "prodigyopt", "prodigy"),
}
"""The values of the key `optimizer`."""


def optimizer_kind(name: str) -> Kind:
    """The row of a config's key `optimizer`.

    Raises:
        UserError: an unknown name; a package that is not installed.
    """
    if name not in OPTIMIZERS:
        known = ", ".join(OPTIMIZERS)
        raise UserError(f"optimizer: expected one of {known}, found {name}{nearest(name, OPTIMIZERS)}")
    kind = OPTIMIZERS[name]
    if kind.package and find_spec(kind.package) is None:
        raise UserError(
            f"optimizer: expected {kind.package} to be there for {name}, found none; "
            f"pip install -e '.[{kind.extra}]' installs it"
        )
    return kind


def build_optimizer(name: str, weights: Weights, lr: float, weight_decay: float = 0.01) -> Optimizer:
    """The optimizer of a config's key `optimizer` over weights; raises as `optimizer_kind`."""
    return optimizer_kind(name).build(weights, lr, weight_decay)
