"""Objectives on a model that is a few lines of arithmetic, against the formulas written out in numpy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from utils.errors import UserError
from utils.flow import ContentPreserving, RectifiedFlow
from utils.objectives import OBJECTIVES, ContentSemantic, PairBatch, TextBatch, TextSlider, build_objective


class ToyModel:
    """v = base x_t + sigma + the active weights times x_t squared; records what was active at each call."""

    def __init__(self) -> None:
        self.weights = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in WEIGHTS.items()}
        self.active: tuple[str, ...] = ()
        self.scales: dict[str, float] = {}
        self.calls: list[tuple[str, ...]] = []

    def __call__(self, x_t: Tensor, sigma: Tensor) -> Tensor:
        self.calls.append(self.active)
        total = 0.5 * x_t + sigma[:, None, None, None]
        for name in self.active:
            total = total + self.scales[name] * self.weights[name] * x_t**2
        return total

    @contextmanager
    def adapters(
        self, train: str | None = None, frozen: Sequence[str] = (), scale: float = 1.0
    ) -> Iterator[None]:
        self.active = tuple(sorted([*([train] if train else []), *frozen]))
        self.scales = dict.fromkeys(frozen, 1.0) | ({train: scale} if train else {})
        for name, weight in self.weights.items():
            weight.requires_grad_(name == train)
        try:
            yield
        finally:
            self.active = ()


WEIGHTS = {"content": 0.25, "semantic": -0.75, "inversion": 0.5}


@pytest.fixture
def batch() -> PairBatch:
    generator = torch.Generator().manual_seed(3)
    source, target, noise = (torch.randn(2, 4, 3, 3, generator=generator) for _ in range(3))
    return PairBatch(source, target, torch.tensor([0.2, 0.9]), noise)


def _numpy(batch):
    sigma = batch.sigma.numpy()[:, None, None, None]
    return batch.source.numpy(), batch.target.numpy(), sigma, batch.noise.numpy()


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
        for name, loss in build_objective("train_image", eta, beta).losses(ToyModel(), batch)
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
    for _, loss in build_objective("train_image", 4.0, 1.0).losses(model, batch):
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
    seen = [(name, model.active) for name, _ in build_objective("train_image", 4.0, 1.0).losses(model, batch)]
    assert seen == [("content", ("content",)), ("semantic", ("content", "semantic"))]
    assert model.calls == [("content",), ("content", "semantic")]
    assert model.active == ()


def test_schedule_is_a_free_choice(batch):
    source, _, sigma, noise = _numpy(batch)
    x_t = (1 - sigma) * source + sigma * noise
    expected = np.mean((0.5 * x_t + sigma + 0.25 * x_t**2 - (noise - source)) ** 2)
    losses = dict(ContentSemantic(RectifiedFlow(), eta=4.0).losses(ToyModel(), batch))
    assert losses["content"].item() == pytest.approx(expected, rel=1e-5)


def test_equal_images_leave_nothing_to_learn(batch):
    """source = target: the semantic target is the content target, whatever eta."""
    same = replace(batch, target=batch.source)
    model = ToyModel()
    with torch.no_grad():
        model.weights["semantic"].zero_()
    losses = dict(build_objective("train_image", 100.0, 1.0).losses(model, same))
    assert torch.equal(losses["content"], losses["semantic"])


def test_losses_are_float32_for_a_half_precision_model(batch):
    half = PairBatch(*(getattr(batch, field.name).bfloat16() for field in fields(batch)))
    for _, loss in build_objective("train_image", 4.0, 1.0).losses(ToyModel(), half):
        assert loss.dtype == torch.float32


def _velocity(x_t, sigma, semantic=0.0, content=0.0, inversion=0.0):
    """ToyModel with its adapters at these scales."""
    return 0.5 * x_t + sigma + (0.25 * content - 0.75 * semantic + 0.5 * inversion) * x_t**2


def _independent(name, source, target, sigma, noise, eta, beta):
    """Each method's losses, written out from the table of methods."""
    kept_source, kept_target = (x + sigma * beta * noise for x in (source, target))
    flow_source, flow_target = ((1 - sigma) * x + sigma * noise for x in (source, target))
    edit = eta * (source - target)
    residuals = {
        "train_image_wocontent": {
            "semantic": _velocity(kept_source, sigma, semantic=1) - (beta * noise + edit)
        },
        "train_image_wocfg": {
            "content": _velocity(kept_source, sigma, content=1) - beta * noise,
            "semantic": _velocity(kept_target, sigma, content=1, semantic=1) - beta * noise,
        },
        "train_image_fm": {
            "content": _velocity(flow_source, sigma, content=1) - (noise - source),
            "semantic": _velocity(flow_source, sigma, content=1, semantic=1) - (noise - source + edit),
        },
        "train_image_sliders": {
            "positive": _velocity(flow_target, sigma, semantic=1) - (noise - target),
            "negative": _velocity(flow_source, sigma, semantic=-1) - (noise - source),
        },
        "train_image_real": {"inversion": _velocity(flow_source, sigma, inversion=1) - (noise - source)},
    }
    return {loss: np.mean(residual**2) for loss, residual in residuals[name].items()}


