"""LoRAs as matrices: mixed into one, brought to a lower rank, taken from the difference of two models.

All of it in float64 and on the small factors where there are any; what comes out has alpha = rank.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils.errors import UserError
from utils.lora.linear import LinearLora, Misfit

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
        before: weights of the base transformer by their names in its state dict; see `open_weights`.
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
        if old.ndim != 2 or not name.endswith(".weight"):
            left.append(name)
            continue
        linear = name.removesuffix(".weight")
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


class open_weights(Mapping[str, Tensor]):  # noqa: N801 - used as a function
    """A transformer's weights by name, read one at a time, from a diffusers folder; a context manager.

    The folder is a pipeline's or its transformer's, in one file or in several with an index.

    Raises:
        UserError: if there are none, or they are damaged.
    """

    def __init__(self, folder: Path) -> None:
        from safetensors import SafetensorError, safe_open

        self._opened = ExitStack()
        self._files: dict[str, Any] = {}
        for path in _weight_files(folder):
            try:
                file = self._opened.enter_context(safe_open(path, framework="pt"))
            except (OSError, SafetensorError) as error:
                self._opened.close()
                raise UserError(f"{path}: expected a transformer's weights, found: {error}") from error
            self._files |= dict.fromkeys(file.keys(), file)

    def __enter__(self) -> open_weights:
        return self

    def __exit__(self, *fault: object) -> None:
        self._opened.close()

    def __getitem__(self, name: str) -> Tensor:
        return self._files[name].get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def _weight_files(folder: Path) -> list[Path]:
    """The .safetensors of a transformer, or of the one in a pipeline's folder."""
    inner = folder / "transformer" if (folder / "transformer").is_dir() else folder
    path = inner / "diffusion_pytorch_model.safetensors"
    index = path.with_name(f"{path.name}.index.json")
    if not index.is_file():
        if not path.is_file():
            raise UserError(f"{folder}: expected a folder with {path.name}, or a pipeline's, found none")
        return [path]
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        return [inner / Path(name).name for name in names]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{index}: expected JSON with a weight_map, found: {error!r}") from error


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
