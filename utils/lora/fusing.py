"""LoRAs of linears that are one linear elsewhere, one below the other: made one, and taken apart again.

Fusing is exact: the As go one below the other, the Bs block-diagonal, and parts without a LoRA are rows of
zeros. One factor alpha / rank serves all, so where parts differ in it the ratio goes into B. With the places
that fusing gives, splitting gives the parts back bit for bit.

Without places the structure tells: where every column of B belongs to one part, the parts get their own
columns of B and rows of A; else (q, k and v trained as one) each gets its rows of B, and all share A.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from utils.lora.linear import LinearLora, Misfit


@dataclass(frozen=True)
class Place:
    """Where a fused LoRA keeps one part: rows of A and columns of B, from `first` on; and its alpha.

    A ratio that float cannot multiply by and divide by without loss leaves a remainder, which has columns of
    its own, from `low` on, under the same A again.
    """

    first: int
    rank: int
    alpha: float
    low: int | None = None

    def columns(self, width: int) -> Tensor:
        """Mask (width,) of the columns that are the part's."""
        mask = torch.zeros(width, dtype=torch.bool)
        for start in (self.first, self.low):
            if start is not None:
                mask[start : start + self.rank] = True
        return mask


def fuse(parts: Sequence[LinearLora | None], shares: Sequence[int]) -> tuple[LinearLora, list[Place | None]]:
    """One LoRA for linears whose outputs stand one below the other.

    Args:
        parts: the linears' LoRAs, in the order of their rows; at least one, and None where there is none.
        shares: the linears' outputs, in units of the hidden size.

    Returns:
        A (sum of ranks, in), B (sum of outputs, sum of ranks), and the place of each part in them. Parts that
        share A and alpha go on sharing it.

    Raises:
        Misfit: if the sizes of the parts do not go together.
    """
    present = [part for part in parts if part is not None]
    sizes = {
        (part.shape[0] / share, part.shape[1]) for part, share in zip(parts, shares, strict=True) if part
    }
    hidden = int(max(sizes)[0])
    if sizes != {(hidden, max(sizes)[1])}:
        shapes = ", ".join(str(part.shape) for part in present)
        raise Misfit([f"parts of shapes {shapes} (out, in), whose outputs are to be as {shares}"])

    # One factor and one dtype for all.
    common = _common_scale([part.scale for part in present])
    dtype = present[0].weight_a.dtype
    for weight in (weight for part in present for weight in (part.weight_a, part.weight_b)):
        dtype = torch.promote_types(dtype, weight.dtype)
    if any(part.scale != common for part in present):
        dtype = torch.promote_types(dtype, torch.float32)  # float16 might overflow under the ratio
    first = present[0]
    shared = all(part.scale == common and torch.equal(part.weight_a, first.weight_a) for part in present)

    # Where each part's rows of A and block of B go.
    blocks: list[tuple[int, int, Tensor]] = []  # row, column, values
    a_rows: list[Tensor] = [first.weight_a] if shared else []
    places: list[Place | None] = []
    row, column = 0, 0
    for part, share in zip(parts, shares, strict=True):
        if part is None:
            places.append(None)
        else:
            pieces = _folded(part.weight_b.to(dtype), _ratio(part.scale, common))
            starts = [column + part.rank * number for number in range(len(pieces))]
            blocks += [(row, start, piece) for start, piece in zip(starts, pieces, strict=True)]
            places.append(Place(column, part.rank, part.alpha, starts[1] if len(pieces) > 1 else None))
            if not shared:
                a_rows += [part.weight_a] * len(pieces)
                column += part.rank * len(pieces)
        row += share * hidden

    # The matrices.
    weight_a = torch.cat([rows.to(dtype) for rows in a_rows])
    weight_b = torch.zeros(row, len(weight_a), dtype=dtype)
    for top, left, values in blocks:
        weight_b[top : top + values.shape[0], left : left + values.shape[1]] = values
    return LinearLora(weight_a, weight_b, common * len(weight_a)), places


