"""utils/study/tables.py: every figure against one worked out by hand from known curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from utils.records import Record
from utils.study.cells import CellResult
from utils.study.plan import Plan
from utils.study.pools import Pool, pool_methods
from utils.study.tables import cost_table, damage_table, measure_table, percent, slider_table

STRENGTHS = [0.25, 0.5, 0.75, 1.0]
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


# damage at matched strength


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


# slider metrics


def test_slider_metrics_of_a_straight_slider() -> None:
    straight = cell(
        strength=[(0, 0.5, 1)] * 2,
        damage=[(0, 0.2, 0.4)] * 2,
        measures={"LPIPS alex": torch.tensor([[0.1, 0.3], [0.3, 0.5]])},
        delta_smooth=torch.tensor([0.1, 0.3]),
    )
    numbers = slider_table(pool(straight), limit=0.3)
    assert dict(zip(numbers.header, means(numbers), strict=True)) == {
        "method": "mine",
        "delta_smooth": "0.200",
        "CSM": "0.000",
        "Spearman": "1.000",
        "CR": "1.000",
        "SP": "0.300",
        "OS": f"{(1 / 1.2 + 1 / 1.4) / 2 + 1:.3f}",
        "saturates": "not by 2",
        "breaks": "1.50",  # halfway from 0.2 to 0.4
    }
    assert numbers.notes == []


def test_saturation_and_breaking_are_of_the_scales_from_zero_up() -> None:
    flat = cell(scales=(-1, 0, 1, 2), strength=[(5, 0, 1, 1)], damage=[(9, 0, 0, 0)], delta_smooth="no")
    shown = row(slider_table(pool(flat), limit=0.3))
    assert (shown["saturates"], shown["breaks"]) == ("1", "not by 2")
    assert shown["CR"] == "-4.000"  # of the whole slider, -1 to 2


def test_the_probes_distance_goes_before_lpips() -> None:
    both = {"LPIPS alex": torch.full((2, 2), 0.5), "probe distance": torch.full((2, 2), 3.0)}
    assert row(slider_table(pool(cell(measures=both)), 0.3))["SP"].startswith("3.000")


def test_without_a_distance_the_rest_is_still_told() -> None:
    numbers = slider_table(pool(cell(measures={"LPIPS alex": LACKING}, delta_smooth=LACKING)), 0.3)
    shown = row(numbers)
    assert shown["SP"] == shown["OS"] == shown["delta_smooth"] == "not available"
    assert shown["CR"].startswith("1.000")
    assert numbers.notes == [f"delta_smooth; LPIPS alex: {LACKING}"]


def test_a_slider_that_does_not_move_has_no_evenness() -> None:
    idle = cell(
        strength=[(0, 0, 0)] * 2,
        damage=[(0, 0, 0)] * 2,
        measures={"probe distance": torch.zeros(2, 2)},
        delta_smooth=torch.tensor([0.25, math.inf]),
    )
    shown = row(slider_table(pool(idle), 0.3))
    assert (shown["CSM"], shown["OS"]) == ("undefined", "undefined")
    assert shown["Spearman"] == shown["CR"] == "0.000 [0.000, 0.000]"
    assert (shown["saturates"], shown["breaks"]) == ("0", "not by 2")
    assert shown["delta_smooth"] == "0.250 (1 of 2 identities)"


# further measures


def test_measures_are_taken_at_the_matched_strength() -> None:
    measures = {
        "SSIM": torch.tensor([[0.9, 0.5], [0.7, 0.3]]),  # mean 1, 0.8, 0.4 at strength 0, 0.5, 1
        "leak": torch.tensor([[0.1, 0.2], [0.3, 0.2]]),
        "PSNR": torch.tensor([[40.0, 20.0], [20.0, 10.0]]),  # nothing at 0, where it is infinite
        "ArcFace": LACKING,
    }
    numbers = measure_table(pool(cell(measures=measures)), 0.75)
    assert numbers.header == ["method", *measures]
    assert means(numbers) == ["mine", "0.600", "0.200", "22.500", "not available"]
    assert numbers.notes == [f"ArcFace: {LACKING}"]
    early = measure_table(pool(cell(measures=measures)), 0.25)
    assert means(early) == ["mine", "0.900", "0.100", "not available", "not available"]
    assert early.notes[0].startswith("PSNR: no value at scale 0")


def test_measures_below_scale_zero_are_left_out() -> None:
    signed = cell(
        scales=(-1, 0, 0.5, 1),
        strength=[(-1, 0, 0.5, 1)] * 2,
        damage=[(0, 0, 0, 0)] * 2,
        measures={"PSNR": torch.tensor([[99.0, 30.0, 20.0]] * 2)},
    )
    assert means(measure_table(pool(signed), 0.75)) == ["mine", "25.000"]


def test_a_measure_is_not_told_at_a_strength_that_is_not_reached() -> None:
    weak = cell(strength=[(0, 0.1, 0.2)] * 2, measures={"SSIM": torch.ones(2, 2), "DINOv2": LACKING})
    assert measure_table(pool(weak), 0.75).rows == [["mine", "not reached", "not available"]]


def test_measures_of_some_cells_say_so() -> None:
    there = cell(measures={"leak": torch.full((2, 2), 0.5)})
    unlike = cell(seed=2, strength=[(0, 0, 0)] * 2, measures={"leak": LACKING})
    numbers = measure_table(pool(there, unlike), 0.5)
    assert numbers.rows == [["mine", "0.500 [0.417, 0.500] (1 of 2 cells)"]]
    assert numbers.notes == [f"leak: {LACKING}"]


def test_infinite_values_are_not_averaged() -> None:
    numbers = measure_table(pool(cell(measures={"PSNR": torch.tensor([[math.inf, 20.0]] * 2)})), 0.75)
    assert numbers.rows == [["mine", "not available"]]
    assert numbers.notes[0].startswith("PSNR: not finite")


# costs


def test_costs_are_means_over_cells() -> None:
    slow = {
        "training": record("training", 30, 60, 3 * 2**30, "CPU"),
        "generation": record("generation", 8, 8),
    }
    numbers = cost_table(pool(cell(), cell(seed=2, **slow)))
    assert numbers.rows == [["mine", "20.0", "6.00", "2.00", "0.750"]]
    assert numbers.notes == ["Training on A100; CPU.", "Generation on A100."]


def test_memory_that_was_not_told_is_not_available() -> None:
    numbers = cost_table(pool(cell(training=record("training", 1, 1))))
    assert row(numbers)["peak GiB"] == "not available"


def test_percentages_are_written_without_rounding() -> None:
    assert [percent(share) for share in (0.29, 0.125, 1)] == ["29%", "12.5%", "100%"]
