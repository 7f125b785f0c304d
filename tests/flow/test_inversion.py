"""Inversions on velocity fields that are a few lines of arithmetic: exact solutions, slow loops."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from utils.config.schema import choices
from utils.errors import UserError
from utils.flow.inversion import TRAINING_FREE, build_inversion
from utils.flow.inversion_free import (
    Backwards,
    FlowEdit,
    FlowSlider,
    RFInversion,
    _shuffled,
    euler_step,
    fireflow_step,
    midpoint_step,
)
from utils.flow.inversion_lora import RULES, Lora
from utils.flow.sampling import Fields, VelocityFn, euler_sample
from utils.flow.schedules import per_sample

SIGMAS = torch.linspace(1, 0, 29)
SCALES = [-1.0, 0.0, 1e-4, 0.5, 1.0]


def in_parts(field: Callable[[Mapping[str, float]], VelocityFn]) -> Fields:
    """Of a field for one set of adapter scales, that of a batch of parts at each their own."""

    def of(*scales: Mapping[str, float]) -> VelocityFn:
        def velocity(x: Tensor, sigma: Tensor) -> Tensor:
            parts = zip(scales, x.chunk(len(scales)), sigma.chunk(len(scales)), strict=True)
            return torch.cat([field(own)(part, level) for own, part, level in parts])

        return velocity

    return of


@in_parts
def fields(scales: Mapping[str, float]) -> VelocityFn:
    """v = x / 2 + sigma, plus each adapter's own term times its scale; they interact."""
    semantic, inversion = scales.get("semantic", 0.0), scales.get("inversion", 0.0)

    def velocity(x: Tensor, sigma: Tensor) -> Tensor:
        level = sigma[:, None, None, None]
        return 0.5 * x + level - 0.8 * semantic + inversion * (0.3 * x + semantic * level)

    return velocity


@pytest.fixture
def photo() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    x_0, noise = (torch.randn(2, 3, 4, 4, generator=generator) for _ in range(2))
    return x_0, noise


METHODS = [build_inversion(name, "difference", 0.75) for name in choices("inversion")] + [Lora("joint", 0.75)]


@pytest.mark.parametrize("inversion", METHODS, ids=lambda method: repr(method)[:40])
def test_the_edit_is_continuous_through_zero(photo, inversion) -> None:
    edits = inversion.edit(fields, photo[0], SIGMAS, 10, SCALES, photo[1])
    assert list(edits) == SCALES
    reconstruction = edits[0.0]
    assert (edits[1e-4] - reconstruction).abs().max() < 1e-3
    up, down = edits[1.0] - reconstruction, edits[-1.0] - reconstruction
    assert up.min() > 0.05  # sampling goes down in sigma, so minus 0.8 becomes plus
    assert down.max() < -0.05


def test_the_authors_rule_jumps_at_zero(photo) -> None:
    edits = Lora("authors", 0.75).edit(fields, photo[0], SIGMAS, 10, [0.0, 1e-4], photo[1])
    assert (edits[1e-4] - edits[0.0]).abs().max() > 0.05


@pytest.mark.parametrize(("rule", "scale", "weight"), [("difference", 0.5, 0.75), ("joint", -1.0, 0.4)])
def test_lora_rules_match_a_slow_loop(photo, rule: str, scale: float, weight: float) -> None:
    skip, x = 10, photo[1]
    for i in range(28):
        sigma = SIGMAS[i].expand(2)
        v_inv, v = fields({"inversion": 1.0})(x, sigma), fields({})(x, sigma)
        v_semantic = fields({"semantic": scale})(x, sigma)
        v_both = fields({"inversion": 1.0, "semantic": scale})(x, sigma)
        change = v_semantic - v if rule == "difference" else v_both - v_inv
        x = x + (SIGMAS[i + 1] - SIGMAS[i]) * (v_inv + (weight * change if i >= skip else 0))
    edits = Lora(rule, weight).edit(fields, photo[0], SIGMAS, skip, [scale], photo[1])
    torch.testing.assert_close(edits[scale], x)


