"""A method's cells pooled: over seeds, identity by identity, on the side of scales from 0 up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from utils.study.cells import CellResult
from utils.study.plan import Plan


@dataclass(frozen=True)
class Pool:
    """One method's cells; N identities in all, n scales from 0 up.

    Attributes:
        label: of the method.
        cells: those that were measured, none if all failed.
        missing: those that were not, such as "glasses, training 2".
    """

    label: str
    cells: Sequence[CellResult]
    missing: Sequence[str]

    @property
    def count(self) -> str:
        """Cells measured and cells planned, such as 11/12."""
        return f"{len(self.cells)}/{len(self.cells) + len(self.missing)}"

    @property
    def scales(self) -> Tensor:
        """(n,) ascending from 0, float64."""
        return torch.tensor(self.cells[0].scales, dtype=torch.float64)[_up(self.cells[0])]

    @property
    def strength(self) -> Tensor:
        """(N, n) shares of the pairs' own change."""
        return torch.cat([cell.strength[:, _up(cell)] for cell in self.cells])

    @property
    def damage(self) -> Tensor:
        """(N, n) in the judge's units."""
        return torch.cat([cell.damage[:, _up(cell)] for cell in self.cells])

    @property
    def by_dataset(self) -> list[Pool]:
        """The cells of each dataset."""
        names = dict.fromkeys(cell.dataset for cell in self.cells)
        return [Pool(self.label, [cell for cell in self.cells if cell.dataset == name], ()) for name in names]


def pool_methods(results: Sequence[CellResult], plan: Plan, dataset: str = "") -> list[Pool]:
    """A pool for every method that has any result, in order of first appearance.

    Args:
        results: measured cells of the plan.
        plan: says which cells there should be.
        dataset: pool this one's cells alone; "" pools all datasets.

    Raises:
        ValueError: no results; a cell that the plan does not have or that is there twice; cells of one method
            at different scales; scales not ascending, without 0 or with none above; strength or damage of
            another shape than (B, n) or not finite.
    """
    _check(results, plan)
    datasets = [dataset] if dataset else plan.datasets
    pools = []
    for label in dict.fromkeys(result.label for result in results):
        cells = [result for result in results if result.label == label and result.dataset in datasets]
        there = {(cell.dataset, cell.seed) for cell in cells}
        planned = product(datasets, range(1, plan.seeds + 1))
        missing = [f"{cell[0]}, training {cell[1]}" for cell in planned if cell not in there]
        pools.append(Pool(label, cells, missing))
    return pools


def _check(results: Sequence[CellResult], plan: Plan) -> None:
    if not results:
        raise ValueError("expected at least one measured cell, found none")
    scales_of: dict[str, list[float]] = {}
    seen = set()
    for result in results:
        # Of the plan, and once.
        key, scales = (result.label, result.dataset, result.seed), result.scales
        if result.dataset not in plan.datasets or not 1 <= result.seed <= plan.seeds:
            raise ValueError(f"expected cells of the plan, found {key} ({result.cell})")
        if key in seen:
            raise ValueError(f"expected every cell once, found {key} twice")
        seen.add(key)

        # At scales that go together.
        if scales != sorted(set(scales)) or 0 not in scales or scales[-1] <= 0:
            raise ValueError(f"{result.cell}: expected ascending scales, 0 and some above, found {scales}")
        if scales_of.setdefault(result.label, scales) != scales:
            raise ValueError(
                f"{result.label}: expected cells of one method at the same scales, "
                f"found {scales_of[result.label]} and {scales}"
            )

        # With figures for each.
        for values in (result.strength, result.damage):
            if values.ndim != 2 or values.shape[1] != len(scales) or not values.isfinite().all():
                raise ValueError(
                    f"{result.cell}: expected finite strength and damage of shape (B, {len(scales)}), "
                    f"found {tuple(values.shape)}{'' if values.isfinite().all() else ', not all finite'}"
                )


def _up(cell: CellResult) -> list[int]:
    """Columns of the scales from 0 up."""
    return [column for column, scale in enumerate(cell.scales) if scale >= 0]
