"""utils/study/figures.py: the report's own figures, and differences of methods on the same people."""

from __future__ import annotations

import pytest
import torch

from tests.study.known_cells import cell, plan
from utils.study.figures import Figure, study_figures
from utils.study.pools import pool_methods
from utils.study.tables import damage_table, measure_table

STRENGTHS = (0.25, 0.5)


def figures(*cells) -> list[Figure]:  # type: ignore[no-untyped-def]
    pools = pool_methods(cells, plan(("glasses", "age"), seeds=2))
    return study_figures({"all": pools}, STRENGTHS, 0.75, 0.1)


def one(
    found: list[Figure], name: str, method: str = "mine", minus: str = "", at: float | None = None
) -> Figure:
    (figure,) = [
        each
        for each in found
        if (each.figure, each.method, each.minus, each.strength) == (name, method, minus, at)
    ]
    return figure


def shifted(seed: int = 1, **others):  # type: ignore[no-untyped-def]
    """The same people as `cell`'s, each damaged by 0.1 more above scale 0."""
    return cell("other", seed=seed, damage=((0.1, 0.2, 0.4), (0.1, 0.4, 0.6)), **others)


def test_they_are_the_reports_own() -> None:
    cells = [cell(measures={"SSIM": torch.tensor([[0.9, 0.8], [0.7, 0.6]])})]
    pools = pool_methods(cells, plan())
    found = figures(*cells)
    for at, shown in zip(STRENGTHS, damage_table(pools, STRENGTHS).rows[0][2:], strict=False):
        own = one(found, "damage", at=at)
        assert f"{own.value:.3f} [{own.people_low:.3f}, {own.people_high:.3f}]" == shown
    ssim = one(found, "SSIM", at=0.75)
    shown = measure_table(pools, 0.75).rows[0][1]
    assert f"{ssim.value:.3f} [{ssim.people_low:.3f}, {ssim.people_high:.3f}]" == shown
    assert one(found, "reaches").value == 1
    assert one(found, "training, s").value == 10
    assert (own.people, own.trainings, own.trainings_low) == (2, 1, None)


def test_trainings_have_an_interval_where_there_are_several() -> None:
    worse = cell(seed=2, damage=((0, 0.3, 0.5), (0, 0.5, 0.7)))
    own = one(figures(cell(), worse), "damage", at=0.5)
    assert (own.value, own.trainings) == (pytest.approx(0.3), 2)
    assert (own.trainings_low, own.trainings_high) == (pytest.approx(0.2), pytest.approx(0.4))


def test_a_difference_is_of_the_same_people() -> None:
    found = figures(cell(), cell(seed=2), shifted(), shifted(seed=2))
    own, difference = (one(found, "damage", "other", minus, 0.5) for minus in ("", "mine"))
    assert own.people_high - own.people_low > 0.05
    for edge in ("value", "people_low", "people_high", "trainings_low", "trainings_high"):
        assert getattr(difference, edge) == pytest.approx(0.1)


def test_what_one_method_lacks_is_in_no_difference() -> None:
    measures = {"PSNR": torch.full((2, 2), 20.0)}
    found = figures(cell(measures=measures), cell(seed=2), shifted(seed=2), shifted(dataset="age"))
    difference = one(found, "damage", "other", "mine", 0.5)
    assert (difference.people, difference.trainings) == (2, 1)
    assert not [each for each in found if each.minus and each.figure == "PSNR"]


def test_what_is_not_reached_has_no_value() -> None:
    weak = cell("other", strength=((0, 0.1, 0.2), (0, 0.1, 0.2)))
    found = figures(cell(), weak)
    for minus in ("", "mine"):
        assert one(found, "damage", "other", minus, 0.5).value is None
