"""utils/study/tables.py: slider metrics, further measures and costs, against figures worked out by hand."""

from __future__ import annotations

import math

import torch

from tests.study.known_cells import LACKING, cell, means, pool, record, row
from utils.study.tables import cost_table, measure_table, percent, slider_table

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
