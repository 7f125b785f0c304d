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
from utils.flow.mixes import Mix
from utils.flow.objectives import ContentSemantic, TextSlider
from utils.flow.passes import Objective, PairBatch, Pass, TextBatch
from utils.flow.schedules import ContentPreserving, RectifiedFlow
from utils.training.methods import METHODS, build_objective
from utils.training.sources import ImagePairs, Photograph

IMAGE_METHODS = sorted(name for name, method in METHODS.items() if method.source in (ImagePairs, Photograph))


class ToyModel:
    """v = (0.5 + the prompt's) x_t + sigma + acting weights times x_t squared; records what acted when."""

    def __init__(self) -> None:
        self.weights = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in WEIGHTS.items()}
        self.mixes: tuple[Mix, ...] = ()
        self.calls: list[list[tuple[str, ...]]] = []

    def __call__(self, x_t: Tensor, sigma: Tensor, prompts: Sequence[str] = ("",)) -> Tensor:
        mixes = self.mixes or (Mix(),)
        self.calls.append([tuple(mix.scales) for mix in mixes])
        parts = zip(mixes, x_t.chunk(len(mixes)), sigma.chunk(len(mixes)), strict=True)
        velocity = torch.cat([self._part(mix, x, level) for mix, x, level in parts])
        biases = torch.tensor([BIASES[prompt] for prompt in prompts])
        return velocity + biases.repeat_interleave(len(x_t) // len(prompts))[:, None, None, None] * x_t

    def _part(self, mix: Mix, x_t: Tensor, sigma: Tensor) -> Tensor:
        total = 0.5 * x_t + sigma[:, None, None, None]
        for name, scale in mix.scales.items():
            weight = self.weights[name] if name in mix.train else self.weights[name].detach()
            total = total + scale * weight * x_t**2
        return total

    @contextmanager
    def adapters(self, *mixes: Mix) -> Iterator[None]:
        self.mixes = mixes
        try:
            yield
        finally:
            self.mixes = ()


def losses_of(objective, model, batch) -> dict[str, Tensor]:
    """All losses of a step by name, from however many graphs."""
    return {name: loss for by_name in objective.losses(model, batch) for name, loss in by_name.items()}


BIASES = {"": 0.0, "target": 0.0, "start": 0.1, "positive": 0.7, "negative": -0.4}
WEIGHTS = {"content": 0.25, "semantic": -0.75, "inversion": 0.5}


@pytest.fixture
def batch() -> PairBatch:
    generator = torch.Generator().manual_seed(3)
    source, target, noise = (torch.randn(2, 4, 3, 3, generator=generator) for _ in range(3))
    return PairBatch(source, target, torch.tensor([0.2, 0.9]), noise)


def _numpy(batch):
    sigma = batch.sigma.numpy()[:, None, None, None]
    return batch.source.numpy(), batch.target.numpy(), sigma, batch.noise.numpy()


@pytest.mark.parametrize("joint", [True, False])
def test_losses_match_the_formulas(batch, joint):
    source, target, sigma, noise = _numpy(batch)
    beta, eta = 3.0, 4.0
    x_t = source + sigma * beta * noise
    v_content = 0.5 * x_t + sigma + 0.25 * x_t**2
    v_both = v_content - 0.75 * x_t**2
    content = np.mean((v_content - beta * noise) ** 2)
    semantic = np.mean((v_both - (beta * noise + eta * (source - target))) ** 2)

    losses = losses_of(build_objective("train_image", eta, beta, joint), ToyModel(), batch)
    assert {name: loss.item() for name, loss in losses.items()} == {
        "content": pytest.approx(content, rel=1e-5),
        "semantic": pytest.approx(semantic, rel=1e-5),
    }


@pytest.mark.parametrize("joint", [True, False])
def test_gradients_reach_only_the_trained_adapter(batch, joint):
    source, target, sigma, noise = _numpy(batch)
    x_t = source + sigma * noise
    v_content = 0.5 * x_t + sigma + 0.25 * x_t**2
    residual_content = v_content - noise
    residual_semantic = v_content - 0.75 * x_t**2 - (noise + 4.0 * (source - target))

    model = ToyModel()
    for by_name in build_objective("train_image", 4.0, 1.0, joint).losses(model, batch):
        sum(by_name.values()).backward()
    # d/dw mean(r^2) = mean(2 r x_t^2): were content trained by both losses, its gradient would be their sum.
    assert model.weights["content"].grad.item() == pytest.approx(
        np.mean(2 * residual_content * x_t**2), rel=1e-4
    )
    assert model.weights["semantic"].grad.item() == pytest.approx(
        np.mean(2 * residual_semantic * x_t**2), rel=1e-4
    )


@pytest.mark.parametrize("joint", [True, False])
def test_losses_are_yielded_inside_their_context(batch, joint):
    model, objective = ToyModel(), build_objective("train_image", 4.0, 1.0, joint)
    seen = [(tuple(by_name), len(model.mixes)) for by_name in objective.losses(model, batch)]
    content, both = ("content",), ("content", "semantic")
    assert seen == ([(both, 2)] if joint else [(("content",), 1), (("semantic",), 1)])
    assert model.calls == ([[content, both]] if joint else [[content], [both]])
    assert model.mixes == ()


def test_schedule_is_a_free_choice(batch):
    source, _, sigma, noise = _numpy(batch)
    x_t = (1 - sigma) * source + sigma * noise
    expected = np.mean((0.5 * x_t + sigma + 0.25 * x_t**2 - (noise - source)) ** 2)
    losses = losses_of(ContentSemantic(RectifiedFlow(), eta=4.0), ToyModel(), batch)
    assert losses["content"].item() == pytest.approx(expected, rel=1e-5)


def test_equal_images_leave_nothing_to_learn(batch):
    """source = target: the semantic target is the content target, whatever eta."""
    same = replace(batch, target=batch.source)
    model = ToyModel()
    with torch.no_grad():
        model.weights["semantic"].zero_()
    losses = losses_of(build_objective("train_image", 100.0, 1.0), model, same)
    assert torch.equal(losses["content"], losses["semantic"])


def test_losses_are_float32_for_a_half_precision_model(batch):
    half = PairBatch(*(getattr(batch, field.name).bfloat16() for field in fields(batch)))
    for loss in losses_of(build_objective("train_image", 4.0, 1.0), ToyModel(), half).values():
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
        "train_image_anchored": {
            "semantic": _velocity(flow_source, sigma, semantic=1) - (_velocity(flow_source, sigma) + edit)
        },
        "train_image_bipolar": {
            "positive": _velocity(flow_source, sigma, semantic=1) - (_velocity(flow_source, sigma) + edit),
            "negative": _velocity(flow_target, sigma, semantic=-1) - (_velocity(flow_target, sigma) - edit),
        },
        "train_image_real": {"inversion": _velocity(flow_source, sigma, inversion=1) - (noise - source)},
    }
    return {loss: np.mean(residual**2) for loss, residual in residuals[name].items()}


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("name", sorted({*IMAGE_METHODS} - {"train_image"}))
def test_other_methods_match_their_formulas(batch, name, joint):
    eta, beta = 4.0, 3.0
    expected = _independent(name, *_numpy(batch), eta, beta)
    model = ToyModel()
    losses = losses_of(build_objective(name, eta, beta, joint), model, batch)
    assert {loss: value.item() for loss, value in losses.items()} == {
        loss: pytest.approx(value, rel=1e-5) for loss, value in expected.items()
    }
    assert list(losses) == list(expected)
    assert model.mixes == ()


