"""Numbers that say whether a slider slides: evenly, in order, how far, and at what cost for an equal edit.

Everything here is computed from plain tensors, one row an identity and one column a slider scale, scales in
ascending order; results are float64 on the CPU. Strength is in units of the pairs' own change, as `movement`
of utils.measure.metrics gives it: 0 = not moved, 1 = as far as the pairs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics.functional.regression import pearson_corrcoef, spearman_corrcoef

from utils.measure.metrics import Interval

ROUNDING = 1e-6  # strengths this close are equal: a float32 mean must not miss a strength that it reaches


def smoothness(distances: Tensor) -> Tensor:
    """delta_smooth of Kontinuous Kontext, arXiv 2510.08532: the largest detour over three neighbours.

        max over i of (d(i, i+1) + d(i+1, i+2) - d(i, i+2)) / d(i, i+2)

    Args:
        distances: (B, n, n), n >= 3, d(i, j) >= 0 between scales i and j, of any unit; read for i < j alone.

    Returns:
        (B,); 0 = a straight line, below 0 only where d breaks the triangle inequality. Where d(i, i+2) is 0,
        it counts 0 if nothing moved at all and infinity if the image left and came back.

    Raises:
        ValueError: another shape, or distances that are negative or not finite.
    """
    square = distances.ndim == 3 and distances.shape[1] == distances.shape[2] >= 3
    d = _checked("distances", distances, "(B, n, n), B >= 1, n >= 3", square, least=0)
    steps, across = d.diagonal(1, 1, 2), d.diagonal(2, 1, 2)
    detour = steps[:, :-1] + steps[:, 1:] - across
    return torch.where((across == 0) & (detour == 0), 0.0, detour / across).amax(dim=1)


@dataclass(frozen=True)
class SliderScores:
    """What `free_sliders` measured, each (B,): CR, CSM, SP and OS there."""

    conceptual_range: Tensor
    smoothness: Tensor
    preservation: Tensor
    overall: Tensor


def free_sliders(scores: Tensor, distances_to_zero: Tensor) -> SliderScores:
    """The scores of FreeSliders, arXiv 2511.00103, for each identity's slider.

        CR  = a(largest scale) - a(smallest scale)                                  more is better
        CSM = population std of b(i+1) - b(i), b = (a - min a) / (max a - min a)    0 = even steps
        SP  = mean of the distances                                                 less is better
        OS  = CR / (1 + SP) + (1 - CSM)                                             more is better

    The paper averages CR with a'(smallest) - a'(largest), a' the alignment with the negative prompt, where
    there is one. CSM's steps are signed, in order of scale, so turning back counts; the authors' code
    (azencot-group/Free_Sliders) adds the ends of CLIP's range instead of normalising and drops steps below 0.
    OS adds CR, in units of the scores, to pure numbers: compare it only between sliders scored alike.
    Where all of a are equal there are no steps: CSM and OS are NaN.

    Args:
        scores: (B, n), n >= 2, alignment a with the concept at each scale: a CLIP score, a probe's reading.
        distances_to_zero: (B, n - 1), >= 0, perceptual distance from the image at scale 0 of each other one.

    Raises:
        ValueError: other shapes, values that are not finite, or negative distances.
    """
    a = _checked("scores", scores, "(B, n), B >= 1, n >= 2", scores.ndim == 2 and scores.shape[1] >= 2)
    others = (len(a), a.shape[1] - 1)
    fits = distances_to_zero.shape == others
    sp = _checked("distances_to_zero", distances_to_zero, f"{others}", fits, least=0).mean(dim=1)
    span = a.amax(dim=1, keepdim=True) - a.amin(dim=1, keepdim=True)
    csm = (a.diff(dim=1) / span).std(dim=1, correction=0)
    cr = a[:, -1] - a[:, 0]
    return SliderScores(cr, csm, sp, cr / (1 + sp) + (1 - csm))


def correlations(scales: Tensor, readings: Tensor) -> tuple[Tensor, Tensor]:
    """Spearman and Pearson correlation of each identity's readings with the scales, from torchmetrics.

        Pearson  = cov(scales, readings) / (std(scales) std(readings))
        Spearman = the same of their ranks, equal readings sharing their mean rank

    Args:
        scales: (n,), n >= 2, ascending.
        readings: (B, n), of any unit.

    Returns:
        Spearman (within 5e-6) and Pearson, each (B,) in [-1, 1]; 0 where all readings are equal.

    Raises:
        ValueError: other shapes, scales that don't ascend, or values that are not finite.
    """
    ticks = _ascending(scales)
    readings = _checked("readings", readings, f"(B, {len(ticks)}), B >= 1", readings.shape[1:] == ticks.shape)
    moving = readings.amax(dim=1) > readings.amin(dim=1)  # of the others torchmetrics warns
    spearman, pearson = torch.zeros(2, len(readings), dtype=torch.float64)
    if moving.any():
        columns = readings[moving].T
        ticks = ticks[:, None].expand_as(columns)
        spearman[moving] = spearman_corrcoef(columns, ticks).double()
        pearson[moving] = pearson_corrcoef(columns, ticks)
    return spearman, pearson


@dataclass(frozen=True)
class UsableRange:
    """The slider scales from which on there is no more edit, and too much damage; None where none is."""

    saturates: float | None
    breaks: float | None


def usable_range(
    scales: Tensor, strength: Tensor, damage: Tensor, limit: float, plateau: float = 0.05
) -> UsableRange:
    """Where a slider saturates, and where it breaks what it should have left alone, in slider scales.

        gain(i)   = max of strength - strength(i)
        saturates = smallest scale i with gain(i) <= plateau gain(0); None if that is the last scale
        breaks    = scale(j-1) + (scale(j) - scale(j-1)) (limit - damage(j-1)) / (damage(j) - damage(j-1))

    where j is the first scale with damage(j) > limit; `breaks` is 0 if j is scale 0, None if there is no j.
    `saturates` is one of the given scales, and scale 0 if nothing is gained at all.

    Args:
        scales: (n,), n >= 2, ascending from 0.
        strength: (n,) mean edit strength at each scale.
        damage, limit: (n,) mean unintended change at each scale, and the most to put up with, of any unit.
        plateau: share of the total gain that counts as none, in [0, 1).

    Raises:
        ValueError: other shapes, scales not ascending from 0, plateau out of range, or what is not finite.
    """
    scales = _ascending(scales)
    if scales[0] != 0 or not math.isfinite(limit) or not 0 <= plateau < 1:
        found = f"{scales[0]:g}, {limit} and {plateau}"
        raise ValueError(f"expected scales from 0, a finite limit, 0 <= plateau < 1, found {found}")
    strength = _checked("strength", strength, f"{tuple(scales.shape)}", strength.shape == scales.shape)
    damage = _checked("damage", damage, f"{tuple(scales.shape)}", damage.shape == scales.shape)
    gain = strength.max() - strength  # up to its maximum; what comes after doesn't matter
    flat = int((gain <= plateau * gain[0] + ROUNDING).int().argmax())  # argmax finds the first
    j = int((damage > limit).int().argmax())
    breaks = 0.0 if damage[j] > limit else None
    if j > 0:
        share = (limit - damage[j - 1]) / (damage[j] - damage[j - 1])
        breaks = torch.lerp(scales[j - 1], scales[j], share).item()
    return UsableRange(scales[flat].item() if flat < len(scales) - 1 else None, breaks)


def at_strength(strength: Tensor, values: Tensor, wanted: float) -> Tensor | None:
    """Values at the slider position where the mean strength first reaches `wanted` from below.

        m = mean of strength over identities, straight lines between scales
        i = the first scale with m(i) < wanted <= m(i+1), or the very first if m starts at `wanted`
        (1 - w) values(i) + w values(i+1), w = (wanted - m(i)) / (m(i+1) - m(i))

    Args:
        strength, wanted: (B, n), n >= 2, per identity and scale, and the strength to compare at.
        values: (B, n), or (n,) if common to all, of any unit.

    Returns:
        (B,), or 0-dim for values (n,); None where the mean strength never reaches `wanted`.

    Raises:
        ValueError: other shapes, or values that are not finite.
    """
    strength, values = _curves(strength, values)
    shares = _crossing(strength.mean(dim=0, keepdim=True), wanted)[0]
    return None if shares.isnan().any() else values @ shares


def scale_at(scales: Tensor, strength: Tensor, wanted: float) -> float | None:
    """The slider scale where the mean strength first reaches `wanted`: `at_strength` of the scales (n,).

    Raises ValueError for scales that don't ascend, and for what `at_strength` refuses.
    """
    found = at_strength(strength, _ascending(scales), wanted)
    return None if found is None else found.item()


def matched(
    strength: Tensor, values: Tensor, wanted: Sequence[float], resamples: int = 2000, seed: int = 0
) -> dict[float, Interval | None]:
    """Mean of `at_strength` at each wanted strength: sliders compared at an equal edit, not an equal scale.

    The interval is the 95% percentile bootstrap over identities, drawn as in `bootstrap_mean`. Each resample
    finds its own crossing; those that never reach the strength are left out, so near the largest strength the
    interval speaks for the rest. Arguments, and ValueErrors for those that don't fit, as in `at_strength`.

    Returns:
        {wanted: interval}, None where the mean strength never reaches it; bounds of one identity are NaN.
    """
    return matched_evenly([(strength, values)], wanted, resamples, seed)


def matched_evenly(
    groups: Sequence[tuple[Tensor, Tensor]], wanted: Sequence[float], resamples: int = 2000, seed: int = 0
) -> dict[float, Interval | None]:
    """`matched` over several edits: each is matched at its own slider position, and all count alike.

        mean over groups of (mean over the group's identities of at_strength)

    Args:
        groups: (strength, values) of each edit, as in `at_strength`.
        wanted, resamples, seed: as in `matched`; identities are drawn within their group.

    Returns:
        As `matched`; None where the mean strength of any group never reaches it.
    """
    alone = all(len(strength) == 1 for strength, _ in groups)
    tails = torch.tensor([0.025, 0.975], dtype=torch.float64)
    found: dict[float, Interval | None] = {}
    for target, matched_at in matched_draws(groups, wanted, resamples, seed).items():
        found[target] = None
        if matched_at is not None:
            mean, reached = matched_at
            low, high = (math.nan, math.nan) if alone else reached.nanquantile(tails).tolist()
            found[target] = Interval(mean, low, high)
    return found


def matched_draws(
    groups: Sequence[tuple[Tensor, Tensor]], wanted: Sequence[float], resamples: int = 2000, seed: int = 0
) -> dict[float, tuple[float, Tensor] | None]:
    """What `matched_evenly` takes its intervals from, for differences: draws of one seed are paired.

    Args:
        groups, wanted, resamples, seed: as of `matched_evenly`.

    Returns:
        {wanted: mean and its (resamples,) draws, NaN where one does not reach it}, None as there.
    """
    generator = torch.Generator().manual_seed(seed)
    targets = [float(target) for target in wanted]
    points: dict[float, list[Tensor | None]] = {target: [] for target in targets}
    drawn: dict[float, list[Tensor]] = {target: [] for target in targets}

    # Each group's identities are drawn anew, and matched at the targets.
    for strength, values in (_curves(*group) for group in groups):
        count = len(strength)
        index = torch.randint(count, (resamples, count), generator=generator)
        times = torch.zeros(resamples, count).scatter_add_(1, index, torch.ones(index.shape)).double()
        curves, means = times @ strength / count, times @ values.expand_as(strength) / count
        for target in targets:
            points[target].append(at_strength(strength, values, target))
            drawn[target].append((_crossing(curves, target) * means).sum(dim=1))  # NaN where not reached

    # All groups count alike.
    found: dict[float, tuple[float, Tensor] | None] = {}
    for target in targets:
        means_of = [point.mean() for point in points[target] if point is not None]
        everywhere = len(means_of) == len(groups)
        draws = torch.stack(drawn[target]).mean(dim=0)
        found[target] = (torch.stack(means_of).mean().item(), draws) if everywhere else None
    return found


def _crossing(curves: Tensor, wanted: float) -> Tensor:
    """Share (R, n) of each scale in the first crossing of each curve (R, n); NaN in rows without one."""
    if not math.isfinite(wanted):
        raise ValueError(f"expected a finite strength, found {wanted}")
    below = curves < wanted - ROUNDING
    rises = below[:, :-1] & ~below[:, 1:]
    starts = ~below[:, :1] & (curves[:, :1] <= wanted + ROUNDING)
    left = torch.where(starts, 0, rises.int().argmax(dim=1, keepdim=True))
    low, high = curves.gather(1, left), curves.gather(1, left + 1)
    share = ((wanted - low) / (high - low)).clamp(0, 1)
    share = share.where(rises.any(dim=1, keepdim=True), math.nan).where(~starts, 0.0)
    return torch.zeros_like(curves).scatter(1, left, 1 - share).scatter(1, left + 1, share)


def _curves(strength: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    fits = strength.ndim == 2 and strength.shape[1] >= 2
    strength = _checked("strength", strength, "(B, n), B >= 1, n >= 2", fits)
    shapes = (tuple(strength.shape), tuple(strength.shape[1:]))
    return strength, _checked("values", values, f"{shapes[0]} or {shapes[1]}", values.shape in shapes)


def _ascending(scales: Tensor) -> Tensor:
    scales = _checked("scales", scales, "(n,), n >= 2", scales.ndim == 1 and len(scales) >= 2)
    if (scales.diff() <= 0).any():
        raise ValueError(f"expected ascending scales, found {scales.tolist()}")
    return scales


def _checked(name: str, values: Tensor, shape: str, fits: bool, least: float = -math.inf) -> Tensor:
    if not fits or values.numel() == 0:
        raise ValueError(f"expected {name} of shape {shape}, found {tuple(values.shape)}")
    if not values.isfinite().all():
        raise ValueError(f"expected finite {name}, found NaN or infinity")
    if (values < least).any():
        raise ValueError(f"expected {name} >= {least:g}, found {values.min():g}")
    return values.detach().double().cpu()