def split(
    fused: LinearLora, shares: Sequence[int], places: Sequence[Place | None] | None
) -> list[LinearLora | None]:
    """The LoRAs of the linears whose outputs stand one below the other; None where there is none.

    Args:
        fused: B's rows are a multiple of the sum of `shares`.
        shares: the linears' outputs, in units of the hidden size.
        places: as `fuse` gives them. Places that do not go with the matrices, since someone changed these,
            are passed over, as None is: then the structure of B tells.
    """
    hidden = fused.shape[0] // sum(shares)
    rows = list(fused.weight_b.split([share * hidden for share in shares]))
    touched = torch.stack([(part != 0).any(dim=0) for part in rows])
    if places is not None and _holds(fused, touched, places):
        common = _common_scale([place.alpha / place.rank for place in places if place])
        at = zip(rows, places, strict=True)
        return [_taken(fused, part, place, common) if place else None for part, place in at]
    owners = _owners(touched)
    if owners is None:
        there = touched.any(dim=1) if touched.any() else torch.ones(len(rows), dtype=torch.bool)
        return [
            LinearLora(fused.weight_a, part, fused.alpha) if here else None
            for part, here in zip(rows, there.tolist(), strict=True)
        ]
    return [
        LinearLora(fused.weight_a[own], part[:, own], fused.alpha * int(own.sum()) / fused.rank)
        if touched[number].any()
        else None
        for number, (part, own) in enumerate((part, owners == index) for index, part in enumerate(rows))
    ]


def swap_halves(rows: Tensor) -> Tensor:
    """The second half of the rows first, as some linears stand in another model's code."""
    return torch.cat(rows.chunk(2)[::-1])


def _owners(touched: Tensor) -> Tensor | None:
    """Part that each column of B belongs to, (rank,); None if some belong to several, or all are zero.

    A column of zeros goes with equal ranks for all parts, as sd-scripts splits, or else with its neighbour.
    """
    count, rank = touched.shape
    if not touched.any() or (touched.sum(dim=0) > 1).any():
        return None
    used = touched.any(dim=0)
    equal = torch.arange(rank) * count // rank
    if rank % count == 0 and touched[equal, torch.arange(rank)][used].all():
        return equal
    firsts = touched.int().argmax(dim=0).tolist()
    owners = []
    last = int(firsts[int(used.int().argmax())])
    for first, here in zip(firsts, used.tolist(), strict=True):
        last = first if here else last
        owners.append(last)
    return torch.tensor(owners)


def _taken(fused: LinearLora, rows: Tensor, place: Place, common: float) -> LinearLora:
    """The part at a place, as it was before `fuse`."""
    columns = slice(place.first, place.first + place.rank)
    weight_b, ratio = rows[:, columns], _ratio(place.alpha / place.rank, common)
    if ratio not in (0, 1):
        whole = weight_b.double()
        if place.low is not None:
            whole = whole + rows[:, place.low : place.low + place.rank].double()
        weight_b = (whole / ratio).to(weight_b.dtype)
    return LinearLora(fused.weight_a[columns], weight_b, place.alpha)


def _holds(fused: LinearLora, touched: Tensor, places: Sequence[Place | None]) -> bool:
    """Whether places go with the matrices: everything in B at its place, the remainders' A and alpha too."""
    present = [place for place in places if place]
    if len(places) != len(touched) or not present:
        return False
    common = _common_scale([place.alpha / place.rank for place in present])
    if torch.tensor(common * fused.rank).item() != torch.tensor(fused.alpha).item():
        return False
    for place in present:
        rest = place.first if place.low is None else place.low
        if max(place.first, rest) + place.rank > fused.rank:
            return False
        upper, lower = (fused.weight_a[start : start + place.rank] for start in (place.first, rest))
        if not torch.equal(upper, lower):
            return False
    allowed = [place.columns(fused.rank) if place else torch.zeros(fused.rank).bool() for place in places]
    return not bool((touched & ~torch.stack(allowed)).any())


def _folded(weight_b: Tensor, ratio: float) -> list[Tensor]:
    """B times the ratio; with the remainder behind it if it could not be divided out again without loss."""
    exact = weight_b.double() * ratio
    high = exact.to(weight_b.dtype)
    if ratio in (0, 1) or torch.equal((high.double() / ratio).to(weight_b.dtype), weight_b):
        return [high]
    return [high, (exact - high.double()).to(weight_b.dtype)]


def _common_scale(scales: Sequence[float]) -> float:
    """The factor that serves all parts: the first that is not 0."""
    return next((scale for scale in scales if scale), 0.0)


def _ratio(scale: float, common: float) -> float:
    return 1.0 if scale == common else scale / common
