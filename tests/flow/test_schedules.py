"""Schedules against their formulas, element by element; sigmas against diffusers itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from utils.flow.schedules import ContentPreserving, RectifiedFlow


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
