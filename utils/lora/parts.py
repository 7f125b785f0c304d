"""What part of an adapter a tensor is, by the ending of its key; and whether the parts make one.

A LoRA's matrices are A (rank, in) and B (out, rank), which files call lora_A and lora_B, lora_down and
lora_up, lora.down and lora.up, or down and up. What is no plain LoRA is told by name: see `KINDS`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from utils.lora.linear import MAX_RANK

LORA = "LoRA"
A, B, ALPHA = "A", "B", "alpha"
DORA, LOHA, LOKR, FULL = "DoRA", "LoHa", "LoKr", "full weight difference"
BIASED = "adapter of biases"
BIAS = "bias"
"""The part of any kind that a LoRA of a linear's weight cannot hold."""

_ADAPTER = r"(?:\.(?!weight$|bias$)\w+)?"  # peft puts the adapter's name there, as lora_A.default.weight
_ENDINGS = (
    (LORA, A, rf"\.(?:lora_A{_ADAPTER}(?:\.weight)?|lora_down\.weight)"),
    (LORA, B, rf"\.(?:lora_B{_ADAPTER}(?:\.weight)?|lora_up\.weight)"),
    (LORA, A, r"\.(?:(?:lora|lora_linear_layer)\.)?down\.weight"),
    (LORA, B, r"\.(?:(?:lora|lora_linear_layer)\.)?up\.weight"),
    (LORA, ALPHA, r"\.alpha"),
    (BIASED, BIAS, rf"\.(?:diff_b|(?:lora_B{_ADAPTER}|lora_up)\.bias)"),
    (DORA, "magnitude", rf"\.(?:dora_scale|magnitude|lora_magnitude_vector{_ADAPTER})(?:\.weight)?"),
    *((LOHA, part, rf"\.{part}") for part in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")),
    *((LOKR, part, rf"\.{part}") for part in ("lokr_w1", "lokr_w1_a", "lokr_w1_b")),
    *((LOKR, part, rf"\.{part}") for part in ("lokr_w2", "lokr_w2_a", "lokr_w2_b")),
    (FULL, "diff", r"\.diff"),
    ("OFT", "oft", r"\.(?:oft_\w+|oft_R\.\w+)"),
    ("IA3", "ia3", r"\.on_input"),
    ("GLoRA", "glora", r"\.[ab][12]\.weight"),
    ("LoRA of a convolution", "middle", r"\.(?:lora_mid\.weight|hada_t[12]|lokr_t2)"),
    ("LoRA of another input size", "reshape", r"\.reshape_weight"),
    ("difference of norms", "norm", r"\.(?:w_norm|b_norm|set_weight)"),
)
_PATTERNS = tuple((kind, part, re.compile(rf"{ending}$")) for kind, part, ending in _ENDINGS)
KINDS = tuple(dict.fromkeys(kind for kind, _, _ in _ENDINGS))
"""Of adapters, the plain LoRA first."""

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_EIGHT_BITS = tuple(
    getattr(torch, name)
    for name in ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")
    if hasattr(torch, name)
)


def part_of(key: str) -> tuple[str, str, str] | None:
    """Stem of a key, the kind of adapter that its ending is of, and the part; None for another ending."""
    for kind, part, pattern in _PATTERNS:
        if match := pattern.search(key):
            return key[: match.start()], kind, part
    return None


def kind_of(kinds: set[str]) -> str:
    """The kind of an adapter with parts of several: a DoRA has a LoRA's, too, and alpha is in all of them."""
    return max(kinds, key=KINDS.index)


def readable(part: str, tensor: Tensor) -> Tensor:
    """A tensor in a type that can be computed with, exactly: alpha as float64, 8 bits as bfloat16."""
    if part == ALPHA and not (tensor.is_complex() or tensor.dtype == torch.bool):
        return tensor.double()
    return tensor.bfloat16() if tensor.dtype in _EIGHT_BITS else tensor


def misfit(name: str, parts: Mapping[str, Tensor]) -> str | None:
    """What is wrong with the parts of one module's adapter, in words; None if they can be computed with."""
    for tensor in parts.values():
        if tensor.device.type != "cpu":
            return f"{name} on {tensor.device} where numbers fit"
        if tensor.dtype not in _FLOATS:
            return f"{name} of type {tensor.dtype} where floating point fits"
    if ALPHA in parts and parts[ALPHA].numel() != 1:
        return f"{name} has an alpha of shape {tuple(parts[ALPHA].shape)} where one number fits"
    if not all(tensor.isfinite().all() for tensor in parts.values()):
        return f"{name} holds values that are not finite numbers"
    return None


def lora_misfit(name: str, parts: Mapping[str, Tensor]) -> str | None:
    """What is wrong with the A and B of a LoRA, in words; None if nothing is."""
    if missing := [part for part in (A, B) if part not in parts]:
        return f"{name} without its {' and '.join(missing)} matrix"
    shape_a, shape_b = tuple(parts[A].shape), tuple(parts[B].shape)
    if len(shape_a) != 2 or len(shape_b) != 2 or shape_a[0] != shape_b[1] or 0 in shape_a + shape_b:
        return f"{name} of shapes A {shape_a}, B {shape_b} where A (rank, in), B (out, rank) fit"
    if shape_a[0] > MAX_RANK:
        return f"{name} of rank {shape_a[0]} where {MAX_RANK} is the most"
    return misfit(name, parts)


def size_of(shapes: Mapping[str, Sequence[int]]) -> tuple[int, int] | None:
    """(outputs, inputs) of the linear that an adapter is for, by the shapes of its parts; None if unclear."""
    shapes = {part: shape for part, shape in shapes.items() if len(shape) == 2}
    for rows, columns in ((B, A), ("diff", "diff"), ("hada_w1_a", "hada_w1_b")):
        if rows in shapes and columns in shapes:
            return shapes[rows][0], shapes[columns][1]
    factors = [
        (shapes.get(name, shapes.get(f"{name}_a")), shapes.get(name, shapes.get(f"{name}_b")))
        for name in ("lokr_w1", "lokr_w2")
    ]
    outputs, inputs = 1, 1
    for left, right in factors:
        if left is None or right is None:
            return None
        outputs, inputs = outputs * left[0], inputs * right[1]
    return outputs, inputs
