"""What an objective is made of: the model it asks, the batch it gets, the passes it says, their losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Generic, Protocol, TypeVar

from utils.flow.mixes import Mix

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
class CaptionedBatch:
    """What a step draws from captioned images.

    Attributes:
        x_0: clean latents (B, C, h, w) of the images.
        sigma: (B,) in [0, 1].
        noise: standard normal (B, C, h, w).
        captions: B of them.
        class_captions: the same without the words that name the subject.
        class_x_0: clean latents (B, C, h, w) of images of the class, where there are any.
        class_prompts: their captions, B of them.
    """

    x_0: Tensor
    sigma: Tensor
    noise: Tensor
    captions: Sequence[str]
    class_captions: Sequence[str]
    class_x_0: Tensor | None = None
    class_prompts: Sequence[str] = ()


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


def mean_squared_error(velocity_pred: Tensor, velocity_target: Tensor) -> Tensor:
    """In float32 whatever the model computes in: bfloat16 would round the loss to two digits."""
    from torch.nn import functional

    return functional.mse_loss(velocity_pred.float(), velocity_target.float())
