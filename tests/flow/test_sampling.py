"""The Euler loop against closed forms and diffusers' scheduler; sweeps against one plain run a scale."""

import math

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from utils.flow.sampling import euler_sample, initial_noise, sweep, sweep_forwards, sweep_skips

SIGMAS = torch.linspace(1, 0, 9)


def test_initial_noise_does_not_depend_on_the_batch():
    alone = initial_noise([7], (16, 4, 4))
    together = initial_noise([3, 7], (16, 4, 4))
    assert together.shape == (2, 16, 4, 4)
    assert torch.equal(together[1], alone[0])
    assert not torch.equal(together[0], together[1])


def test_initial_noise_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    initial_noise([1, 2], (4,))
    assert torch.equal(state, torch.get_rng_state())


def test_initial_noise_needs_a_seed():
    with pytest.raises(ValueError, match="at least one seed"):
        initial_noise([], (4,))


def test_constant_velocity_is_integrated_exactly():
    x_0, noise = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    x = euler_sample(lambda x_t, sigma: noise - x_0, noise, SIGMAS)
    assert torch.allclose(x, x_0, atol=1e-6)


def test_euler_converges_at_first_order_to_the_true_solution():
    # dx/dsigma = x has x(0) = x(1) / e; halving the step must halve the error.
    errors = []
    for steps in (64, 128):
        sigmas = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
        x = euler_sample(lambda x_t, sigma: x_t, torch.ones(1, 1, dtype=torch.float64), sigmas)
        errors.append(abs(x.item() - math.exp(-1)))
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.02)


def test_sigma_comes_one_per_sample():
    seen = []

    def velocity(x_t, sigma):
        seen.append(sigma)
        return torch.zeros_like(x_t)

    euler_sample(velocity, torch.zeros(3, 1), SIGMAS, start=2, stop=4)
    assert [tuple(sigma.tolist()) for sigma in seen] == [(0.75,) * 3, (0.625,) * 3]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equals_the_scheduler_of_diffusers(dtype):
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    scheduler.set_timesteps(sigmas=[1 - i / 8 for i in range(8)], mu=0.8)
    start = torch.randn(2, 3, dtype=dtype)

    def velocity(x_t, sigma):
        return torch.sin(3 * x_t) + sigma[:, None].to(dtype)

    expected = start
    for t in scheduler.timesteps:
        v = velocity(expected, (t / 1000).expand(2))
        expected = scheduler.step(v, t, expected, return_dict=False)[0]
    actual = euler_sample(velocity, start, scheduler.sigmas)
    assert actual.dtype == dtype
    assert torch.allclose(actual, expected, atol=1e-5)


def test_parts_of_a_trajectory_join_up():
    def velocity(x_t, sigma):
        return x_t.cos() * sigma[:, None]

    start = torch.randn(2, 5)
    half = euler_sample(velocity, start, SIGMAS, stop=3)
    assert torch.equal(euler_sample(velocity, half, SIGMAS, start=3), euler_sample(velocity, start, SIGMAS))
    assert euler_sample(velocity, start, SIGMAS, start=4, stop=4) is start


@pytest.mark.parametrize(("start", "stop"), [(-1, None), (5, 3), (0, 9)])
def test_steps_outside_the_schedule_are_refused(start, stop):
    with pytest.raises(ValueError, match="0 <= start <= stop <= 8"):
        euler_sample(lambda x_t, sigma: x_t, torch.zeros(1, 1), SIGMAS, start, stop)


def test_on_step_sees_every_state_and_no_graph_is_built():
    states = []
    x = torch.ones(1, 1, requires_grad=True)
    end = euler_sample(lambda x_t, sigma: x_t, x, SIGMAS, on_step=lambda i, x_t: states.append((i, x_t)))
    assert [i for i, _ in states] == list(range(8))
    assert states[-1][1] is end
    assert not end.requires_grad