@pytest.mark.parametrize(
    ("step", "order"), [(euler_step, 1), (midpoint_step, 2), (fireflow_step, 2)], ids=lambda value: str(value)
)
def test_solvers_have_their_order(step, order) -> None:
    """dx/dsigma = x / 2 + sigma has x = 5 exp(sigma / 2) - 2 sigma - 4 from 1 at sigma = 0."""
    exact = 5 * math.exp(0.5) - 6

    def error(steps: int) -> float:
        start = torch.ones(1, 1, 1, 1, dtype=torch.float64)
        sigmas = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        return abs(Backwards(step).integrate(fields({}), start, sigmas).item() - exact)

    assert error(40) < 1.3 * error(20) / 2**order


@pytest.mark.parametrize(("name", "forwards"), [("euler", 36), ("rf_solver", 72), ("fireflow", 38)])
def test_forward_passes_are_as_published(photo, name: str, forwards: int) -> None:
    calls = []

    def counted(*scales: Mapping[str, float]) -> VelocityFn:
        return lambda x, sigma: calls.append(len(x) // 2) or fields(*scales)(x, sigma)

    build_inversion(name, "difference", 1.0).edit(counted, photo[0], SIGMAS, 10, [1.0], photo[1])
    assert sum(calls) == forwards


@pytest.mark.parametrize(
    ("inversion", "calls", "parts"),
    [
        (FlowEdit(), 18, 18 * (1 + 5)),
        (FlowSlider(), 18, 18 * (1 + 2 * 5)),
        (build_inversion("euler", "", 1.0), 18 + 18, 18 + 18 * 6),
        (Lora("difference"), 28, 28 + 18 * 5 * 3),
    ],
    ids=["flowedit", "flowslider", "euler", "lora"],
)
def test_all_velocities_of_a_step_are_one_forward_pass(photo, inversion, calls: int, parts: int) -> None:
    sizes = []

    def counted(*scales: Mapping[str, float]) -> VelocityFn:
        return lambda x, sigma: sizes.append(len(x) // 2) or fields(*scales)(x, sigma)

    scales = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    inversion.edit(counted, photo[0], SIGMAS, 10, scales, photo[1])
    assert (len(sizes), sum(sizes)) == (calls, parts)


@pytest.mark.parametrize("inversion", METHODS, ids=lambda method: repr(method)[:40])
def test_scales_together_are_as_each_alone(photo, inversion) -> None:
    together = inversion.edit(fields, photo[0], SIGMAS, 10, SCALES, photo[1])
    for scale in SCALES:
        alone = inversion.edit(fields, photo[0], SIGMAS, 10, [scale], photo[1])[scale]
        torch.testing.assert_close(together[scale], alone)


def test_second_order_reconstructs_better(photo) -> None:
    x_0, noise = photo

    def error(name: str) -> float:
        edits = TRAINING_FREE[name]().edit(fields, x_0, SIGMAS, 0, [0.0], noise)
        return (edits[0.0] - x_0).abs().max().item()

    assert error("rf_solver") < error("euler") / 10
    assert error("fireflow") < error("euler") / 5


def test_rf_inversion_reaches_the_noise(photo) -> None:
    """With gamma = 1 the way up is the straight line to the noise, wherever it ends."""
    x_0, noise = photo
    for skip in (0, 10):
        reached = RFInversion(gamma=1.0).up(fields({}), x_0, SIGMAS[skip:].flip(0), noise)
        torch.testing.assert_close(reached, torch.lerp(x_0, noise, SIGMAS[skip]), atol=1e-5, rtol=1e-5)


def test_rf_inversion_matches_a_slow_loop(photo) -> None:
    x_0, noise = photo
    skip, x = 10, photo[0]
    for i in range(27, skip - 1, -1):  # from SIGMAS[i + 1] up to SIGMAS[i]
        v = 0.5 * (0.5 * x + SIGMAS[i]) + 0.5 * (noise - x) / (1 - SIGMAS[i + 1])
        x = x + (SIGMAS[i] - SIGMAS[i + 1]) * v
    for i in range(skip, 28):
        v = 0.5 * x + SIGMAS[i] - 0.8
        if i < skip + 9:  # half of the 18 steps
            v = 0.1 * v + 0.9 * (x - x_0) / SIGMAS[i]
        x = x + (SIGMAS[i + 1] - SIGMAS[i]) * v
    edits = RFInversion().edit(fields, x_0, SIGMAS, skip, [1.0], noise)
    torch.testing.assert_close(edits[1.0], x, atol=1e-5, rtol=1e-5)


def test_noise_matters_where_it_is_said_to(photo) -> None:
    x_0, noise = photo

    @in_parts
    def curved(scales: Mapping[str, float]) -> VelocityFn:
        return lambda x, sigma: x**2 / 4 - 0.5 * scales.get("semantic", 0.0) * x

    for inversion in METHODS:
        first, second = (inversion.edit(curved, x_0, SIGMAS, 10, [1.0], eps)[1.0] for eps in (noise, -noise))
        assert torch.equal(first, second) != inversion.uses_noise


@pytest.mark.parametrize("draws", [1, 2])
def test_flowedit_leaves_the_photograph_and_transports_by_the_difference(photo, draws: int) -> None:
    x_0, noise = photo
    edits = FlowEdit(draws).edit(fields, x_0, SIGMAS, 10, [0.0, 1.0], noise)
    assert torch.equal(edits[0.0], x_0)
    # the difference of the velocities is (z - x_0) / 2 - 0.8, whatever the noise
    change = euler_sample(lambda z, sigma: 0.5 * z - 0.8, torch.zeros_like(x_0), SIGMAS, 10)
    torch.testing.assert_close(edits[1.0], x_0 + change, atol=1e-5, rtol=1e-5)


def test_flowslider_scales_what_steers_alone(photo) -> None:
    """On a field that is no straight line in the scale, against a slow loop of the paper's two terms."""
    x_0, noise = photo

    def field(x, sigma, scale: float):
        return 0.5 * x + sigma - 0.8 * scale**3 + 0.1 * scale * x

    @in_parts
    def cubic(scales: Mapping[str, float]) -> VelocityFn:
        return lambda x, sigma: field(x, per_sample(sigma, x), scales.get("semantic", 0.0))

    edits = FlowSlider().edit(cubic, x_0, SIGMAS, 10, [-1.0, 0.0, 0.5, 2.0], noise)
    assert torch.equal(edits[0.0], x_0)
    generator = torch.Generator().manual_seed(0)
    z = dict.fromkeys((-1.0, 0.5, 2.0), x_0)
    for sigma, sigma_next in pairwise(SIGMAS[10:]):
        x_source = (1 - sigma) * x_0 + sigma * _shuffled(noise, generator)
        for scale, state in z.items():
            x_edited = state + x_source - x_0
            bare = field(x_edited, sigma, 0.0)
            fidelity, steering = bare - field(x_source, sigma, 0.0), field(x_edited, sigma, 1.0) - bare
            z[scale] = state + (sigma_next - sigma) * (fidelity + scale * steering)
    for scale, state in z.items():
        torch.testing.assert_close(edits[scale], state, atol=1e-5, rtol=1e-5)


def test_names_are_those_of_the_config() -> None:
    assert ("lora", *TRAINING_FREE) == choices("inversion")
    assert tuple(RULES) == choices("inversion_rule")
    with pytest.raises(UserError, match=r"inversion: expected one of lora, euler.*found flowedti"):
        build_inversion("flowedti", "difference", 1.0)
