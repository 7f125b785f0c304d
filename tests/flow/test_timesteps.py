"""Which noise levels a step sees: distributions against what is known of them, `steps` against the pairs'."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from scipy import stats

from utils.config.schema import choices
from utils.flow.timesteps import TIMESTEPS, draw_sigmas, shift_of

EVEN = torch.linspace(1, 0, 29)
COUNT = 4000


def shifted_levels(mu: float, steps: int = 28) -> torch.Tensor:
    """FLUX's: e^mu / (e^mu + 1 / t - 1) at t = 1, (N - 1) / N, ..."""
    even = torch.linspace(1, 0, steps + 1, dtype=torch.float64)[:-1]
    return torch.cat([math.exp(mu) / (math.exp(mu) + 1 / even - 1), torch.zeros(1)]).float()


def drawn(timesteps: str, levels: torch.Tensor = EVEN, first: int = 0, last: int = 27) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return draw_sigmas(timesteps, levels, first, last, COUNT, generator)


def test_steps_are_drawn_as_those_of_pairs_bit_for_bit() -> None:
    """Written out as utils/training/batches.py has it."""
    levels = shifted_levels(1.0)
    ours, theirs = (torch.Generator().manual_seed(7) for _ in range(2))
    sigma = draw_sigmas("steps", levels, 3, 20, 50, ours)
    own = levels[3:21]
    assert torch.equal(sigma, own[torch.randint(len(own), (50,), generator=theirs)])
    assert torch.equal(ours.get_state(), theirs.get_state())
    assert set(drawn("steps", levels, 3, 5).tolist()) == set(levels[3:6].tolist())


@pytest.mark.parametrize(
    ("timesteps", "distribution"),
    [
        ("uniform", stats.uniform()),
        ("logit_normal", lambda sigma: stats.norm().cdf(torch.logit(torch.tensor(sigma)))),
    ],
)
def test_levels_are_of_the_distribution_that_the_name_says(timesteps: str, distribution) -> None:
    cdf = getattr(distribution, "cdf", distribution)
    assert stats.kstest(drawn(timesteps).double().numpy(), cdf).pvalue > 0.01


@pytest.mark.parametrize("tokens", [256, 1024, 4096])
def test_shifted_moves_levels_as_flux_moves_its_own(tokens: int) -> None:
    mu = calculate_shift(tokens)
    levels = shifted_levels(mu)
    assert shift_of(levels) == pytest.approx(math.exp(mu), rel=1e-5)
    even = drawn("logit_normal")
    expected = math.exp(mu) / (math.exp(mu) + 1 / even - 1)
    torch.testing.assert_close(drawn("shifted", levels), expected)
    assert drawn("shifted", levels).mean() > even.mean()


def test_levels_that_are_not_shifted_move_nothing() -> None:
    for steps in (1, 2, 7, 28):
        assert shift_of(torch.linspace(1, 0, steps + 1)) == pytest.approx(1, rel=1e-5)
    torch.testing.assert_close(drawn("shifted"), drawn("logit_normal"))


def test_every_choice_is_within_0_and_1_and_repeats_by_its_seed() -> None:
    assert set(choices("timesteps")) == set(TIMESTEPS)
    for timesteps in TIMESTEPS:
        sigma = drawn(timesteps, shifted_levels(1.15))
        assert (sigma.shape, sigma.dtype) == ((COUNT,), torch.float32)
        assert ((sigma >= 0) & (sigma <= 1)).all()
        assert torch.equal(sigma, drawn(timesteps, shifted_levels(1.15)))
