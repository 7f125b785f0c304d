"""Cells of a comparison whose curves are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from utils.records import Record
from utils.study.cells import CellResult
from utils.study.plan import Plan
from utils.study.pools import Pool, pool_methods

LACKING = "clip: not available: no weights; to have it: set the key clip_weights"


def record(work: str, seconds: float, count: int, peak: int | None = None, device: str = "A100") -> Record:
    return Record(work, seconds, count, peak, device, "2.11")


def cell(
    label: str = "mine",
    dataset: str = "glasses",
    seed: int = 1,
    scales: Sequence[float] = (0.0, 1.0, 2.0),
    strength: Sequence[Sequence[float]] = ((0, 0.4, 0.8), (0, 0.6, 1.2)),
    damage: Sequence[Sequence[float]] = ((0, 0.1, 0.3), (0, 0.3, 0.5)),
    measures: dict[str, Tensor | str] | None = None,
    **others: Any,
) -> CellResult:
    """Two identities at scales 0, 1, 2; mean strength 0, 0.5, 1 and mean damage 0, 0.2, 0.4."""
    values: dict[str, Any] = {
        "cell": f"{dataset}_v{label}_v{seed}",
        "delta_smooth": torch.zeros(len(strength)),
        "training": record("training", 10, 100, 2**30),
        "generation": record("generation", 4, 8),
        "made_with": {"config": {"skips": [14]}},
    }
    return CellResult(
        label=label,
        dataset=dataset,
        seed=seed,
        scales=list(scales),
        strength=torch.tensor(strength, dtype=torch.float64),
        damage=torch.tensor(damage, dtype=torch.float64),
        measures=measures or {},
        **{**values, **others},
    )


def plan(datasets: Sequence[str] = ("glasses",), seeds: int = 1, **keys: Any) -> Plan:
    return Plan(methods=["mine"], datasets=list(datasets), seeds=seeds, **keys)


def pool(*cells: CellResult) -> list[Pool]:
    return pool_methods(cells, plan(("glasses", "age"), seeds=2))


def row(numbers) -> dict[str, str]:
    """The only row, by column."""
    (values,) = numbers.rows
    return dict(zip(numbers.header, values, strict=True))


def means(numbers) -> list[str]:
    """The only row without its intervals."""
    return [value.partition(" [")[0] for value in row(numbers).values()]
