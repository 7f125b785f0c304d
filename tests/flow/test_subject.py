"""The objective of captioned images on a model of a few lines, against the formulas written out in numpy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.flow.test_objectives import BIASES, WEIGHTS, ToyModel, losses_of
from utils.config.schema import choices
from utils.flow.passes import CaptionedBatch
from utils.flow.subject import PRIORS, CaptionedReconstruction
from utils.training.methods import build_objective

CAPTIONS, CLASS_CAPTIONS, CLASS_PROMPTS = ("target", "positive"), ("start", "negative"), ("negative", "start")


@pytest.fixture
def batch() -> CaptionedBatch:
    generator = torch.Generator().manual_seed(4)
    x_0, noise, class_x_0 = (torch.randn(2, 4, 3, 5, generator=generator) for _ in range(3))
    return CaptionedBatch(
        x_0, torch.tensor([0.3, 0.8]), noise, CAPTIONS, CLASS_CAPTIONS, class_x_0, CLASS_PROMPTS
    )


def velocity(x_t: np.ndarray, sigma: np.ndarray, prompts: tuple[str, ...], semantic: float) -> np.ndarray:
    """The toy's, an image a prompt."""
    bias = np.array([BIASES[prompt] for prompt in prompts])[:, None, None, None]
    return (0.5 + bias) * x_t + sigma + semantic * WEIGHTS["semantic"] * x_t**2


def expected(batch: CaptionedBatch, prior: str) -> dict[str, float]:
    """|| v(x_t, c; s) - (noise - x_0) ||^2 and the prior's, each the mean over all elements."""
    assert batch.class_x_0 is not None
    x_0, noise, of_class = batch.x_0.numpy(), batch.noise.numpy(), batch.class_x_0.numpy()
    sigma = batch.sigma.numpy()[:, None, None, None]
    x_t = (1 - sigma) * x_0 + sigma * noise
    class_x_t = (1 - sigma) * of_class + sigma * noise
    residuals = {"subject": velocity(x_t, sigma, CAPTIONS, 1) - (noise - x_0)}
    if prior == "images":
        residuals["prior"] = velocity(class_x_t, sigma, CLASS_PROMPTS, 1) - (noise - of_class)
    if prior == "base":
        under = x_t, sigma, CLASS_CAPTIONS
        residuals["prior"] = velocity(*under, 1) - velocity(*under, 0)
    return {name: float(np.mean(residual**2)) for name, residual in residuals.items()}


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("prior", sorted(PRIORS))
def test_the_losses_are_those_of_the_formulas_and_the_priors_is_weighted(
    batch: CaptionedBatch, prior: str, joint: bool
) -> None:
    model = ToyModel()
    losses = losses_of(CaptionedReconstruction(prior, 0.25, joint=joint), model, batch)
    wanted = expected(batch, prior)
    if "prior" in wanted:
        wanted["prior"] *= 0.25
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(wanted, rel=1e-5)
    assert list(losses) == list(wanted)

    # what is learned is the adapter alone; the base's own velocity under a class caption is a constant
    sum(losses.values()).backward()
    assert model.weights["semantic"].grad is not None
    assert model.weights["content"].grad is None
    assert model.mixes == ()


def test_passes_together_give_the_gradients_of_passes_apart(batch: CaptionedBatch) -> None:
    for prior in PRIORS:
        gradients = []
        for joint in (True, False):
            model = ToyModel()
            sum(losses_of(CaptionedReconstruction(prior, 0.5, joint=joint), model, batch).values()).backward()
            gradients.append(model.weights["semantic"].grad)
        torch.testing.assert_close(*gradients)


def test_an_adapter_that_does_nothing_under_class_captions_has_no_loss_of_prior_base(
    batch: CaptionedBatch,
) -> None:
    model = ToyModel()
    model.weights["semantic"].data.zero_()
    assert losses_of(CaptionedReconstruction("base", 1.0), model, batch)["prior"].item() == 0


def test_prior_images_without_images_is_a_fault_of_the_caller(batch: CaptionedBatch) -> None:
    with pytest.raises(ValueError, match="expected images of the class in the batch, found none"):
        losses_of(CaptionedReconstruction("images", 1.0), ToyModel(), replace(batch, class_x_0=None))


def test_a_config_chooses_prior_and_weight() -> None:
    built = build_objective("train_subject", 4.0, 1.0, False, prior="base", prior_weight=0.3)
    assert built == CaptionedReconstruction("base", 0.3, joint=False)
    assert set(choices("prior")) == set(PRIORS)
