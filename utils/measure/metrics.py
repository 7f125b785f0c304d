"""Numbers that say whether an edit was learned: how far it moved, what else it moved, how sure we are.

Everything here is computed from plain tensors: images, features, and *readings*, the attribute values that a
probe reads from images, each in units of its attribute's range (0 to 1 from one end to the other). Intervals
are bootstrapped over identities, because identities are what a claim about an edit generalises over.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure
from torchmetrics.functional.regression import spearman_corrcoef

Readings = Mapping[str, Tensor]
"""{attribute: (B,) values, one an identity, in units of the attribute's range}."""


@dataclass(frozen=True)
class Interval:
    """A mean and its bootstrap interval; `low` and `high` are NaN where one value gives no interval.

    Formats as a number does: f"{moved:.0%}" is "96% [93%, 98%]".
    """

    mean: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        if math.isnan(self.low):
            return format(self.mean, spec)
        return f"{format(self.mean, spec)} [{format(self.low, spec)}, {format(self.high, spec)}]"


def bootstrap_mean(values: Tensor, level: float = 0.95, resamples: int = 2000, seed: int = 0) -> Interval:
    """Mean with the percentile bootstrap interval (Efron & Tibshirani 1993, chapter 13).

    Args:
        values: (B,), independent observations, one an identity.
        level: coverage of the interval, in (0, 1).
        resamples: number of resamples, each B values drawn with replacement.
        seed: of the resampling's own generator, so that a table comes out the same twice.

    Raises:
        ValueError: `values` is empty or not one-dimensional.
    """
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"expected values of shape (B,) with B >= 1, found {tuple(values.shape)}")
    values = values.detach().cpu().double()
    if len(values) == 1:
        return Interval(values.item(), math.nan, math.nan)
    # not scipy's: sliders.py resamples identities by these same draws, and tables made before keep theirs
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(values), (resamples, len(values)), generator=generator)
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = values[drawn].mean(dim=1).quantile(tails).tolist()
    return Interval(values.mean().item(), low, high)


