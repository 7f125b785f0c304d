"""The LoRA of one linear, and how our files hold it: two matrices and alpha, under three keys of one stem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

MAX_RANK = 8192
MAX_ALPHA = 1e9
"""Far above any LoRA for FLUX, whose widest linear has 15360 inputs; what is above is damaged."""

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
"""What A and B can be written in."""

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

    def tensors(self, stem: str, lora: LinearLora, with_alpha: bool = True) -> dict[str, Tensor]:
        """A linear's tensors by key, each with memory of its own, on the CPU; alpha is float32."""
        matrices = {
            stem + self.a: lora.weight_a.detach().cpu().clone(memory_format=torch.contiguous_format),
            stem + self.b: lora.weight_b.detach().cpu().clone(memory_format=torch.contiguous_format),
        }
        return matrices | ({stem + self.alpha: torch.tensor(float(lora.alpha))} if with_alpha else {})


def cast(tensors: Mapping[str, Tensor], dtype: str) -> dict[str, Tensor]:
    """A file's tensors in a dtype of DTYPES, alphas as they are.

    Raises:
        Misfit: naming those whose values it cannot hold.
    """
    matrices = {key: tensor for key, tensor in tensors.items() if tensor.ndim}
    changed = {key: tensor.to(DTYPES[dtype]) for key, tensor in matrices.items()}
    if lost := [
        f"{key} has values beyond {dtype}" for key, tensor in changed.items() if not tensor.isfinite().all()
    ]:
        raise Misfit(lost)
    return {**tensors, **changed}
