"""Schedules against their formulas, element by element; sigmas against diffusers itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from utils.flow.schedules import ContentPreserving, RectifiedFlow, shift_mu, shifted_sigmas


@pytest.fixture
def latents() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x_0 = torch.randn(3, 2, 4, 5, generator=generator)
    noise = torch.randn(3, 2, 4, 5, generator=generator)
    return x_0, noise, torch.tensor([0.0, 0.3, 1.0])


def test_rectified_flow_matches_formula_per_sample(latents):
    x_0, noise, sigma = latents
    x_t = RectifiedFlow().add_noise(x_0, noise, sigma)
    for index, level in enumerate([0.0, 0.3, 1.0]):
        expected = (1 - level) * x_0[index].numpy() + level * noise[index].numpy()
        np.testing.assert_allclose(x_t[index].numpy(), expected, atol=1e-6)
    np.testing.assert_array_equal(RectifiedFlow().velocity(x_0, noise).numpy(), noise.numpy() - x_0.numpy())


def test_content_preserving_matches_formula_per_sample(latents):
    x_0, noise, sigma = latents
    schedule = ContentPreserving(beta=3.0)
    x_t = schedule.add_noise(x_0, noise, sigma)
    for index, level in enumerate([0.0, 0.3, 1.0]):
        expected = x_0[index].numpy() + level * 3.0 * noise[index].numpy()
        np.testing.assert_allclose(x_t[index].numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(schedule.velocity(x_0, noise).numpy(), 3.0 * noise.numpy(), rtol=1e-6)


@pytest.mark.parametrize("schedule", [RectifiedFlow(), ContentPreserving(beta=0.7)])
def test_no_noise_at_sigma_zero(schedule, latents):
    x_0, noise, _ = latents
    assert torch.equal(schedule.add_noise(x_0, noise, torch.zeros(3)), x_0)


@pytest.mark.parametrize("schedule", [RectifiedFlow(), ContentPreserving(beta=2.0)])
def test_velocity_is_the_derivative_of_x_t(schedule, latents):
    x_0, noise, sigma = (tensor.double() for tensor in latents)
    step = 1e-4
    ahead = schedule.add_noise(x_0, noise, sigma + step)
    behind = schedule.add_noise(x_0, noise, sigma - step)
    torch.testing.assert_close(
        (ahead - behind) / (2 * step), schedule.velocity(x_0, noise), atol=1e-8, rtol=0
    )


@pytest.mark.parametrize("steps", [1, 2, 28, 50])
@pytest.mark.parametrize("image_seq_len", [4, 64, 256, 1024, 4096])
def test_sigmas_equal_diffusers(steps, image_seq_len):
    from diffusers import FlowMatchEulerDiscreteScheduler
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift, retrieve_timesteps

    scheduler = FlowMatchEulerDiscreteScheduler(
        shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15
    )
    mu = calculate_shift(image_seq_len, 256, 4096, 0.5, 1.15)
    retrieve_timesteps(scheduler, steps, sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)
    ours = shifted_sigmas(steps, image_seq_len, 0.5, 1.15, 256, 4096)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, scheduler.sigmas, atol=2e-7, rtol=0)


def test_equal_shifts_give_the_static_shift():
    """mu = log(shift) is the fixed shift of schedulers without dynamic shifting."""
    shift = 3.0
    base = torch.linspace(1, 1 / 10, 10)
    expected = shift * base / (1 + (shift - 1) * base)
    mu = float(np.log(shift))
    torch.testing.assert_close(shifted_sigmas(10, 64, mu, mu)[:-1], expected)


def test_shift_passes_through_its_two_points():
    assert shift_mu(256) == pytest.approx(0.5)
    assert shift_mu(4096) == pytest.approx(1.15)


def test_no_steps_is_an_error():
    with pytest.raises(ValueError, match="at least 1"):
        shifted_sigmas(0, 64)
