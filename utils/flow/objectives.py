"""Training objectives: one class a method, one call signature, a registry. torch only.

An objective never asks what the model is: any `VelocityModel` will do, so a test can pass a few lines of
arithmetic. A new method is one class below and one line in OBJECTIVES.

x_t is made from the source in every loss that does not say otherwise, and source and target share the noise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol, TypeVar

import torch
from torch import Tensor, no_grad
from torch.nn import functional

from utils.errors import UserError, nearest
from utils.flow.mixes import Mix
from utils.flow.schedules import ContentPreserving, RectifiedFlow, Schedule

Losses = Generator[dict[str, Tensor], None, None]
"""Scalar losses by name, those of one graph at a time; see `Objective.losses`."""


class VelocityModel(Protocol):
    """A model of the velocity with named adapters."""

    def __call__(self, x_t: Tensor, sigma: Tensor) -> Tensor:
        """Velocity (B, C, h, w) at x_t (B, C, h, w) and sigma (B,), with the adapters now active."""
        ...

    def adapters(self, *mixes: Mix) -> AbstractContextManager[None]:
        """Inside, each of len(mixes) equal parts of a batch has its own adapters; none: the bare base."""
        ...


@dataclass(frozen=True)
class PairBatch:
    """What a step draws from image pairs.

    Attributes:
        source, target: clean latents (B, C, h, w) of the images before and after the edit, pair by pair.
        sigma: (B,) in [0, 1].
        noise: standard normal (B, C, h, w), shared by source and target.
    """

    source: Tensor
    target: Tensor
    sigma: Tensor
    noise: Tensor


@dataclass(frozen=True)
class TextBatch:
    """What a step draws from a text slider's prompts.

    Attributes:
        x_t: (B, C, h, w), the base model's own, on its way to an image of the target prompt.
        sigma: (B,) in [0, 1], where it has come to.
        target, start, positive, negative: the model under each of the prompts; see `TextSlider`.
        eta: strength of the guidance along positive - negative; negative to erase.
    """

    x_t: Tensor
    sigma: Tensor
    target: VelocityModel
    start: VelocityModel
    positive: VelocityModel
    negative: VelocityModel
    eta: float


Batch = TypeVar("Batch", contravariant=True)


class Objective(Protocol[Batch]):
    """What a training step minimises."""

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the adapters it trains."""
        ...

    @property
    def saved(self) -> str:
        """The one of them that is the result."""
        ...

    def losses(self, model: VelocityModel, batch: Batch) -> Losses:
        """Yields scalar losses by name, those that share a graph together.

        They are yielded inside their adapter context, and the caller backpropagates their sum before asking
        for the next: gradient checkpointing then recomputes under the same adapters, and only one graph is
        alive.
        """
        ...


@dataclass(frozen=True)
class Pass:
    """One forward pass of the model and what it is to predict.

    Attributes:
        name: of its loss, || v(x_t; mix) - velocity ||^2, mean over elements.
        mix: the adapters that act, and which of them learns.
        x_t: (B, C, h, w); sigma: (B,).
        velocity: the target (B, C, h, w).
    """

    name: str
    mix: Mix
    x_t: Tensor
    sigma: Tensor
    velocity: Tensor


@dataclass(frozen=True)
class PairObjective(ABC):
    """A method that learns from image pairs: a class that says what a step's forward passes are to predict.

    Attributes:
        schedule: gives x_t and the velocity.
        joint: all passes as one batch, which is faster and needs the memory of all at once; otherwise one
            after the other. The gradients are the same.
    """

    schedule: Schedule
    joint: bool = field(default=True, kw_only=True)
    adapters: ClassVar[tuple[str, ...]]
    saved: ClassVar[str]

    @abstractmethod
    def passes(self, batch: PairBatch) -> list[Pass]:
        """The forward passes of a step."""

    def losses(self, model: VelocityModel, batch: PairBatch) -> Losses:
        """Yields the losses of the passes, by their names; see `Objective.losses`."""
        passes = self.passes(batch)
        for together in [passes] if self.joint else [[one] for one in passes]:
            x_t = torch.cat([one.x_t for one in together])
            sigma = torch.cat([one.sigma for one in together])
            with model.adapters(*(one.mix for one in together)):
                velocities = model(x_t, sigma).chunk(len(together))
                yield {
                    one.name: _mean_squared_error(velocity, one.velocity)
                    for one, velocity in zip(together, velocities, strict=True)
                }


