"""utils/study/tables.py: damage at matched strength, against figures worked out by hand."""

from __future__ import annotations

import math

import pytest

from tests.study.known_cells import cell, means, plan, pool, row
from utils.study.cells import CellResult
from utils.study.pools import pool_methods
from utils.study.tables import damage_table

STRENGTHS = [0.25, 0.5, 0.75, 1.0]


def test_damage_is_interpolated_at_the_strength_that_the_mean_reaches() -> None:
    numbers = damage_table(pool_methods([cell()], plan()), STRENGTHS)
    assert numbers.header == ["method", "cells", "25%", "50%", "75%", "100%", "reaches"]
    assert means(numbers) == ["mine", "1/1", "0.100", "0.200", "0.300", "0.400", "100%"]
    # the bounds are resamples of one identity alone: 0.1 + 0.2 * 0.35 / 0.4 and 0.3 + 0.2 * 0.15 / 0.6
    assert row(numbers)["75%"] == "0.300 [0.275, 0.350]"
    assert numbers.notes == []


def test_the_seeds_of_a_dataset_are_pooled_at_one_slider_position() -> None:
    weak = cell(strength=[(0, 0.2, 0.4)], damage=[(0, 0, 0)])
    strong = cell(seed=2, strength=[(0, 0.8, 1.6)], damage=[(0, 0.4, 0.4)])
    # each at its own 25% would be (0 + 0.125) / 2; together they reach it at scale 0.5, with (0 + 0.2) / 2
    assert means(damage_table(pool(weak, strong), STRENGTHS))[2:] == [
        "0.100",
        "0.200",
        "0.200",
        "0.200",
        "100%",
    ]


def test_datasets_are_matched_each_at_its_own_position_and_count_alike() -> None:
    weak = cell(strength=[(0, 0.2, 0.4)], damage=[(0, 0, 0)])
    strong = cell(dataset="age", strength=[(0, 0.8, 1.6)] * 3, damage=[(0, 0.4, 0.4)] * 3)
    numbers = damage_table(pool_methods([weak, strong], plan(("glasses", "age"))), STRENGTHS)
    assert means(numbers) == ["mine", "2/2", "0.062", *["not reached"] * 3, "40%"]  # (0 + 0.125) / 2


def test_cells_of_unequal_size_weigh_by_identity() -> None:
    one = cell(strength=[(0, 1, 1)], damage=[(0, 0.8, 0.8)])
    three = cell(seed=2, strength=[(0, 1, 1)] * 3, damage=[(0, 0, 0)] * 3)
    assert means(damage_table(pool(one, three), [1.0]))[2] == "0.200"


def test_a_perfect_editor_has_no_damage_at_any_strength() -> None:
    perfect = cell(strength=[(0, 1, 2)] * 3, damage=[(0, 0, 0)] * 3)
    nothing = "0.000 [0.000, 0.000]"
    assert damage_table(pool_methods([perfect], plan()), STRENGTHS).rows == [
        ["mine", "1/1", *[nothing] * 4, "200%"]
    ]


def test_an_editor_that_changes_nothing_reaches_nothing() -> None:
    idle = cell(strength=[(0, 0, 0)] * 3, damage=[(0, 0, 0)] * 3)
    assert damage_table(pool_methods([idle], plan()), STRENGTHS).rows == [
        ["mine", "1/1", *["not reached"] * 4, "0%"]
    ]


def test_what_stays_just_below_a_strength_does_not_read_as_reaching_it() -> None:
    close = cell(strength=[(0, 0.3, 0.749)], damage=[(0, 0, 0.5)])
    assert row(damage_table(pool_methods([close], plan()), STRENGTHS)) == {
        "method": "mine",
        "cells": "1/1",
        "25%": "0.000",  # one identity has no interval
        "50%": "0.223",  # (0.5 - 0.3) / 0.449 of 0.5
        "75%": "not reached",
        "100%": "not reached",
        "reaches": "74%",
    }


def test_rounding_does_not_keep_a_strength_from_being_reached() -> None:
    rounded = cell(strength=[(0, 0.5, 1 - 5e-7)], damage=[(0, 0, 0.5)])
    shown = row(damage_table(pool_methods([rounded], plan()), [1.0]))
    assert (shown["100%"], shown["reaches"]) == ("0.500", "100%")


def test_scales_below_zero_don_t_count_as_reaching() -> None:
    # on its way down through scale -1 the strength passes all that it never reaches above 0
    signed = cell(scales=(-2, -1, 0, 1), strength=[(0, 1, 0, 0.5)] * 2, damage=[(9, 9, 0, 0.2)] * 2)
    numbers = damage_table(pool_methods([signed], plan()), STRENGTHS)
    assert means(numbers) == ["mine", "1/1", "0.100", "0.200", "not reached", "not reached", "50%"]


def test_missing_cells_show_in_the_row_and_below_the_table() -> None:
    results = [cell(), cell("other"), cell("other", "age", 1), cell("other", "age", 2)]
    everything = pool_methods(results, plan(("glasses", "age"), seeds=2))
    numbers = damage_table(everything, STRENGTHS)
    assert [line[:2] for line in numbers.rows] == [["mine", "1/4"], ["other", "3/4"]]
    assert numbers.notes == [
        "mine: no result of glasses, training 2; age, training 1; age, training 2.",
        "other: no result of glasses, training 2.",
    ]
    ages = damage_table(pool_methods(results, plan(("glasses", "age"), seeds=2), "age"), STRENGTHS)
    assert ages.rows[0] == ["mine", "0/2", *["not measured"] * 5]
    assert ages.rows[1][:2] == ["other", "2/2"]


def test_a_dataset_of_its_own_takes_its_cells_alone() -> None:
    results = [cell(), cell(dataset="age", damage=[(0, 0, 0), (0, 0, 0)])]
    datasets = plan(("glasses", "age"))
    shown = [means(damage_table(pool_methods(results, datasets, name), [0.5]))[2] for name in ("", "age")]
    assert shown == ["0.100", "0.000"]


def test_methods_keep_their_order_of_appearance() -> None:
    labels = ["zoo", "mine", "also"]
    assert [one.label for one in pool(*(cell(label) for label in labels))] == labels


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([], "expected at least one measured cell, found none"),
        ([cell(), cell(seed=2, scales=(0, 1, 4))], "cells of one method at the same scales"),
        ([cell(), cell()], "expected every cell once"),
        ([cell(dataset="hat")], "expected cells of the plan"),
        ([cell(seed=3)], "expected cells of the plan"),
        ([cell(scales=(0, 2, 1))], "expected ascending scales"),
        ([cell(scales=(1, 2, 3))], "expected ascending scales, 0 and some above"),
        ([cell(scales=(-2, -1, 0))], "expected ascending scales, 0 and some above"),
        ([cell(scales=(0, 1))], r"of shape \(B, 2\), found \(2, 3\)"),
        ([cell(damage=[(0, math.nan, 0)] * 2)], "not all finite"),
    ],
)
def test_results_that_don_t_go_together_are_refused(cells: list[CellResult], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pool(*cells)


def test_methods_may_differ_in_scales() -> None:
    assert len(pool(cell(), cell("other", scales=(0, 1, 4)))) == 2
