"""The numbers of a comparison's report: one row a method, compared at equal strength.

A method's cells of one dataset are pooled over seeds, identity by identity, and matched at one slider
position; over several datasets, each is matched at its own and all count alike. Strengths are matched on the
side of scales >= 0 alone, in ascending order; what the slider does below 0 enters only the slider metrics.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from utils.measure.metrics import bootstrap_mean
from utils.measure.sliders import ROUNDING, correlations, free_sliders, matched_evenly, scale_at, usable_range
from utils.report.tables import Numbers
from utils.study.cells import CellResult
from utils.study.pools import Pool

NOT_REACHED, NOT_AVAILABLE, NOT_MEASURED = "not reached", "not available", "not measured"
PROBE_DISTANCE, OTHER_DISTANCE = "probe distance", "LPIPS alex"
"""The measure that SP and OS take as their distance, and the one where that is not measured."""
AT_ZERO = {
    **dict.fromkeys(("pixel change", "LPIPS alex", "LPIPS alex, 64 px", "LPIPS vgg"), 0.0),
    **dict.fromkeys(("probe distance", "leak"), 0.0),
    **dict.fromkeys(("SSIM", "DINOv2", "ArcFace"), 1.0),
}
"""What a measure is of an image and itself. PSNR is infinite there, and a direction is none."""
WORKS = ("training", "generation")


def damage_table(pools: Sequence[Pool], strengths: Sequence[float]) -> Numbers:
    """Mean damage with its 95% interval at each matched strength, and the greatest mean strength reached.

    Strength s is reached at the slider position where the mean strength of a dataset's identities first does
    (`matched_evenly` of utils/measure/sliders.py). The greatest is that of the dataset where it is least,
    rounded down.
    """
    rows = []
    for pool in pools:
        if not pool.cells:
            rows.append([pool.label, pool.count, *[NOT_MEASURED] * (len(strengths) + 1)])
            continue
        parts = pool.by_dataset
        found = matched_evenly([(part.strength, part.damage) for part in parts], strengths)
        at_each = (found[float(strength)] for strength in strengths)
        greatest = min(part.strength.mean(dim=0).max().item() for part in parts)
        reaches = math.floor(100 * (greatest + ROUNDING))
        shown = (NOT_REACHED if interval is None else f"{interval:z.3f}" for interval in at_each)
        rows.append([pool.label, pool.count, *shown, f"{reaches}%"])
    notes = [f"{pool.label}: no result of {'; '.join(pool.missing)}." for pool in pools if pool.missing]
    return Numbers(["method", "cells", *map(percent, strengths), "reaches"], rows, notes)


def slider_table(pools: Sequence[Pool], limit: float) -> Numbers:
    """Slider metrics of utils/measure/sliders.py: means over identities; `saturates` and `breaks` in scales.

    All but the last two are of the whole slider, scales below 0 included; those two are of the pool's mean
    curves from 0 up. The score is the strength, the distance the probe's, else LPIPS alex.

    Args:
        pools: empty ones are left out.
        limit: most damage to put up with, in the judge's units.
    """
    rows, reasons = [], _Reasons()
    for pool in (pool for pool in pools if pool.cells):
        cells, count = pool.cells, len(pool.cells)
        whole = torch.cat([cell.strength for cell in cells])
        spearman, _ = correlations(torch.tensor(cells[0].scales, dtype=torch.float64), whole)
        scores = free_sliders(whole, torch.zeros(len(whole), whole.shape[1] - 1))  # CR, CSM take no distance

        # What needs a distance, over the cells that have one.
        smooth = [cell.delta_smooth for cell in cells if isinstance(cell.delta_smooth, Tensor)]
        for reason in (cell.delta_smooth for cell in cells if isinstance(cell.delta_smooth, str)):
            reasons.add(reason, "delta_smooth")
        probed = any(PROBE_DISTANCE in cell.measures for cell in cells)
        far = _having(cells, PROBE_DISTANCE if probed else OTHER_DISTANCE, reasons)
        preserved = overall = NOT_AVAILABLE
        if far:
            distances = torch.cat([values for _, values in far])
            own = free_sliders(torch.cat([cell.strength for cell, _ in far]), distances)
            preserved = _mean(own.preservation) + _of(len(far), count)
            overall = _mean(own.overall) + _of(len(far), count)
        even = _mean(torch.cat(smooth)) + _of(len(smooth), count) if smooth else NOT_AVAILABLE

        # Where it saturates and breaks, and the row.
        usable = usable_range(pool.scales, pool.strength.mean(dim=0), pool.damage.mean(dim=0), limit)
        beyond = f"not by {cells[0].scales[-1]:g}"
        saturates = beyond if usable.saturates is None else f"{usable.saturates:g}"
        breaks = beyond if usable.breaks is None else f"{usable.breaks:.2f}"
        means = map(_mean, (scores.smoothness, spearman, scores.conceptual_range))
        rows.append([pool.label, even, *means, preserved, overall, saturates, breaks])
    header = ["method", "delta_smooth", "CSM", "Spearman", "CR", "SP", "OS", "saturates", "breaks"]
    return Numbers(header, rows, reasons.notes)


def measure_table(pools: Sequence[Pool], strength: float) -> Numbers:
    """Every measure of the cells at one matched strength: a column a measure, means with 95% intervals.

    Matched over the cells that have the measure, as the table says where those are not all. Between scale 0
    and the next, a measure is interpolated from AT_ZERO, and not available if it has no value there.

    Args:
        pools: empty ones are left out.
        strength: to match.
    """
    rows, reasons = [], _Reasons()
    filled = [pool for pool in pools if pool.cells]
    names = list(dict.fromkeys(name for pool in filled for cell in pool.cells for name in cell.measures))
    for pool in filled:
        row = [pool.label]
        for name in names:
            having = _having(pool.cells, name, reasons)
            shown = _at(having, name, strength, reasons) if having else NOT_AVAILABLE
            row.append(shown + (_of(len(having), len(pool.cells)) if having else ""))
        rows.append(row)
    return Numbers(["method", *names], rows, reasons.notes)


def cost_table(pools: Sequence[Pool]) -> Numbers:
    """What the cells cost, means over them; the devices below, for seconds compare on one device alone."""
    rows, notes = [], []
    filled = [pool for pool in pools if pool.cells]
    for pool in filled:
        training, generation = ([getattr(cell, work) for cell in pool.cells] for work in WORKS)
        peaks = [record.peak_bytes / 2**30 for record in training if record.peak_bytes is not None]
        seconds = _average([record.seconds for record in training])
        speed = _average([record.per_second for record in training])
        peak = f"{_average(peaks):.2f}" if peaks else NOT_AVAILABLE
        each = _average([record.seconds / record.count for record in generation])
        rows.append([pool.label, f"{seconds:.1f}", f"{speed:.2f}", peak, f"{each:.3f}"])
    for work in WORKS:
        devices = dict.fromkeys(getattr(cell, work).device for pool in filled for cell in pool.cells)
        notes.append(f"{work.capitalize()} on {'; '.join(devices)}.")
    return Numbers(["method", "training, s", "steps/s", "peak GiB", "generation, s an image"], rows, notes)


def percent(share: float) -> str:
    """0.125 -> "12.5%"."""
    return f"{100 * share:g}%"


class _Reasons:
    """Why figures are missing, each reason once with all that it is the reason of."""

    def __init__(self) -> None:
        self._names: dict[str, dict[str, None]] = {}

    def add(self, reason: str, name: str) -> None:
        self._names.setdefault(reason, {})[name] = None

    @property
    def notes(self) -> list[str]:
        return [f"{'; '.join(names)}: {reason}" for reason, names in self._names.items()]


def _having(cells: Sequence[CellResult], name: str, reasons: _Reasons) -> list[tuple[CellResult, Tensor]]:
    """The cells that have a measure, finite of every image, with its values; why the others don't."""
    found = []
    for cell in cells:
        value = cell.measures.get(name, "not measured of every cell")
        if isinstance(value, str):
            reasons.add(value, name)
        elif not value.isfinite().all():
            reasons.add("not finite of every image; cells where it is not are left out", name)
        else:
            found.append((cell, value.double()))
    return found