class CountingField:
    """velocity = x_t * sigma + scale, counting its calls, their parts and the scales that were asked for."""

    def __init__(self):
        self.calls, self.parts, self.asked = 0, 0, []

    def __call__(self, scales):
        self.asked.append(scales)

        def velocity(x_t, sigma):
            self.calls, self.parts = self.calls + 1, self.parts + len(scales)
            strength = torch.tensor(scales).repeat_interleave(len(x_t) // len(scales))
            return x_t * sigma[:, None] + strength[:, None]

        return velocity


def slow_reference(x, skip, scale):
    """One run for one scale: nothing shared, written as a plain loop."""
    for i in range(8):
        strength = scale if i >= skip else 0
        x = x + (SIGMAS[i + 1] - SIGMAS[i]) * (x * SIGMAS[i] + strength)
    return x


@pytest.mark.parametrize("skips", [[0], [3], [8], [5, 2], [0, 8, 4]])
@pytest.mark.parametrize("scales", [[0.0, 0.5, 1.0], [1.0], [-1.0, 1.0], [0.0], [1.0, 0.0, 1.0]])
def test_sweep_equals_one_plain_run_per_scale(skips, scales):
    field, start, steps = CountingField(), torch.randn(2, 3), []
    samples = sweep_skips(field, start, SIGMAS, skips, scales, on_step=lambda i, x_t: steps.append(i))
    assert list(samples) == skips
    for skip in skips:
        assert list(samples[skip]) == list(dict.fromkeys(scales))
        for scale in scales:
            assert torch.allclose(samples[skip][scale], slow_reference(start, skip, scale), atol=1e-6)
    assert field.parts == sweep_forwards(8, skips, scales)
    assert field.calls == len(steps) <= 8  # all branches of a step together


@pytest.mark.parametrize("scales", [[0.0, 0.5], [0.5]])
def test_a_held_branch_is_corrected_by_the_unedited_one_after_every_step(scales):
    field, start = CountingField(), torch.randn(2, 3)
    held = sweep_skips(field, start, SIGMAS, [3], scales, hold=lambda base, x: base + (x - base) / 2)[3]
    base = x = start
    for i in range(8):
        step = SIGMAS[i + 1] - SIGMAS[i]
        base_next = base + step * base * SIGMAS[i]
        x = base_next if i < 3 else base_next + (x + step * (x * SIGMAS[i] + 0.5) - base_next) / 2
        base = base_next
    assert torch.allclose(held[0.5], x, atol=1e-6)
    assert torch.allclose(held.get(0.0, base), base, atol=1e-6)
    assert field.parts == sweep_forwards(8, [3], scales, held=True) == 8 + 5


def test_of_several_edits_all_zeros_are_the_base():
    field, start = CountingField(), torch.randn(2, 3)
    scales = [(0.0, 0.0), (0.5, 0.0), (0.0, 2.0), (-1.0, 1.0)]

    def velocity_for(scales):
        return field([first + 10 * second for first, second in scales])

    samples = sweep_skips(velocity_for, start, SIGMAS, [3], scales)[3]
    assert list(samples) == scales
    for first, second in scales:
        expected = slow_reference(start, 3, first + 10 * second)
        assert torch.allclose(samples[first, second], expected, atol=1e-5)
    assert field.parts == sweep_forwards(8, [3], scales) == 8 + 3 * 5


def test_sweep_shares_the_prefix():
    field = CountingField()
    samples = sweep(field, torch.randn(1, 2), SIGMAS, skip=5, scales=[0.0, 0.25, 0.5, 1.0])
    assert list(samples) == [0.0, 0.25, 0.5, 1.0]
    assert field.parts == 8 + 3 * 3  # instead of 4 * 8
    assert field.asked == [[0.0]] * 5 + [[0.0, 0.25, 0.5, 1.0]] * 3


def test_six_scales_at_skip_14_of_28():
    scales = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert sweep_forwards(28, [14], scales) == 14 + 6 * 14


@pytest.mark.parametrize(("skips", "scales"), [([], [1.0]), ([2], []), ([9], [1.0]), ([-1], [1.0])])
def test_sweep_refuses_nonsense(skips, scales):
    with pytest.raises(ValueError, match="expected"):
        sweep_skips(CountingField(), torch.zeros(1, 1), SIGMAS, skips, scales)


def test_several_loras_begin_at_steps_of_their_own():
    """Against a loop written out: the first from the skip on, the second from step 5."""

    def fields(scales):
        def velocity(x, sigma):
            parts = zip(scales, x.chunk(len(scales)), strict=True)
            return torch.cat([0.5 * part + 2 * one - 3 * two * part for (one, two), part in parts])

        return velocity

    x, scales = torch.randn(2, 3), [(1.0, 0.0), (1.0, 0.5), (0.0, 0.0)]
    swept = sweep_skips(fields, x, SIGMAS, [2], scales, onsets=[0, 5])[2]
    for one, two in scales:
        expected = x
        for step in range(len(SIGMAS) - 1):
            own = (one if step >= 2 else 0.0, two if step >= 5 else 0.0)
            expected = expected + (SIGMAS[step + 1] - SIGMAS[step]) * fields([own])(expected, None)
        torch.testing.assert_close(swept[one, two], expected)
    assert not torch.allclose(swept[1.0, 0.5], sweep_skips(fields, x, SIGMAS, [2], scales)[2][1.0, 0.5])
