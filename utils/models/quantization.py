"""A frozen base in 8 or 4 bits a weight, for cards that can't hold it in 16.

The linears of the transformer blocks, all but a hundredth of FLUX.1, are quantized; adapters on them are
float32 and trained as ever (QLoRA, arXiv 2305.14314). The libraries are optional: pip install .[quantization]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from utils.errors import UserError, nearest
from utils.models.adapters import linear_layers
from utils.models.families import family_of
from utils.models.identity import remember_base_hash


def _nf4(transformer: nn.Module, device: torch.device) -> None:
    """4-bit NormalFloat, 64 weights sharing a scale (bitsandbytes)."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    for name, linear in block_linears(transformer).items():
        dtype = linear.weight.dtype
        sizes = linear.in_features, linear.out_features
        quantized = Linear4bit(*sizes, linear.bias is not None, compute_dtype=dtype, quant_type="nf4")
        quantized.weight = Params4bit(linear.weight.data, requires_grad=False, quant_type="nf4")
        quantized.bias = linear.bias
        transformer.set_submodule(name, quantized.to(device))  # moving is what quantizes


def _int8(transformer: nn.Module, device: torch.device) -> None:
    """8-bit integers, one scale a row (torchao)."""
    from torchao.quantization import Int8WeightOnlyConfig

    _torchao(transformer, device, Int8WeightOnlyConfig())


def _fp8(transformer: nn.Module, device: torch.device) -> None:
    """8-bit floats e4m3, one scale a row (torchao)."""
    from torchao.quantization import Float8WeightOnlyConfig

    _torchao(transformer, device, Float8WeightOnlyConfig())


def _torchao(transformer: nn.Module, device: torch.device, config: Any) -> None:
    from torchao.quantization import quantize_

    for name, linear in block_linears(transformer).items():  # one by one: the whole would not fit
        quantize_(linear.to(device), config)
        transformer.set_submodule(name, FrozenLinear.of(linear))


class FrozenLinear(nn.Linear):
    """A linear whose quantized weight gets no gradient, and is never kept in full.

    torchao's own would keep the weight it computed with, in 16 bits, for the backward pass.
    """

    @classmethod
    def of(cls, linear: nn.Linear) -> FrozenLinear:
        """The same layer, with its own weight."""
        frozen = cls(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        frozen.weight, frozen.bias = linear.weight, linear.bias
        return frozen.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features) in the weight's dtype."""
        product = _FrozenProduct.apply(x.to(self.weight.dtype), self.weight)
        return product if self.bias is None else product + self.bias


class _FrozenProduct(torch.autograd.Function):
    """x W^T, of which only x gets a gradient, g W; W is turned into 16 bits anew for it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Any) -> Tensor:
        ctx.save_for_backward(weight)
        return functional.linear(x, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        return gradients[0] @ weight.dequantize().to(gradients[0].dtype), None


# quantization -> how a transformer is quantized in place, layer by layer on its way to the device
QUANTIZATIONS: dict[str, Callable[[nn.Module, torch.device], None]] = {
    "none": lambda transformer, device: None,
    "nf4": _nf4,
    "int8": _int8,
    "fp8": _fp8,
}


def quantize(transformer: nn.Module, quantization: str, device: torch.device) -> None:
    """Quantize a transformer's blocks in place; they are on the device then.

    Args:
        transformer: frozen, without adapters; it may be on the CPU.
        quantization: a key of QUANTIZATIONS.
        device: where they go.

    Raises:
        UserError: for an unknown quantization, or one whose library is not installed.
    """
    if quantization not in QUANTIZATIONS:
        raise UserError(
            f"quantization: expected one of {', '.join(QUANTIZATIONS)}, found {quantization}"
            f"{nearest(quantization, QUANTIZATIONS)}"
        )
    if quantization == "none":
        return
    remember_base_hash(transformer)  # of the weights as they are, the same for every quantization
    try:
        QUANTIZATIONS[quantization](transformer, device)
    except ImportError as error:
        raise UserError(
            f"quantization: {quantization}: expected its library (pip install .[quantization]), "
            f"found: {error}"
        ) from error


def block_linears(transformer: nn.Module) -> dict[str, nn.Linear]:
    """The linears of all repeated blocks by name."""
    blocks = tuple(f"{name}." for name in family_of(transformer).blocks)
    return {name: linear for name, linear in linear_layers(transformer).items() if name.startswith(blocks)}