def _at(having: Sequence[tuple[CellResult, Tensor]], name: str, wanted: float, reasons: _Reasons) -> str:
    """A measure's mean at the strength, over cells of one method that all have it."""
    values_of = {id(cell): values for cell, values in having}
    groups = []
    for pool in Pool("", [cell for cell, _ in having], []).by_dataset:
        if scale_at(pool.scales, pool.strength, wanted) is None:
            return NOT_REACHED
        curves = [measure_curves(cell, name, values_of[id(cell)]) for cell in pool.cells]
        strengths, values = zip(*curves, strict=True)
        groups.append((torch.cat(strengths), torch.cat(values)))
    several = all(strength.shape[1] > 1 for strength, _ in groups)
    found = matched_evenly(groups, [wanted])[float(wanted)] if several else None
    if found is None:
        reasons.add("no value at scale 0, and the strength is reached before the first scale above it", name)
        return NOT_AVAILABLE
    return f"{found:z.3f}"


def measure_curves(cell: CellResult, name: str, values: Tensor) -> tuple[Tensor, Tensor]:
    """Strength and a measure (B, n) of a cell from scale 0 up, or from the first above it; see AT_ZERO.

    Args:
        cell: whose.
        name: of the measure.
        values: (B, scales other than 0).
    """
    strength = Pool("", [cell], []).strength
    above = values[:, 1 - strength.shape[1] :]  # at scales above 0
    if name not in AT_ZERO:
        return strength[:, 1:], above
    return strength, torch.cat([torch.full_like(above[:, :1], AT_ZERO[name]), above], dim=1)


def _mean(values: Tensor) -> str:
    """Mean (N,) with its interval, over the identities where it is defined."""
    finite = values[values.isfinite()]
    if len(finite) == 0:
        return "undefined"
    return f"{bootstrap_mean(finite):z.3f}" + _of(len(finite), len(values), "identities")


def _of(some: int, of: int, what: str = "cells") -> str:
    return "" if some == of else f" ({some} of {of} {what})"


def _average(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)
