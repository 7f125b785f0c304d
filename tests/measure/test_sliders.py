"""Smoothness, correlations and usable range of a slider, by hand or by a slow loop over the definition."""

import math
import warnings

import pytest
import scipy.stats
import torch

from tests.measure.seeds import rng
from utils.measure.sliders import UsableRange, correlations, free_sliders, smoothness, usable_range


def pairwise_distances(path):
    """(n, d) positions -> (1, n, n)."""
    return torch.cdist(path, path, compute_mode="donot_use_mm_for_euclid_dist")[None]


# smoothness


def test_a_straight_line_in_feature_space_is_perfectly_smooth():
    direction = torch.randn(16, generator=rng()).double()
    uneven = torch.tensor(
        [0, 0.1, 0.5, 0.6, 2.0]
    ).double()  # delta_smooth asks for no detours, not even steps
    distances = pairwise_distances(uneven[:, None] * direction)
    assert smoothness(distances).tolist() == pytest.approx([0], abs=1e-12)


def test_smoothness_of_a_right_angle_and_of_the_worst_of_several_turns():
    corner = torch.tensor([[0, 0], [3, 0], [3, 4.0]])
    assert smoothness(pairwise_distances(corner)).tolist() == pytest.approx([2 / 5])
    # A gentle and a square turn; the straight parts don't dilute it. And no turn.
    path = torch.tensor([[-2, 0], [-1, 0], [0, 0], [4, 3], [1, 7], [-2, 11.0]])
    straight = path.clone()
    straight[3:] = torch.tensor([[1, 0], [2, 0], [3, 0]])
    both = torch.cat([pairwise_distances(path), pairwise_distances(straight)])
    assert smoothness(both).tolist() == pytest.approx([2 / math.sqrt(2) - 1, 0], abs=1e-6)


def test_smoothness_equals_a_loop_over_its_definition():
    d = torch.rand(5, 7, 7, generator=rng()).double() + 0.1
    expected = [
        max((x[i][i + 1] + x[i + 1][i + 2] - x[i][i + 2]) / x[i][i + 2] for i in range(5)) for x in d.tolist()
    ]
    assert smoothness(d).tolist() == pytest.approx(expected, rel=1e-12)


def test_smoothness_where_the_ends_of_three_scales_are_the_same_image():
    still, back = torch.zeros(3, 1), torch.tensor([[0.0], [1], [0]])
    half_still = torch.tensor([[0.0], [0], [0], [1]])
    assert smoothness(pairwise_distances(still)).tolist() == [0]
    assert smoothness(pairwise_distances(back)).tolist() == [math.inf]
    assert smoothness(pairwise_distances(half_still)).tolist() == [0]


@pytest.mark.parametrize(
    ("distances", "message"),
    [
        (torch.zeros(3, 3), r"\(B, n, n\), B >= 1, n >= 3, found \(3, 3\)"),
        (torch.zeros(1, 2, 2), r"n >= 3, found \(1, 2, 2\)"),
        (torch.zeros(1, 3, 4), r"found \(1, 3, 4\)"),
        (torch.zeros(0, 3, 3), r"found \(0, 3, 3\)"),
        (-torch.eye(3)[None], "distances >= 0, found -1"),
        (torch.full((1, 3, 3), math.nan), "finite distances, found NaN"),
        (torch.full((1, 3, 3), math.inf), "finite distances, found NaN or infinity"),
    ],
)
def test_smoothness_refuses_what_has_no_answer(distances, message):
    with pytest.raises(ValueError, match=message):
        smoothness(distances)


# free_sliders


def test_free_sliders_by_hand():
    scores = torch.tensor([[1.0, 2.0, 5.0], [0.0, 4.0, 2.0]])
    found = free_sliders(scores, torch.tensor([[0.1, 0.3], [1.0, 3.0]]))
    assert found.conceptual_range.tolist() == pytest.approx([4, 2])
    # Steps of 1/4 and 3/4 about their mean 1/2; of 1 and -1/2 about 1/4.
    assert found.smoothness.tolist() == pytest.approx([0.25, 0.75])
    assert found.preservation.tolist() == pytest.approx([0.2, 2.0])
    assert found.overall.tolist() == pytest.approx([4 / 1.2 + 0.75, 2 / 3 + 0.25])


def test_even_steps_have_no_csm_whatever_their_unit_and_direction():
    even = torch.arange(5).double()
    scores = torch.stack([even, 7 * even - 3, -0.01 * even])
    found = free_sliders(scores, torch.zeros(3, 4))
    assert found.smoothness.tolist() == pytest.approx([0, 0, 0], abs=1e-12)
    assert found.conceptual_range.tolist() == pytest.approx([4, 28, -0.04])
    assert found.overall.tolist() == pytest.approx([5, 29, 0.96])


