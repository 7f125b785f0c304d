"""Each slider metric against a case worked by hand, or against a slow loop that follows its definition."""

import math
import random
import warnings

import pytest
import scipy.stats
import torch

from utils.measure.metrics import Interval, bootstrap_mean
from utils.measure.sliders import (
    UsableRange,
    at_strength,
    correlations,
    free_sliders,
    matched,
    scale_at,
    smoothness,
    usable_range,
)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def mean(values):
    return sum(values) / len(values)


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


# at_strength, scale_at

STRENGTH = torch.tensor([[0.0, 0.2, 1.0], [0.0, 0.6, 1.4]])  # mean 0, 0.4, 1.2
VALUES = torch.tensor([[0.0, 1.0, 5.0], [10.0, 20.0, 40.0]])


def test_values_at_a_strength_between_scales_are_mixed_by_the_mean_curve():
    # 0.6 is a quarter of the way from 0.4 to 1.2, for every identity alike.
    assert at_strength(STRENGTH, VALUES, 0.6).tolist() == pytest.approx([2, 25])
    assert at_strength(STRENGTH, VALUES, 0.3).tolist() == pytest.approx([0.75, 17.5])
    common = at_strength(STRENGTH, VALUES[0], 0.6)
    assert common.shape == ()
    assert common.item() == pytest.approx(2)
    assert scale_at(torch.tensor([0, 1, 3]), STRENGTH, 0.6) == pytest.approx(1.5)


