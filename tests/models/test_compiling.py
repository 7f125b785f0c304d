"""Compiled blocks: the same velocities and gradients, and nothing is compiled anew as adapters change."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch._dynamo.utils import counters

from tests.conftest import MINI_SEQUENCE_LENGTH
from utils.flow.passes import PairBatch
from utils.models.adapters import adapter_parameters, add_adapter
from utils.models.base import Base
from utils.models.compiling import compile_blocks
from utils.models.velocity import PromptedVelocity, Velocity
from utils.training.methods import build_objective

BACKEND = "aot_eager"  # traces forward and backward as inductor does, and needs no C++ compiler


@pytest.fixture(autouse=True)
def fresh_dynamo() -> Iterator[None]:
    limit = torch._dynamo.config.recompile_limit
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()
    torch._dynamo.config.recompile_limit = limit


def graphs() -> int:
    return counters["stats"]["unique_graphs"]


def model_of(base: Base) -> Velocity:
    for seed, name in enumerate(("content", "semantic")):
        add_adapter(base.transformer, name, 2, 1, seed=seed)
        for weight in adapter_parameters(base.transformer, name)[1::2]:
            weight.data.normal_(0, 0.1, generator=torch.Generator().manual_seed(seed))
    return Velocity(base, base.encode_prompts([""], MINI_SEQUENCE_LENGTH), 3.5)


def batch_of(seed: int) -> PairBatch:
    generator = torch.Generator().manual_seed(seed)
    source, target, noise = (torch.randn(1, 16, 4, 4, generator=generator) for _ in range(3))
    return PairBatch(source, target, torch.rand(1, generator=generator), noise)


def step(model: Velocity, seed: int, joint: bool) -> list[torch.Tensor]:
    """A training step's gradients."""
    prompted = PromptedVelocity(model.base, {"": model.embeds}, model.guidance_scale)
    for losses in build_objective("train_image", 4.0, 1.0, joint).losses(prompted, batch_of(seed)):
        sum(losses.values()).backward()
    weights = [
        weight
        for name in ("content", "semantic")
        for weight in adapter_parameters(model.base.transformer, name)
    ]
    gradients = [weight.grad.clone() for weight in weights]
    for weight in weights:
        weight.grad = None
    return gradients


@pytest.mark.parametrize("joint", [True, False])
def test_training_steps_compile_once(mini_flux_loaded: Base, joint: bool) -> None:
    model = model_of(mini_flux_loaded)
    expected = step(model, 0, joint)
    compile_blocks(mini_flux_loaded.transformer, BACKEND)
    for compiled, plain in zip(step(model, 0, joint), expected, strict=True):
        torch.testing.assert_close(compiled, plain, atol=1e-5, rtol=1e-4)
    before = graphs()
    assert before > 0
    for seed in range(1, 4):
        step(model, seed, joint)
    assert graphs() == before


@torch.no_grad()
def test_scales_and_switching_compile_nothing_anew(mini_flux_loaded: Base) -> None:
    model = model_of(mini_flux_loaded)
    x_t, sigma = batch_of(0).source.repeat(3, 1, 1, 1), torch.full((3,), 0.5)

    def velocities(scale: float) -> list[torch.Tensor]:
        together = model.scaled({}, {"semantic": scale}, {"semantic": -scale})(x_t, sigma)
        return [model.scaled({})(x_t, sigma), model.scaled({"semantic": scale})(x_t, sigma), together]

    expected = velocities(0.7)
    compile_blocks(mini_flux_loaded.transformer, BACKEND)
    for compiled, plain in zip(velocities(0.7), expected, strict=True):
        torch.testing.assert_close(compiled, plain, atol=1e-5, rtol=1e-4)
    before = graphs()
    for scale in (0.1, 0.2, -1.0, 4.0):
        velocities(scale)
    assert graphs() == before


def test_training_and_sampling_in_turn_compile_nothing_anew(mini_flux_loaded: Base) -> None:
    model = model_of(mini_flux_loaded)
    compile_blocks(mini_flux_loaded.transformer, BACKEND)

    def turn(seed: int) -> None:
        step(model, seed, joint=True)
        with torch.no_grad():
            model.scaled({"semantic": 0.1 * (seed + 1)})(batch_of(seed).source, torch.full((1,), 0.5))

    turn(0)
    before = graphs()
    for seed in range(1, 3):
        turn(seed)
    assert graphs() == before