def test_turning_back_counts_as_uneven():
    found = free_sliders(torch.tensor([[0.0, 1, 0, 1]]), torch.zeros(1, 3))
    assert found.smoothness.item() == pytest.approx(math.sqrt(8) / 3)  # steps 1, -1, 1


def test_a_slider_that_does_not_move_has_neither_csm_nor_overall_score():
    found = free_sliders(torch.tensor([[2.0, 2, 2], [0, 1, 2]]), torch.ones(2, 2))
    assert found.conceptual_range.tolist() == [0, 2]
    assert found.preservation.tolist() == [1, 1]
    assert found.smoothness.isnan().tolist() == found.overall.isnan().tolist() == [True, False]


@pytest.mark.parametrize(
    ("scores", "distances", "message"),
    [
        (torch.zeros(3), torch.zeros(2), r"scores of shape \(B, n\), B >= 1, n >= 2, found \(3,\)"),
        (torch.zeros(2, 1), torch.zeros(2, 0), r"scores of shape .* found \(2, 1\)"),
        (torch.zeros(2, 3), torch.zeros(2, 3), r"distances_to_zero of shape \(2, 2\), found \(2, 3\)"),
        (torch.zeros(2, 3), -torch.ones(2, 2), "distances_to_zero >= 0, found -1"),
        (torch.zeros(2, 3), torch.full((2, 2), math.inf), "finite distances_to_zero"),
        (torch.full((2, 3), math.nan), torch.zeros(2, 2), "finite scores"),
    ],
)
def test_free_sliders_refuses_what_has_no_answer(scores, distances, message):
    with pytest.raises(ValueError, match=message):
        free_sliders(scores, distances)


# correlations


def test_correlations_equal_scipy_ties_and_uneven_scales_included():
    scales = torch.tensor([-1, 0, 0.5, 2, 3])
    readings = torch.cat(
        [torch.randn(6, 5, generator=rng()), torch.tensor([[0.0, 1, 1, 2, 2], [5, 5, 5, 5, 4]])]
    )
    spearman, pearson = correlations(scales, readings)
    expected = [scipy.stats.spearmanr(scales, row).statistic for row in readings]
    assert spearman.tolist() == pytest.approx(expected, abs=5e-6)
    expected = [scipy.stats.pearsonr(scales.double(), row.double()).statistic for row in readings]
    assert pearson.tolist() == pytest.approx(expected, abs=1e-9)


def test_order_alone_is_spearman_and_a_straight_line_is_pearson():
    scales = torch.tensor([0.0, 1, 2, 3]).double()
    spearman, pearson = correlations(scales, torch.stack([scales.exp(), -scales, 1e-6 * scales + 100]))
    assert spearman.tolist() == pytest.approx([1, -1, 1], abs=5e-6)
    assert pearson[0] < 0.95
    assert pearson[1:].tolist() == pytest.approx([-1, 1])


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e6])
def test_constant_readings_correlate_with_nothing_and_warn_of_nothing(constant):
    scales, still = torch.tensor([0.0, 1, 2]), torch.full((3,), constant)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alone = correlations(scales, still[None])
        beside = correlations(scales, torch.stack([scales, still, -scales]))
    for one, three in zip(alone, beside, strict=True):
        assert one.tolist() == [0]
        assert three.tolist() == pytest.approx([1, 0, -1], abs=5e-6)


def test_correlations_of_one_identity_and_of_two_scales():
    spearman, pearson = correlations(torch.tensor([0, 1]), torch.tensor([[3, 2]]))
    assert spearman.shape == pearson.shape == (1,)
    assert (spearman.item(), pearson.item()) == pytest.approx((-1, -1), abs=5e-6)


@pytest.mark.parametrize(
    ("scales", "readings", "message"),
    [
        (torch.arange(3), torch.zeros(3), r"readings of shape \(B, 3\), B >= 1, found \(3,\)"),
        (torch.arange(3), torch.zeros(2, 4), r"found \(2, 4\)"),
        (torch.arange(3), torch.full((1, 3), math.nan), "finite readings"),
        (torch.zeros(1), torch.zeros(2, 1), r"scales of shape \(n,\), n >= 2, found \(1,\)"),
        (torch.tensor([0.0, 1, 1]), torch.zeros(2, 3), r"ascending scales, found \[0.0, 1.0, 1.0\]"),
        (torch.tensor([0.0, math.inf]), torch.zeros(2, 2), "finite scales"),
    ],
)
def test_correlations_refuse_what_has_no_answer(scales, readings, message):
    with pytest.raises(ValueError, match=message):
        correlations(scales, readings)