@pytest.mark.parametrize("name", IMAGE_METHODS)
def test_only_the_adapter_in_training_gets_gradients(batch, name):
    objective, model = build_objective(name, 4.0, 1.0, joint=False), ToyModel()
    trained = {"positive": "semantic", "negative": "semantic"}
    for ((loss_name, loss),) in map(dict.items, objective.losses(model, batch)):
        before = {adapter: weight.grad for adapter, weight in model.weights.items()}
        before = {adapter: None if grad is None else grad.clone() for adapter, grad in before.items()}
        loss.backward()
        for adapter, weight in model.weights.items():
            changed = (before[adapter] is None) != (weight.grad is None) or (
                weight.grad is not None and not torch.equal(weight.grad, before[adapter])
            )
            assert changed == (adapter == trained.get(loss_name, loss_name))


@pytest.mark.parametrize("name", IMAGE_METHODS)
def test_passes_together_give_the_gradients_of_passes_apart(batch, name):
    gradients = []
    for joint in (True, False):
        model = ToyModel()
        for by_name in build_objective(name, 4.0, 2.0, joint).losses(model, batch):
            sum(by_name.values()).backward()
        gradients.append({name: weight.grad for name, weight in model.weights.items()})
    together, apart = gradients
    assert {name for name, grad in together.items() if grad is not None} == set(
        build_objective(name, 4.0, 2.0).adapters
    )
    for adapter in build_objective(name, 4.0, 2.0).adapters:
        torch.testing.assert_close(together[adapter], apart[adapter])