def psnr(images: Tensor, reference: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image: 10 log10(range^2 / mean squared error), range = 2.

    Args:
        images, reference: (B, C, H, W) in [-1, 1].

    Returns:
        (B,), in dB; infinite where two images are equal.

    Raises:
        ValueError: the shapes differ.
    """
    if images.shape != reference.shape:
        raise ValueError(f"psnr: expected two equal shapes, found {images.shape} and {reference.shape}")
    return peak_signal_noise_ratio(images, reference, data_range=2.0, reduction="none", dim=(1, 2, 3))


def ssim(images: Tensor, reference: Tensor) -> Tensor:
    """Structural similarity of each image (Wang et al. 2004), Gaussian window 11 x 11, sigma 1.5.

    Args:
        images, reference: (B, C, H, W) in [-1, 1]; taken to [0, 1], where its constants belong.

    Returns:
        (B,), at most 1.

    Raises:
        ValueError: the shapes differ.
    """
    if images.shape != reference.shape:
        raise ValueError(f"ssim: expected two equal shapes, found {images.shape} and {reference.shape}")
    # float64: the variance of a flat area is a difference of large numbers, and equal images would fall short
    images, reference = ((side.double() + 1) / 2 for side in (images, reference))
    values = structural_similarity_index_measure(images, reference, data_range=1.0, reduction="none")
    return cast(Tensor, values).float()  # a tuple only if asked for more


def pixel_change(images: Tensor, reference: Tensor) -> Tensor:
    """Mean absolute difference of each image, as a share of the range: (B, C, H, W) in [-1, 1] -> (B,)."""
    return (images - reference).abs().flatten(1).mean(dim=1) / 2


def frechet_distance(features_a: Tensor, features_b: Tensor) -> float:
    """Squared Fréchet distance between the Gaussians fitted to two sets of features.

        |mean_a - mean_b|^2 + tr(C_a) + tr(C_b) - 2 tr((C_a C_b)^(1/2))

    Heusel et al. 2017, arXiv 1706.08500, equation 6. C_a C_b has the eigenvalues of the symmetric
    C_a^(1/2) C_b C_a^(1/2), so its root's trace needs no general matrix square root, which is where other
    implementations go complex or unstable. Biased upwards for few samples: compare only equal counts.

    Args:
        features_a, features_b: (N, D) and (M, D), N, M >= 2; computed in float64.

    Returns:
        The distance, >= 0, in squared units of the features.

    Raises:
        ValueError: shapes that are not (N, D) and (M, D), fewer than two rows, or values that aren't finite.
    """
    for features in (features_a, features_b):
        if features.ndim != 2 or len(features) < 2 or features.shape[1] != features_a.shape[1]:
            raise ValueError(
                "frechet_distance: expected (N, D) and (M, D) with N, M >= 2, "
                f"found {tuple(features_a.shape)} and {tuple(features_b.shape)}"
            )
        if not features.isfinite().all():
            raise ValueError("frechet_distance: expected finite features, found NaN or infinity")
    a, b = features_a.double(), features_b.double()
    cov_a, cov_b = (torch.cov(x.T).reshape(x.shape[1], x.shape[1]) for x in (a, b))
    values, vectors = torch.linalg.eigh(cov_a)
    root_a = vectors * values.clamp(min=0).sqrt() @ vectors.T
    product = root_a @ cov_b @ root_a
    # Rounding makes a singular product's zero eigenvalues slightly negative and, once, asymmetric.
    root_trace = torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0).sqrt().sum()
    mean_term = (a.mean(0) - b.mean(0)).square().sum()
    return max(0.0, (mean_term + cov_a.trace() + cov_b.trace() - 2 * root_trace).item())


def movement(before: Readings, after: Readings, edited: str, pair_difference: float) -> Tensor:
    """Edit strength of each identity: the share of the pairs' own difference that it moved.

        (after[edited] - before[edited]) / pair_difference

    Args:
        before, after: readings of the same identities without and with the edit.
        edited: the attribute the edit is about.
        pair_difference: mean of target minus source over the training pairs, read by the same probe; not 0.

    Returns:
        (B,); 0 = not moved, 1 = moved as far as the pairs, negative = moved the wrong way.

    Raises:
        ValueError: `edited` is not read, or `pair_difference` is 0.
    """
    if edited not in before:
        raise ValueError(f"expected one of {sorted(before)} as the edited attribute, found '{edited}'")
    if pair_difference == 0:
        raise ValueError(f"expected pairs that differ in '{edited}', found a pair difference of 0")
    return (after[edited] - before[edited]) / pair_difference


def leakage(before: Readings, after: Readings, intended: Collection[str]) -> dict[str, Tensor]:
    """How far the edit moved what it should have left alone: |after - before| of each other attribute.

    Absolute values, taken identity by identity, so that opposite drifts do not cancel.

    Args:
        before, after: readings of the same identities without and with the edit.
        intended: the attributes that may move.

    Returns:
        {attribute: (B,) in units of its range}.

    Raises:
        ValueError: the two do not read the same attributes, or no attribute is left over.
    """
    if before.keys() != after.keys():
        raise ValueError(f"expected the same attributes, found {sorted(before)} and {sorted(after)}")
    leaks = {name: (after[name] - before[name]).abs() for name in before if name not in intended}
    if not leaks:
        raise ValueError(f"expected attributes besides {sorted(intended)} to measure leakage on, found none")
    return leaks


@dataclass(frozen=True)
class EditReport:
    """What `edit_table` measured. Intervals are 95% bootstrap intervals over identities."""

    edited: str
    identities: int
    pair_difference: float
    readings: dict[float, Interval]
    """Reading of the edited attribute at each scale, in ascending order of scale."""
    smallest_step: float
    """Least change of the mean reading from one scale to the next, as a share of the pairs' difference."""
    monotone: bool
    """The mean reading never turns back between scales, and ends further along than it began."""
    moved: Interval
    leak: Interval
    """Mean over all attributes that should not move, of `leaks`."""
    leaks: dict[str, Interval]
    spearman: Interval
    """Rank correlation of scale and reading within each identity; +1 = every identity follows the slider."""


def edit_table(
    readings_by_scale: Mapping[float, Readings],
    edited: str,
    pair_difference: float,
    changed: Collection[str] = (),
    scale: float = 1.0,
) -> EditReport:
    """Measure a slider: does the attribute follow the scale, how far does it get, and what comes along?

    Args:
        readings_by_scale: the same identities' readings at every slider scale; 0 and `scale` among them.
        edited: the attribute the edit is about.
        pair_difference: as in `movement`.
        changed: further attributes that the pairs change on purpose; they don't count as leaking.
        scale: the slider scale at which `moved` and the leak are taken.

    Raises:
        ValueError: a scale missing, identities or attributes that differ between scales, and all that
            `movement` and `leakage` refuse.
    """
    if missing := {0.0, scale} - readings_by_scale.keys():
        raise ValueError(f"expected readings at scales 0 and {scale:g}, found none at {sorted(missing)}")
    scales = sorted(readings_by_scale)
    before, after = readings_by_scale[0.0], readings_by_scale[scale]
    moved = movement(before, after, edited, pair_difference)
    leaks = leakage(before, after, {edited, *changed})
    shapes = {tuple(values.shape) for readings in readings_by_scale.values() for values in readings.values()}
    if len(shapes) != 1:
        raise ValueError(f"expected the same identities at every scale, found shapes {sorted(shapes)}")

    by_scale = torch.stack([readings_by_scale[s][edited].cpu().double() for s in scales])  # (scales, B)
    steps = by_scale.mean(dim=1).diff() / pair_difference
    direction = math.copysign(1, pair_difference)
    ranks = torch.tensor(scales, dtype=torch.float64)[:, None].expand_as(by_scale)
    return EditReport(
        edited=edited,
        identities=by_scale.shape[1],
        pair_difference=pair_difference,
        readings={s: bootstrap_mean(values) for s, values in zip(scales, by_scale, strict=True)},
        smallest_step=steps.min().item(),
        monotone=bool((steps >= 0).all() and steps.sum() > 0),
        moved=bootstrap_mean(moved),
        leak=bootstrap_mean(torch.stack(list(leaks.values())).mean(dim=0)),
        leaks={name: bootstrap_mean(values) for name, values in leaks.items()},
        spearman=bootstrap_mean(spearman_corrcoef(direction * by_scale, ranks)),
    )


def edit_rows(reports: Sequence[EditReport]) -> tuple[list[str], list[list[str]]]:
    """Lay reports out as a table, one row an edit: the reading at each scale, then the verdicts.

    Returns:
        The header and the rows, for `markdown_table` or an HTML table.

    Raises:
        ValueError: no report, or reports measured at different scales.
    """
    scales = list(reports[0].readings) if reports else []
    if not scales or any(list(report.readings) != scales for report in reports):
        found = [list(report.readings) for report in reports]
        raise ValueError(f"expected at least one report, all at the same scales, found {found}")
    header = ["edit", *(f"{scale:g}" for scale in scales), "monotone", "moved", "leak", "Spearman"]
    rows = [
        [
            report.edited,
            *(f"{reading.mean:.2f}" for reading in report.readings.values()),
            "yes" if report.monotone else f"no ({report.smallest_step:+.1%})",
            f"{report.moved:.0%}",
            f"{report.leak:.3f}",
            f"{report.spearman.mean:.2f}",
        ]
        for report in reports
    ]
    return header, rows