_CONTENT = Mix({"content": 1.0}, train=("content",))
_SEMANTIC = Mix({"semantic": 1.0}, train=("semantic",))
_SEMANTIC_ON_CONTENT = Mix({"content": 1.0, "semantic": 1.0}, train=("semantic",))


@dataclass(frozen=True)
class ContentSemantic(PairObjective):
    """PairEdit: a content adapter reconstructs the source, a semantic adapter on top learns only the edit.

    content loss   || v(x_t; content) - velocity ||^2
    semantic loss  || v(x_t; content + semantic) - (velocity + eta (x_0_source - x_0_target)) ||^2
    (arXiv 2506.07992; mean over elements). Going from noise to data the velocity is subtracted, hence
    source - target: the edit is added as sigma falls.

    Attributes:
        schedule: content-preserving in train_image, rectified flow in train_image_fm.
        eta: strength of the guidance along the direction; the YAML's `cfg_eta`.
    """

    eta: float
    adapters: ClassVar[tuple[str, ...]] = ("content", "semantic")
    saved: ClassVar[str] = "semantic"

    def passes(self, batch: PairBatch) -> list[Pass]:
        """ "content", then "semantic"."""
        x_t = self.schedule.add_noise(batch.source, batch.noise, batch.sigma)
        velocity = self.schedule.velocity(batch.source, batch.noise)
        velocity_target = velocity + self.eta * (batch.source - batch.target)
        return [
            Pass("content", _CONTENT, x_t, batch.sigma, velocity),
            Pass("semantic", _SEMANTIC_ON_CONTENT, x_t, batch.sigma, velocity_target),
        ]


@dataclass(frozen=True)
class SemanticAlone(PairObjective):
    """PairEdit without the content adapter (arXiv 2506.07992, ablation).

    semantic loss  || v(x_t; semantic) - (velocity + eta (x_0_source - x_0_target)) ||^2

    Attributes:
        eta: strength of the guidance along the direction.
    """

    eta: float
    adapters: ClassVar[tuple[str, ...]] = ("semantic",)
    saved: ClassVar[str] = "semantic"

    def passes(self, batch: PairBatch) -> list[Pass]:
        """ "semantic"."""
        x_t = self.schedule.add_noise(batch.source, batch.noise, batch.sigma)
        velocity = self.schedule.velocity(batch.source, batch.noise)
        velocity_target = velocity + self.eta * (batch.source - batch.target)
        return [Pass("semantic", _SEMANTIC, x_t, batch.sigma, velocity_target)]