@pytest.mark.parametrize("eta", [2.0, -2.0])
def test_text_slider_matches_its_formula(batch, eta):
    model, names = ToyModel(), ("target", "start", "positive", "negative")
    drawn = TextBatch(batch.source, batch.sigma, *names, eta)
    ((name, loss),) = losses_of(TextSlider(), model, drawn).items()

    x_t, sigma = batch.source.numpy(), batch.sigma.numpy()[:, None, None, None]
    start, positive, negative = (
        _velocity(x_t, sigma) + BIASES[name] * x_t for name in ("start", "positive", "negative")
    )
    velocity_target = start + eta * (positive - negative)
    for image in range(2):
        velocity_target[image] *= np.linalg.norm(positive[image]) / np.linalg.norm(velocity_target[image])
    expected = np.mean((_velocity(x_t, sigma, semantic=1) - velocity_target) ** 2)
    assert (name, loss.item()) == ("semantic", pytest.approx(expected, rel=1e-5))
    loss.backward()
    assert model.weights["semantic"].grad is not None


class Weighted(Objective):
    """Two passes, each with a prompt and a weight of its own."""

    adapters = ("semantic",)
    saved = "semantic"

    def passes(self, model, batch):
        mix = Mix({"semantic": 1.0}, train=("semantic",))
        inputs = mix, batch.source, batch.sigma, batch.noise
        return [Pass("edit", *inputs, ("positive",)), Pass("prior", *inputs, ("start", "negative"), 0.25)]


@pytest.mark.parametrize("joint", [True, False])
def test_a_pass_has_its_own_prompts_and_weight(batch, joint):
    model, (source, _, sigma, noise) = ToyModel(), _numpy(batch)
    losses = losses_of(Weighted(joint=joint), model, batch)
    plain, bias = _velocity(source, sigma, semantic=1), np.array([0.1, -0.4])[:, None, None, None]
    assert losses["edit"].item() == pytest.approx(np.mean((plain + 0.7 * source - noise) ** 2), rel=1e-5)
    prior = 0.25 * np.mean((plain + bias * source - noise) ** 2)
    assert losses["prior"].item() == pytest.approx(prior, rel=1e-5)
    assert len(model.calls) == (1 if joint else 2)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_objective_saves_an_adapter_it_trains(name):
    objective = build_objective(name, 4.0, 1.0)
    assert objective.saved in objective.adapters


def test_noise_scale_is_beta():
    assert build_objective("train_image", 4.0, 3.0) == ContentSemantic(ContentPreserving(beta=3.0), eta=4.0)


def test_unknown_method_names_those_there_are():
    with pytest.raises(UserError, match=r"train_image.*found train_imgae"):
        build_objective("train_imgae", 4.0, 1.0)