def test_the_strength_at_the_found_position_is_the_wanted_one():
    strength = torch.rand(7, 9, generator=rng()).cumsum(dim=1)
    for wanted in torch.linspace(1, 4, 20).tolist():
        assert at_strength(strength, strength, wanted).mean().item() == pytest.approx(wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("ends", [0.7, 1.0, 1.1])
def test_a_strength_that_is_just_reached_is_not_missed_by_rounding(ends, dtype):
    strength = torch.tensor([0, 0.3, ends], dtype=dtype).expand(10, 3)
    values = torch.tensor([1.0, 2.0, 3.0])
    for wanted, expected in ((0, 1.0), (0.3, 2.0), (ends, 3.0)):
        assert at_strength(strength, values, wanted).item() == pytest.approx(expected, abs=1e-5)
        interval = matched(strength, values, [wanted], resamples=50)[wanted]
        assert (interval.low, interval.high) == pytest.approx((expected, expected), abs=1e-5)
    assert at_strength(strength, values, ends + 1e-4) is None


def test_a_strength_reached_but_for_rounding_is_read_at_the_scale_not_beyond_it():
    strength = torch.tensor([[0, 0.5 - 1.1e-6, 0.5 - 0.9e-6, 0.4]], dtype=torch.float64)
    assert scale_at(torch.arange(4), strength, 0.5) == pytest.approx(2)


@pytest.mark.parametrize(
    ("curve", "wanted", "scale"),
    [
        ([0.0, 1.0, 0.0, 1.0], 0.5, 0.5),  # the first crossing of three
        ([0.0, -1.0, 1.0, 1.0], 0.5, 1.75),
        ([0.0, 0.5, 0.5, 1.0], 0.5, 1.0),  # where it is first reached
        ([0.5, 0.0, 1.0, 1.0], 0.5, 0.0),  # starts there
        ([0.1, 0.5, 0.6, 1.0], 0.1, 0.0),  # in float32, a little above
        ([0.8, 0.0, 1.0, 1.0], 0.5, 1.5),  # starts above: crosses from below later
        ([0.8, 0.5, 0.9, 1.0], 0.5, None),  # touches from above
        ([0.8, 0.9, 1.0, 1.1], 0.5, None),
        ([1.0, 0.7, 0.2, 0.0], 0.5, None),  # sinks through it
        ([0.0, 0.2, 0.3, 0.4], 0.5, None),
        ([0.0, 0.0, 0.0, 0.0], 0.0, 0.0),
    ],
)
def test_the_first_crossing_from_below(curve, wanted, scale):
    scales, strength = torch.arange(4), torch.tensor([curve])
    found = scale_at(scales, strength, wanted)
    assert found == (None if scale is None else pytest.approx(scale, abs=1e-6))
    assert (at_strength(strength, strength, wanted) is None) == (scale is None)


@pytest.mark.parametrize("function", [at_strength, lambda s, v, w: matched(s, v, [w])])
@pytest.mark.parametrize(
    ("strength", "values", "wanted", "message"),
    [
        (torch.zeros(3), torch.zeros(3), 0.5, r"strength of shape \(B, n\), B >= 1, n >= 2, found \(3,\)"),
        (torch.zeros(4, 1), torch.zeros(4, 1), 0.5, r"found \(4, 1\)"),
        (torch.zeros(0, 3), torch.zeros(0, 3), 0.5, r"found \(0, 3\)"),
        (torch.zeros(4, 3), torch.zeros(4), 0.5, r"values of shape \(4, 3\) or \(3,\), found \(4,\)"),
        (torch.zeros(4, 3), torch.zeros(1, 3), 0.5, r"values of shape .* found \(1, 3\)"),
        (torch.full((4, 3), math.nan), torch.zeros(4, 3), 0.5, "finite strength, found NaN"),
        (torch.zeros(4, 3), torch.full((4, 3), math.inf), 0.5, "finite values"),
        (torch.zeros(4, 3), torch.zeros(4, 3), math.nan, "finite strength, found nan"),
    ],
)
def test_matched_strength_refuses_what_has_no_answer(function, strength, values, wanted, message):
    with pytest.raises(ValueError, match=message):
        function(strength, values, wanted)


def test_scale_at_refuses_scales_that_do_not_ascend():
    with pytest.raises(ValueError, match="ascending"):
        scale_at(torch.tensor([0, 2, 1]), STRENGTH, 0.6)


# matched


def noisy_sliders(identities, seed=0):
    """Strengths that differ between identities, and values that grow with scale."""
    scales = torch.linspace(0, 2, 6).double()
    slopes = 0.6 + 0.3 * torch.randn(identities, 1, generator=rng(seed)).double()
    noise = 0.05 * torch.randn(identities, 6, generator=rng(seed + 1)).double()
    return slopes * scales + noise * (scales > 0), scales**2 + noise


def crossing_by_loop(strength, values, wanted):
    """Mean value at the first crossing, in plain Python over lists of rows."""
    curve = [mean(column) for column in zip(*strength, strict=True)]
    average = [mean(column) for column in zip(*values, strict=True)]
    for i in range(len(curve) - 1):
        if curve[i] < wanted <= curve[i + 1]:
            share = (wanted - curve[i]) / (curve[i + 1] - curve[i])
            return average[i] + share * (average[i + 1] - average[i])
    return None


def percentile(values, q):
    """Linearly interpolated between order statistics."""
    values, at = sorted(values), q * (len(values) - 1)
    low, share = int(at), at - int(at)
    return values[low] + share * (values[min(low + 1, len(values) - 1)] - values[low])


def test_matched_equals_a_loop_over_the_same_draws():
    strength, values = noisy_sliders(9)
    highest = strength.mean(dim=0).max().item()
    drawn = torch.randint(9, (300, 9), generator=rng(4)).tolist()
    found = matched(strength, values, [0.2, 0.5, 0.9, highest - 0.01], resamples=300, seed=4)
    rows, outcomes, unreached = strength.tolist(), values.tolist(), 0
    for wanted, interval in found.items():
        samples = [
            crossing_by_loop([rows[k] for k in draw], [outcomes[k] for k in draw], wanted) for draw in drawn
        ]
        unreached += samples.count(None)
        samples = [sample for sample in samples if sample is not None]
        expected = (
            crossing_by_loop(rows, outcomes, wanted),
            percentile(samples, 0.025),
            percentile(samples, 0.975),
        )
        assert (interval.mean, interval.low, interval.high) == pytest.approx(expected, rel=1e-9)
    assert unreached > 0  # otherwise nothing was left out


def test_matched_agrees_with_a_bootstrap_of_other_draws():
    strength, values = noisy_sliders(30)
    rows, outcomes, draw = strength.tolist(), values.tolist(), random.Random(0)
    samples = []
    for _ in range(2000):
        chosen = draw.choices(range(30), k=30)
        samples.append(crossing_by_loop([rows[k] for k in chosen], [outcomes[k] for k in chosen], 0.5))
    interval = matched(strength, values, [0.5])[0.5]
    width = interval.high - interval.low
    expected = (percentile(samples, 0.025), percentile(samples, 0.975))
    assert (interval.low, interval.high) == pytest.approx(expected, abs=0.1 * width)


def test_where_all_identities_move_alike_it_is_the_bootstrap_of_the_values():
    values = torch.randn(12, 3, generator=rng()).double()
    strength = torch.tensor([0, 0.4, 1.2]).expand(12, 3)
    interval = matched(strength, values, [0.6])[0.6]
    expected = bootstrap_mean(at_strength(strength, values, 0.6))
    assert (interval.mean, interval.low, interval.high) == pytest.approx(
        (expected.mean, expected.low, expected.high), abs=1e-9
    )


def test_chance_in_the_strength_widens_the_interval():
    strength, _ = noisy_sliders(12)
    scales = torch.linspace(0, 2, 6)
    interval = matched(strength, scales, [0.5])[0.5]  # the scales vary by the crossing alone
    assert interval.low < interval.mean < interval.high
    assert interval.mean == pytest.approx(scale_at(scales, strength, 0.5))
    rows = matched(strength, scales.expand(12, 6), [0.5])[0.5]
    assert (rows.mean, rows.low, rows.high) == pytest.approx((interval.mean, interval.low, interval.high))


def test_a_strength_out_of_reach_has_no_interval():
    strength = torch.tensor([[0.0, 0.5], [0.0, 1.5]])  # mean 1 at the end; half of the resamples fall short
    found = matched(strength, torch.tensor([[0.0, 1.0], [0.0, 2.0]]), [0.9, 1.1])
    assert list(found) == [0.9, 1.1]
    assert found[1.1] is None  # though a quarter of the resamples get there
    # Reached are (0, 1), mean value 1.5 at 0.9 / 1, and (1, 1), mean value 2 at 0.9 / 1.5.
    assert (found[0.9].mean, found[0.9].low, found[0.9].high) == pytest.approx((1.35, 1.2, 1.35))
    assert matched(strength, torch.zeros(2), []) == {}


def test_one_identity_has_a_value_but_no_bounds():
    interval = matched(STRENGTH[:1], VALUES[:1], [0.6])[0.6]
    assert interval.mean == pytest.approx(3)
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)


def test_matched_comes_out_the_same_twice_and_leaves_the_global_generator_alone():
    strength, values = noisy_sliders(9)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = matched(strength, values, [0.5])
    assert torch.equal(torch.get_rng_state(), before)
    assert matched(strength, values, [0.5]) == first
    assert matched(strength, values, [0.5], seed=1) != first
    assert isinstance(first[0.5], Interval)
