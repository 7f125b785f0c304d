"""LoRAs as matrices: mixed into one, brought to a lower rank, taken from the difference of two models.

All of it in float64 and on the small factors where there are any; what comes out has alpha = rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from utils.lora.linear import LinearLora, Misfit
from utils.lora.names import TRANSFORMER, part_of_linear, text_module

_NEGLIGIBLE = 1e-7  # of the greatest singular value: float64 finds no smaller one by squares


@dataclass(frozen=True)
class Approximation:
    """A LoRA of limited rank.

    Attributes:
        loras: of each linear.
        energy: sum of the squared singular values kept, as a share of all, over all linears.
        least: the same of the linear that keeps the least, {linear: share}; {} if there is no linear.
        left: extract only: parameters that differ and are no linear's weight, which a LoRA cannot hold.
    """

    loras: dict[str, LinearLora]
    energy: float
    least: dict[str, float]
    left: tuple[str, ...] = ()


def merge(inputs: Sequence[tuple[Mapping[str, LinearLora], float]]) -> dict[str, LinearLora]:
    """One LoRA whose change at scale 1 is the weighted sum of the inputs' changes at scale 1.

    Args:
        inputs: (LoRA by linear, its weight), one or more; a linear need not be in all of them.

    Returns:
        A (sum of ranks, in), B (out, sum of ranks) with weight * alpha / rank in it, alpha the sum of ranks;
        float32 at least.

    Raises:
        Misfit: naming the linears whose sizes differ.
    """
    parts: dict[str, list[tuple[LinearLora, float]]] = {}
    for loras, weight in inputs:
        for name, lora in loras.items():
            parts.setdefault(name, []).append((lora, weight))
    shapes = {name: {lora.shape for lora, _ in each} for name, each in parts.items()}
    if faults := [f"{name} of shapes {sorted(each)}" for name, each in shapes.items() if len(each) > 1]:
        raise Misfit(faults)
    return {name: _merged(each) for name, each in parts.items()}


def resize(loras: Mapping[str, LinearLora], rank: int) -> Approximation:
    """The nearest LoRA (in the Frobenius norm, by SVD) of a rank no greater than `rank`.

    Linears whose rank is no greater already stay as they are, bit for bit.
    """
    resized, energies = {}, {}
    for name, lora in loras.items():
        left, core, right = _core(lora)
        u, s, vt = torch.linalg.svd(core)
        keep = lora.rank if lora.rank <= rank else min(rank, len(s))
        resized[name] = (
            lora if keep == lora.rank else _balanced(left @ u[:, :keep], s[:keep], vt[:keep] @ right, lora)
        )
        energies[name] = (s[:keep].square().sum().item(), s.square().sum().item())
    return Approximation(resized, *energy_shares(energies))


def extract(before: Mapping[str, Tensor], after: Mapping[str, Tensor], rank: int) -> Approximation:
    """The LoRA of a rank no greater than `rank` nearest to a model's change.

    Args:
        before: weights of the base by name; see utils/lora/base_weights.py.
        after: of the tuned one.
        rank: most for a linear; one whose change has less gets less, one without change none.

    Raises:
        Misfit: naming the weights that are in one of the two alone, differ in shape or are not finite.
    """
    faults = [f"{name} in one of the two alone" for name in sorted(set(before) ^ set(after))]
    loras, energies, left = {}, {}, []
    for name in before.keys() & after.keys():
        old, new = before[name], after[name]
        if old.shape != new.shape:
            faults.append(f"{name} of shapes {tuple(old.shape)} and {tuple(new.shape)}")
        elif not (old.isfinite().all() and new.isfinite().all()):
            faults.append(f"{name} holds values that are not finite numbers")
        if faults or torch.equal(old, new):
            continue
        linear = name.removesuffix(".weight")
        if old.ndim != 2 or linear == name or not _is_linear(linear):
            left.append(name)
            continue
        loras[linear], energies[linear] = nearest_lora(new.double() - old.double(), rank)
    if faults:
        raise Misfit(faults)
    order = sorted(loras)
    return Approximation({name: loras[name] for name in order}, *energy_shares(energies), tuple(sorted(left)))


def nearest_lora(change: Tensor, rank: int) -> tuple[LinearLora, tuple[float, float]]:
    """The LoRA of a rank no greater than `rank` nearest to a change (out, in), and its energy: kept, all.

    The change is float64, and not all 0.

    By the eigenvectors of the smaller of the change's two products with itself: a fraction of the time of an
    SVD at FLUX's size.
    """
    wide = change.shape[0] <= change.shape[1]
    rows = change if wide else change.T
    values, vectors = torch.linalg.eigh(rows @ rows.T)
    s = values.clamp_min(0).sqrt().flip(0)[:rank]
    s = s[s > _NEGLIGIBLE * s[0]]
    u = vectors.flip(1)[:, : len(s)]
    vt = u.T @ rows / s[:, None]
    root = s.sqrt()
    inner, outer = (root[:, None] * vt).float(), (u * root).float()
    lora = LinearLora(*((inner, outer) if wide else (outer.T, inner.T)), float(len(s)))
    return lora, (s.square().sum().item(), change.square().sum().item())


def energy_shares(energies: Mapping[str, tuple[float, float]]) -> tuple[float, dict[str, float]]:
    """Energy kept of all, over all linears and of the linear that keeps the least."""
    each = {name: kept / total if total else 1.0 for name, (kept, total) in energies.items()}
    least = dict([min(each.items(), key=lambda item: item[1])]) if each else {}
    total = sum(total for _, total in energies.values())
    return sum(kept for kept, _ in energies.values()) / total if total else 1.0, least


def change_norm(lora: LinearLora) -> float:
    """Frobenius norm of alpha / rank B A."""
    return torch.linalg.matrix_norm(_core(lora)[1]).item()


def _is_linear(name: str) -> bool:
    """Of a matrix by its name: a text encoder has embeddings, too."""
    return part_of_linear(name) == TRANSFORMER or text_module(name) is not None


def _merged(parts: Sequence[tuple[LinearLora, float]]) -> LinearLora:
    dtype = torch.float32
    for lora, _ in parts:
        dtype = torch.promote_types(dtype, torch.promote_types(lora.weight_a.dtype, lora.weight_b.dtype))
    weight_a = torch.cat([lora.weight_a.to(dtype) for lora, _ in parts])
    scaled = [lora.weight_b.double() * (weight * lora.scale) for lora, weight in parts]
    return LinearLora(weight_a, torch.cat(scaled, dim=1).to(dtype), float(len(weight_a)))


def _core(lora: LinearLora) -> tuple[Tensor, Tensor, Tensor]:
    """alpha / rank B A as Q_b C Q_a: orthonormal columns (out, k), core (k, l), orthonormal rows (l, in)."""
    q_b, r_b = torch.linalg.qr(lora.weight_b.double())
    q_a, r_a = torch.linalg.qr(lora.weight_a.double().T)
    return q_b, lora.scale * r_b @ r_a.T, q_a.T


def _balanced(u: Tensor, s: Tensor, vt: Tensor, like: LinearLora) -> LinearLora:
    """U S V^T with the root of S in either factor, alpha = rank, float32 at least."""
    dtype = torch.promote_types(like.weight_a.dtype, torch.float32)
    root = s.sqrt()
    return LinearLora((root[:, None] * vt).to(dtype), (u * root).to(dtype), float(len(s)))
