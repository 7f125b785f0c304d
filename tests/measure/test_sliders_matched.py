"""Values at matched strength, by hand or by a slow loop over the definition."""

import math
import random

import pytest
import torch

from tests.measure.seeds import rng
from utils.measure.metrics import Interval, bootstrap_mean
from utils.measure.sliders import at_strength, matched, scale_at


def mean(values):
    return sum(values) / len(values)


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