@dataclass(frozen=True)
class TargetReconstruction(PairObjective):
    """PairEdit without the guidance term: the semantic adapter learns to reconstruct the target image.

    content loss   || v(x_t_source; content) - velocity_source ||^2
    semantic loss  || v(x_t_target; content + semantic) - velocity_target ||^2
    (arXiv 2506.07992, ablation), x_t_target and velocity_target being the schedule's for the target image.
    """

    adapters: ClassVar[tuple[str, ...]] = ("content", "semantic")
    saved: ClassVar[str] = "semantic"

    def passes(self, batch: PairBatch) -> list[Pass]:
        """ "content", then "semantic"."""

        def of(x_0: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            x_t = self.schedule.add_noise(x_0, batch.noise, batch.sigma)
            return x_t, batch.sigma, self.schedule.velocity(x_0, batch.noise)

        return [
            Pass("content", _CONTENT, *of(batch.source)),
            Pass("semantic", _SEMANTIC_ON_CONTENT, *of(batch.target)),
        ]


@dataclass(frozen=True)
class ImageSlider(PairObjective):
    """Image sliders: one adapter denoises the target at scale +1 and the source at -1.

    positive loss  || v(x_t_target; +semantic) - velocity_target ||^2
    negative loss  || v(x_t_source; -semantic) - velocity_source ||^2
    (Concept Sliders, arXiv 2311.12092, visual sliders), both under the same noise and sigma.
    """

    adapters: ClassVar[tuple[str, ...]] = ("semantic",)
    saved: ClassVar[str] = "semantic"

    def passes(self, batch: PairBatch) -> list[Pass]:
        """ "positive", then "negative"."""
        return [
            Pass(
                name,
                Mix({"semantic": scale}, train=("semantic",)),
                self.schedule.add_noise(x_0, batch.noise, batch.sigma),
                batch.sigma,
                self.schedule.velocity(x_0, batch.noise),
            )
            for name, x_0, scale in (("positive", batch.target, 1.0), ("negative", batch.source, -1.0))
        ]


@dataclass(frozen=True)
class Reconstruction(PairObjective):
    """One image learned by heart, so that any noise leads to it: the inversion of a real photograph.

    inversion loss  || v(x_t; inversion) - velocity ||^2      (arXiv 2506.07992, real images; batch.target is
    not looked at).
    """

    adapters: ClassVar[tuple[str, ...]] = ("inversion",)
    saved: ClassVar[str] = "inversion"

    def passes(self, batch: PairBatch) -> list[Pass]:
        """ "inversion"."""
        x_t = self.schedule.add_noise(batch.source, batch.noise, batch.sigma)
        velocity = self.schedule.velocity(batch.source, batch.noise)
        mix = Mix({"inversion": 1.0}, train=("inversion",))
        return [Pass("inversion", mix, x_t, batch.sigma, velocity)]


@dataclass(frozen=True)
class TextSlider:
    """Text sliders: what lies between two prompts, learned from the base model alone.

    velocity_target = v(start) + eta (v(positive) - v(negative))         without adapters
    velocity_target <- velocity_target ||v(positive)|| / ||velocity_target||      image by image
    semantic loss     || v(target; semantic) - velocity_target ||^2
    (Concept Sliders, arXiv 2311.12092, as velocities; the norm is matched as in its FLUX
    version). `start` is the prompt that Concept Sliders calls neutral; with neutral = target, the usual case,
    it is v(target).
    """

    adapters: ClassVar[tuple[str, ...]] = ("semantic",)
    saved: ClassVar[str] = "semantic"

    def losses(self, model: VelocityModel, batch: TextBatch) -> Losses:
        """Yields {"semantic": loss}; see `Objective.losses`. It calls the batch's own models, not `model`."""
        with batch.target.adapters(), no_grad():
            v_start = batch.start(batch.x_t, batch.sigma)
            v_positive = batch.positive(batch.x_t, batch.sigma)
            v_negative = batch.negative(batch.x_t, batch.sigma)
        velocity_target = v_start + batch.eta * (v_positive - v_negative)
        velocity_target = velocity_target * (_norm(v_positive) / _norm(velocity_target))
        with batch.target.adapters(_SEMANTIC):
            velocity = batch.target(batch.x_t, batch.sigma)
            yield {"semantic": _mean_squared_error(velocity, velocity_target)}


# python_name -> its objective, of eta and beta
OBJECTIVES: dict[str, Callable[[float, float], PairObjective]] = {
    "train_image": lambda eta, beta: ContentSemantic(ContentPreserving(beta), eta),
    "train_image_wocontent": lambda eta, beta: SemanticAlone(ContentPreserving(beta), eta),
    "train_image_wocfg": lambda eta, beta: TargetReconstruction(ContentPreserving(beta)),
    "train_image_fm": lambda eta, beta: ContentSemantic(RectifiedFlow(), eta),
    "train_image_sliders": lambda eta, beta: ImageSlider(RectifiedFlow()),
    "train_image_real": lambda eta, beta: Reconstruction(RectifiedFlow()),
}


def build_objective(python_name: str, eta: float, noise_scale: float, joint: bool = True) -> PairObjective:
    """The objective of a method that learns from images.

    Args:
        python_name: a key of OBJECTIVES.
        eta: guidance direction strength, `cfg_eta`.
        noise_scale: beta of the content-preserving schedule, one of `noise_scales`.
        joint: whether a step's passes go through the model together.

    Raises:
        UserError: for an unknown method, naming those there are.
    """
    if python_name not in OBJECTIVES:
        raise UserError(
            f"python_name: expected one of {', '.join(OBJECTIVES)}, "
            f"found {python_name}{nearest(python_name, OBJECTIVES)}"
        )
    return replace(OBJECTIVES[python_name](eta, noise_scale), joint=joint)


def _mean_squared_error(velocity_pred: Tensor, velocity_target: Tensor) -> Tensor:
    """In float32 whatever the model computes in: bfloat16 would round the loss to two digits."""
    return functional.mse_loss(velocity_pred.float(), velocity_target.float())


def _norm(velocity: Tensor) -> Tensor:
    """Euclidean norm of each image, (B, C, h, w) -> (B, 1, 1, 1)."""
    return velocity.float().flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