# usable_range

SCALES = torch.tensor([0, 0.5, 1.0, 2.0, 4.0])
HARMLESS = torch.zeros(5)


@pytest.mark.parametrize(
    ("strength", "saturates"),
    [
        ([0.0, 0.5, 1.0, 1.0, 1.0], 1.0),
        ([0.0, 0.5, 0.95, 0.98, 1.0], 1.0),  # 5% to go: no more than the plateau
        ([0.0, 0.5, 0.94, 0.98, 1.0], 2.0),
        ([0.0, 0.5, 0.6, 0.8, 1.0], None),  # rises to the end
        ([0.0, 0.5, 0.5, 0.5, 1.0], None),  # flat for a while is not flat from there on
        ([0.0, 1.0, 0.8, 0.9, 0.7], 0.5),  # never again more than it was there
        ([0.2, 0.7, 1.145, 1.18, 1.2], 2.0),  # 5.5% to go: the gain counts from the first scale
        ([0.3, 0.3, 0.3, 0.3, 0.3], 0.0),
        ([0.3, 0.2, 0.1, 0.0, -0.1], 0.0),
        ([-1.0, -1.0, -0.5, 0.0, 0.0], 2.0),
    ],
)
def test_a_slider_saturates_where_nothing_is_left_to_gain(strength, saturates):
    assert usable_range(SCALES, torch.tensor(strength), HARMLESS, 1).saturates == saturates


def test_the_plateau_is_a_share_of_the_total_gain():
    strength = torch.tensor([0.0, 2.0, 3.0, 3.6, 4.0])
    found = [usable_range(SCALES, strength, HARMLESS, 1, plateau=p).saturates for p in (0, 0.1, 0.25, 0.5)]
    assert found == [None, 2.0, 1.0, 0.5]


@pytest.mark.parametrize(
    ("damage", "limit", "breaks"),
    [
        ([0.0, 0.1, 0.2, 0.6, 0.7], 0.3, 1.25),  # a quarter of the way from 1 to 2
        ([0.0, 0.1, 0.2, 0.2, 0.2], 0.3, None),
        ([0.0, 0.1, 0.25, 0.25, 0.0], 0.25, None),  # at the limit is not beyond it
        ([0.0, 0.1, 0.25, 0.25, 0.5], 0.25, 2.0),  # leaves the limit at 2
        ([0.0, 0.5, 0.0, 0.5, 0.5], 0.25, 0.25),  # the first time counts
        ([0.5, 0.1, 0.1, 0.1, 0.1], 0.25, 0.0),
        ([0.0, 0.0, 0.0, 0.0, 1.0], 0.5, 3.0),
    ],
)
def test_a_slider_breaks_where_the_damage_crosses_its_limit(damage, limit, breaks):
    found = usable_range(SCALES, SCALES, torch.tensor(damage), limit).breaks
    assert found == (None if breaks is None else pytest.approx(breaks, abs=1e-6))


def test_both_ends_of_the_range_are_plain_numbers():
    found = usable_range(SCALES, SCALES.clamp(max=1), SCALES, 3)
    assert found == UsableRange(1.0, 3.0)
    assert {type(found.saturates), type(found.breaks)} == {float}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((SCALES + 1, SCALES, SCALES, 1), "scales from 0, .* found 1, 1 and 0.05"),
        ((SCALES.flip(0), SCALES, SCALES, 1), "ascending"),
        ((SCALES, SCALES[None], SCALES, 1), r"strength of shape \(5,\), found \(1, 5\)"),
        ((SCALES, SCALES, SCALES[1:], 1), r"damage of shape \(5,\), found \(4,\)"),
        ((SCALES, SCALES / 0, SCALES, 1), "finite strength"),
        ((SCALES, SCALES, SCALES / 0, 1), "finite damage"),
        ((SCALES, SCALES, SCALES, math.nan), "finite limit"),
        ((SCALES, SCALES, SCALES, 1, 1.0), "plateau < 1, found 0, 1 and 1.0"),
        ((SCALES, SCALES, SCALES, 1, -0.1), "plateau"),
    ],
)
def test_usable_range_refuses_what_has_no_answer(arguments, message):
    with pytest.raises(ValueError, match=message):
        usable_range(*arguments)