@pytest.mark.parametrize("name", sorted(set(OBJECTIVES) - {"train_image"}))
def test_other_methods_match_their_formulas(batch, name):
    eta, beta = 4.0, 3.0
    expected = _independent(name, *_numpy(batch), eta, beta)
    model = ToyModel()
    losses = {loss: value.item() for loss, value in build_objective(name, eta, beta).losses(model, batch)}
    assert losses == {loss: pytest.approx(value, rel=1e-5) for loss, value in expected.items()}
    assert list(losses) == list(expected)
    assert model.active == ()


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_only_the_adapter_in_training_gets_gradients(batch, name):
    objective, model = build_objective(name, 4.0, 1.0), ToyModel()
    trained = {"positive": "semantic", "negative": "semantic"}
    for loss_name, loss in objective.losses(model, batch):
        before = {adapter: weight.grad for adapter, weight in model.weights.items()}
        before = {adapter: None if grad is None else grad.clone() for adapter, grad in before.items()}
        loss.backward()
        for adapter, weight in model.weights.items():
            changed = (before[adapter] is None) != (weight.grad is None) or (
                weight.grad is not None and not torch.equal(weight.grad, before[adapter])
            )
            assert changed == (adapter == trained.get(loss_name, loss_name))


class PromptedModel(ToyModel):
    """Adds a constant for its prompt; shares weights with the others."""

    def __init__(self, parent: ToyModel, bias: float) -> None:
        super().__init__()
        self.weights, self.bias, self.parent = parent.weights, bias, parent

    def __call__(self, x_t: Tensor, sigma: Tensor) -> Tensor:
        self.active, self.scales = self.parent.active, self.parent.scales
        return super().__call__(x_t, sigma) + self.bias * x_t

    def adapters(self, *args, **kwargs):
        return self.parent.adapters(*args, **kwargs)


@pytest.mark.parametrize("eta", [2.0, -2.0])
def test_text_slider_matches_its_formula(batch, eta):
    parent = ToyModel()
    prompts = {"target": 0.0, "start": 0.1, "positive": 0.7, "negative": -0.4}
    models = {name: PromptedModel(parent, bias) for name, bias in prompts.items()}
    drawn = TextBatch(batch.source, batch.sigma, eta=eta, **models)
    ((name, loss),) = TextSlider().losses(parent, drawn)

    x_t, sigma = batch.source.numpy(), batch.sigma.numpy()[:, None, None, None]
    start, positive, negative = (
        _velocity(x_t, sigma) + prompts[name] * x_t for name in ("start", "positive", "negative")
    )
    velocity_target = start + eta * (positive - negative)
    for image in range(2):
        velocity_target[image] *= np.linalg.norm(positive[image]) / np.linalg.norm(velocity_target[image])
    expected = np.mean((_velocity(x_t, sigma, semantic=1) - velocity_target) ** 2)
    assert (name, loss.item()) == ("semantic", pytest.approx(expected, rel=1e-5))
    loss.backward()
    assert parent.weights["semantic"].grad is not None


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_every_objective_saves_an_adapter_it_trains(name):
    objective = build_objective(name, 4.0, 1.0)
    assert objective.saved in objective.adapters


def test_noise_scale_is_beta():
    assert build_objective("train_image", 4.0, 3.0) == ContentSemantic(ContentPreserving(beta=3.0), eta=4.0)


def test_unknown_method_names_those_there_are():
    with pytest.raises(UserError, match=r"train_image.*found train_imgae"):
        build_objective("train_imgae", 4.0, 1.0)
