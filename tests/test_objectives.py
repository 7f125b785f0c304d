"""Objectives on a model that is a few lines of arithmetic, against the formulas written out in numpy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor

from utils.errors import UserError
from utils.flow import ContentPreserving, RectifiedFlow
from utils.objectives import OBJECTIVES, ContentSemantic, PairLatents, build_objective


class ToyModel:
    """v = base x_t + sigma + the active weights times x_t squared; records what was active at each call."""

    def __init__(self) -> None:
        self.weights = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in WEIGHTS.items()}
        self.active: tuple[str, ...] = ()
        self.calls: list[tuple[str, ...]] = []

    def __call__(self, x_t: Tensor, sigma: Tensor) -> Tensor:
        self.calls.append(self.active)
        total = 0.5 * x_t + sigma[:, None, None, None]
        for name in self.active:
            total = total + self.weights[name] * x_t**2
        return total

    @contextmanager
    def adapters(self, train: str | None = None, frozen: Sequence[str] = ()) -> Iterator[None]:
        self.active = tuple(sorted([*([train] if train else []), *frozen]))
        for name, weight in self.weights.items():
            weight.requires_grad_(name == train)
        try:
            yield
        finally:
            self.active = ()


WEIGHTS = {"content": 0.25, "semantic": -0.75}


@pytest.fixture
def batch() -> tuple[PairLatents, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    source, target, noise = (torch.randn(2, 4, 3, 3, generator=generator) for _ in range(3))
    return PairLatents(source, target), torch.tensor([0.2, 0.9]), noise


def _numpy(batch):
    pair, sigma, noise = batch
    return pair.source.numpy(), pair.target.numpy(), sigma.numpy()[:, None, None, None], noise.numpy()


def test_losses_match_the_formulas(batch):
    source, target, sigma, noise = _numpy(batch)
    beta, eta = 3.0, 4.0
    x_t = source + sigma * beta * noise
    v_content = 0.5 * x_t + sigma + 0.25 * x_t**2
    v_both = v_content - 0.75 * x_t**2
    content = np.mean((v_content - beta * noise) ** 2)
    semantic = np.mean((v_both - (beta * noise + eta * (source - target))) ** 2)

    losses = {
        name: loss.item()
        for name, loss in build_objective("train_image", eta, beta).losses(ToyModel(), *batch)
    }
    assert losses == {
        "content": pytest.approx(content, rel=1e-5),
        "semantic": pytest.approx(semantic, rel=1e-5),
    }


def test_gradients_reach_only_the_trained_adapter(batch):
    source, target, sigma, noise = _numpy(batch)
    x_t = source + sigma * noise
    v_content = 0.5 * x_t + sigma + 0.25 * x_t**2
    residual_content = v_content - noise
    residual_semantic = v_content - 0.75 * x_t**2 - (noise + 4.0 * (source - target))

    model = ToyModel()
    for _, loss in build_objective("train_image", 4.0, 1.0).losses(model, *batch):
        loss.backward()
    # d/dw mean(r^2) = mean(2 r x_t^2): were content trained by both losses, its gradient would be their sum.
    assert model.weights["content"].grad.item() == pytest.approx(
        np.mean(2 * residual_content * x_t**2), rel=1e-4
    )
    assert model.weights["semantic"].grad.item() == pytest.approx(
        np.mean(2 * residual_semantic * x_t**2), rel=1e-4
    )


def test_each_loss_is_yielded_inside_its_context(batch):
    model = ToyModel()
    seen = [
        (name, model.active) for name, _ in build_objective("train_image", 4.0, 1.0).losses(model, *batch)
    ]
    assert seen == [("content", ("content",)), ("semantic", ("content", "semantic"))]
    assert model.calls == [("content",), ("content", "semantic")]
    assert model.active == ()


def test_schedule_is_a_free_choice(batch):
    source, _, sigma, noise = _numpy(batch)
    x_t = (1 - sigma) * source + sigma * noise
    expected = np.mean((0.5 * x_t + sigma + 0.25 * x_t**2 - (noise - source)) ** 2)
    losses = dict(ContentSemantic(RectifiedFlow(), eta=4.0).losses(ToyModel(), *batch))
    assert losses["content"].item() == pytest.approx(expected, rel=1e-5)


def test_equal_images_leave_nothing_to_learn(batch):
    """source = target: the semantic target is the content target, whatever eta."""
    pair, sigma, noise = batch
    same = PairLatents(pair.source, pair.source)
    model = ToyModel()
    with torch.no_grad():
        model.weights["semantic"].zero_()
    losses = dict(build_objective("train_image", 100.0, 1.0).losses(model, same, sigma, noise))
    assert torch.equal(losses["content"], losses["semantic"])


def test_losses_are_float32_for_a_half_precision_model(batch):
    pair, sigma, noise = batch
    half = PairLatents(pair.source.bfloat16(), pair.target.bfloat16())
    for _, loss in build_objective("train_image", 4.0, 1.0).losses(ToyModel(), half, sigma, noise.bfloat16()):
        assert loss.dtype == torch.float32


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_every_objective_saves_an_adapter_it_trains(name):
    objective = build_objective(name, 4.0, 1.0)
    assert objective.saved in objective.adapters


def test_noise_scale_is_beta():
    assert build_objective("train_image", 4.0, 3.0) == ContentSemantic(ContentPreserving(beta=3.0), eta=4.0)


def test_unknown_method_names_those_there_are():
    with pytest.raises(UserError, match=r"train_image.*found train_imgae"):
        build_objective("train_imgae", 4.0, 1.0)
