"""Training objectives: one class a method, one call signature.

An objective never asks what the model is: any `VelocityModel` will do, so a test can pass a few lines of
arithmetic. A new method is one class below and one row in utils/training/methods.py.

x_t is made from the source in every loss that does not say otherwise, and source and target share the noise.
Equation numbers are those of the paper, arXiv 2506.07992.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Generic, Protocol, TypeVar

from utils.flow.mixes import Mix
from utils.flow.schedules import Schedule

if TYPE_CHECKING:  # the methods' rows are read by every command at once; torch is there when one trains
    from torch import Tensor

Losses = Generator[dict[str, "Tensor"], None, None]
"""Scalar losses by name, those of one graph at a time; see `Objective.losses`."""

EMPTY = ("",)
"""The empty prompt, for all of a batch."""


class VelocityModel(Protocol):
    """A model of the velocity under prompts, with named adapters."""

    def __call__(self, x_t: Tensor, sigma: Tensor, prompts: Sequence[str] = EMPTY) -> Tensor:
        """Velocity (B, C, h, w) at x_t (B, C, h, w) and sigma (B,), with the adapters now active.

        Each of len(prompts) equal parts of the batch goes under its own prompt.
        """
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
        target, start, positive, negative: prompts; see `TextSlider`.
        eta: strength of the guidance along positive - negative; negative to erase.
    """

    x_t: Tensor
    sigma: Tensor
    target: str
    start: str
    positive: str
    negative: str
    eta: float


@dataclass(frozen=True)
class Pass:
    """One forward pass of the model and what it is to predict.

    Attributes:
        name: of its loss, weight || v(x_t; mix, prompts) - velocity ||^2, mean over elements.
        mix: the adapters that act, and which of them learns.
        x_t: (B, C, h, w); sigma: (B,).
        velocity: the target (B, C, h, w).
        prompts: one for all of the batch, or one for each of as many equal parts.
        weight: of the loss in the step's sum.
    """

    name: str
    mix: Mix
    x_t: Tensor
    sigma: Tensor
    velocity: Tensor
    prompts: Sequence[str] = EMPTY
    weight: float = 1.0


Batch = TypeVar("Batch", contravariant=True)


@dataclass(frozen=True)
class Objective(ABC, Generic[Batch]):
    """A method: a class that says what a step's forward passes are to predict.

    Attributes:
        adapters: names of the adapters it trains.
        saved: the one of them that is the result.
        joint: all passes as one batch, which is faster and needs the memory of all at once; otherwise one
            after the other. The gradients are the same.
    """

    joint: bool = field(default=True, kw_only=True)
    adapters: ClassVar[tuple[str, ...]]
    saved: ClassVar[str]

    @abstractmethod
    def passes(self, model: VelocityModel, batch: Batch) -> list[Pass]:
        """The forward passes of a step; `model` is there for targets that are predictions themselves."""

    def losses(self, model: VelocityModel, batch: Batch) -> Losses:
        """Yields scalar losses by name, those that share a graph together.

        They are yielded inside their adapter context, and the caller backpropagates their sum before asking
        for the next: gradient checkpointing then recomputes under the same adapters, and only one graph is
        alive.
        """
        import torch

        passes = self.passes(model, batch)
        for together in [passes] if self.joint else [[one] for one in passes]:
            x_t = torch.cat([one.x_t for one in together])
            sigma = torch.cat([one.sigma for one in together])
            with model.adapters(*(one.mix for one in together)):
                velocities = model(x_t, sigma, _prompts_of(together)).chunk(len(together))
                yield {
                    one.name: one.weight * mean_squared_error(velocity, one.velocity)
                    for one, velocity in zip(together, velocities, strict=True)
                }


def _prompts_of(passes: Sequence[Pass]) -> Sequence[str]:
    """The prompts of passes that go as one batch: one if it is the same for all, else one an image."""
    if len({tuple(one.prompts) for one in passes}) == 1 and len(passes[0].prompts) == 1:
        return passes[0].prompts
    return [prompt for one in passes for prompt in _one_an_image(one)]


def _one_an_image(one: Pass) -> list[str]:
    """A pass's prompts, each as often as its part has images."""
    return [prompt for prompt in one.prompts for _ in range(len(one.x_t) // len(one.prompts))]


_CONTENT = Mix({"content": 1.0}, train=("content",))
_SEMANTIC = Mix({"semantic": 1.0}, train=("semantic",))
_SEMANTIC_ON_CONTENT = Mix({"content": 1.0, "semantic": 1.0}, train=("semantic",))


@dataclass(frozen=True)
class PairObjective(Objective["PairBatch"]):
    """A method that learns from image pairs.

    Attributes:
        schedule: gives x_t and the velocity.
    """

    schedule: Schedule


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

    def passes(self, model: VelocityModel, batch: PairBatch) -> list[Pass]:
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

    def passes(self, model: VelocityModel, batch: PairBatch) -> list[Pass]:
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

    def passes(self, model: VelocityModel, batch: PairBatch) -> list[Pass]:
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

    def passes(self, model: VelocityModel, batch: PairBatch) -> list[Pass]:
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

    def passes(self, model: VelocityModel, batch: PairBatch) -> list[Pass]:
        """ "inversion"."""
        x_t = self.schedule.add_noise(batch.source, batch.noise, batch.sigma)
        velocity = self.schedule.velocity(batch.source, batch.noise)
        mix = Mix({"inversion": 1.0}, train=("inversion",))
        return [Pass("inversion", mix, x_t, batch.sigma, velocity)]


@dataclass(frozen=True)
class TextSlider(Objective["TextBatch"]):
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

    def passes(self, model: VelocityModel, batch: TextBatch) -> list[Pass]:
        """ "semantic", under the target prompt."""
        import torch

        with model.adapters(), torch.no_grad():
            v_start = model(batch.x_t, batch.sigma, [batch.start])
            v_positive = model(batch.x_t, batch.sigma, [batch.positive])
            v_negative = model(batch.x_t, batch.sigma, [batch.negative])

        velocity_target = v_start + batch.eta * (v_positive - v_negative)
        velocity_target = velocity_target * (_norm(v_positive) / _norm(velocity_target))
        return [Pass("semantic", _SEMANTIC, batch.x_t, batch.sigma, velocity_target, [batch.target])]


def mean_squared_error(velocity_pred: Tensor, velocity_target: Tensor) -> Tensor:
    """In float32 whatever the model computes in: bfloat16 would round the loss to two digits."""
    from torch.nn import functional

    return functional.mse_loss(velocity_pred.float(), velocity_target.float())


def _norm(velocity: Tensor) -> Tensor:
    """Euclidean norm of each image, (B, C, h, w) -> (B, 1, 1, 1)."""
    return velocity.float().flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
