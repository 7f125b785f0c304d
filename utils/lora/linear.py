"""The LoRA of one linear, and how a file holds it: two matrices and alpha, under three keys of one stem."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

MAX_RANK = 8192
MAX_ALPHA = 1e9
"""Far above any LoRA for FLUX, whose widest linear has 15360 inputs; what is above is damaged."""

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_LISTED = 5  # faults named in one error; the rest are counted


@dataclass(frozen=True)
class LinearLora:
    """The LoRA of one linear, W + slider scale * alpha / rank * B A, in the dtype of its file.

    Attributes:
        weight_a: A (rank, in_features).
        weight_b: B (out_features, rank).
        alpha: scaling numerator.
    """

    weight_a: Tensor
    weight_b: Tensor
    alpha: float

    @property
    def rank(self) -> int:
        """Rows of A."""
        return self.weight_a.shape[0]

    @property
    def scale(self) -> float:
        """alpha / rank, the factor on B A at slider scale 1."""
        return self.alpha / self.rank

    @property
    def shape(self) -> tuple[int, int]:
        """(out_features, in_features), as the linear's own weight."""
        return self.weight_b.shape[0], self.weight_a.shape[1]


class Misfit(Exception):  # noqa: N818 - not an error yet: who knows the file makes it one
    """What does not fit in a LoRA, in words; the message names the first few and counts the rest."""

    def __init__(self, faults: Sequence[str]) -> None:
        more = f" and {len(faults) - _LISTED} more" if len(faults) > _LISTED else ""
        text = "; ".join(faults[:_LISTED]) + more
        # a file's keys may hold anything, line breaks too
        super().__init__("".join(char if char.isprintable() else "?" for char in text))


@dataclass(frozen=True)
class Endings:
    """How the keys of a linear's A, B and alpha end."""

    a: str
    b: str
    alpha: str = ".alpha"

    def tensors(self, stem: str, lora: LinearLora) -> dict[str, Tensor]:
        """A linear's tensors by key, each with memory of its own, on the CPU; alpha is float32."""
        return {
            stem + self.a: lora.weight_a.detach().cpu().clone(memory_format=torch.contiguous_format),
            stem + self.b: lora.weight_b.detach().cpu().clone(memory_format=torch.contiguous_format),
            stem + self.alpha: torch.tensor(float(lora.alpha)),
        }

    def gather(
        self,
        tensors: Mapping[str, Tensor],
        name_of: Callable[[str], str | None],
        default_alpha: float | None = None,
    ) -> dict[str, LinearLora]:
        """The linears in a file's tensors.

        Args:
            tensors: by key; every one must find its place.
            name_of: stem of a key -> name of the linear, None for what is none.
            default_alpha: where the file has no alpha; None: the rank, so that nothing more is scaled.

        Raises:
            Misfit: naming every key without a place, and every linear whose tensors make no LoRA.
        """
        found: dict[str, dict[str, Tensor]] = {}
        faults = [] if tensors else ["no tensors"]
        for key, tensor in tensors.items():
            part = next((part for part in (self.a, self.b, self.alpha) if key.endswith(part)), None)
            name = name_of(key.removesuffix(part)) if part else None
            if part is None or name is None:
                faults.append(_stray(key))
            else:
                found.setdefault(name, {})[part] = tensor
        for name, parts in found.items():
            faults.extend(self._misfits(name, parts))
        if faults:
            raise Misfit(faults)
        return {
            name: LinearLora(
                parts[self.a],
                parts[self.b],
                float(parts[self.alpha]) if self.alpha in parts else default_alpha or parts[self.a].shape[0],
            )
            for name, parts in found.items()
        }

    def _misfits(self, name: str, parts: Mapping[str, Tensor]) -> list[str]:
        """What is wrong with one linear's tensors, in words."""
        if missing := [part for part, key in (("A", self.a), ("B", self.b)) if key not in parts]:
            return [f"{name} without its {' and '.join(missing)} matrix"]
        for tensor in parts.values():
            if tensor.device.type != "cpu":
                return [f"{name} on {tensor.device} where numbers fit"]
            if tensor.dtype not in _DTYPES:
                return [f"{name} of type {tensor.dtype} where floating point fits"]
        shape_a, shape_b = tuple(parts[self.a].shape), tuple(parts[self.b].shape)
        if len(shape_a) != 2 or len(shape_b) != 2 or shape_a[0] != shape_b[1] or 0 in shape_a + shape_b:
            return [f"{name} of shapes A {shape_a}, B {shape_b} where A (rank, in), B (out, rank) fit"]
        if shape_a[0] > MAX_RANK:
            return [f"{name} of rank {shape_a[0]} where {MAX_RANK} is the most"]
        if self.alpha in parts and parts[self.alpha].numel() != 1:
            shape = tuple(parts[self.alpha].shape)
            return [f"{name} has an alpha of shape {shape} where one number fits"]
        if not all(tensor.isfinite().all() for tensor in parts.values()):
            return [f"{name} holds values that are not finite numbers"]
        return []


def _stray(key: str) -> str:
    if key.startswith(("lora_te", "text_encoder")):
        return f"{key} is of a text encoder, which gets no LoRA here"
    return f"{key} matches no linear of FLUX"
