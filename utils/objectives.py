"""Training objectives: one class a method, one call signature, a registry. torch only.

An objective never asks what the model is: any `VelocityModel` will do, so a test can pass a few lines of
arithmetic. A new method is one class below and one line in OBJECTIVES.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor
from torch.nn import functional

from utils.errors import UserError, nearest
from utils.flow import ContentPreserving, Schedule


class VelocityModel(Protocol):
    """A model of the velocity with named adapters."""

    def __call__(self, x_t: Tensor, sigma: Tensor) -> Tensor:
        """Velocity (B, C, h, w) at x_t (B, C, h, w) and sigma (B,), with the adapters now active."""
        ...

    def adapters(self, train: str | None = None, frozen: Sequence[str] = ()) -> AbstractContextManager[None]:
        """Inside: `train` and `frozen` active at scale 1 and nothing else; only `train` gets gradients."""
        ...


@dataclass(frozen=True)
class PairLatents:
    """Clean latents (B, C, h, w) of the images before (source) and after (target) the edit, pair by pair."""

    source: Tensor
    target: Tensor


class Objective(Protocol):
    """What a training step minimises."""

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the adapters it trains."""
        ...

    @property
    def saved(self) -> str:
        """The one of them that is the result."""
        ...

    def losses(
        self, model: VelocityModel, pair: PairLatents, sigma: Tensor, noise: Tensor
    ) -> Generator[tuple[str, Tensor], None, None]:
        """Yields (name, scalar loss) one after the other.

        Each is yielded inside its adapter context, and the caller backpropagates it before asking for the
        next: gradient checkpointing then recomputes under the same adapters, and only one graph is alive.

        Args:
            model: the velocity model.
            pair: clean latents (B, C, h, w).
            sigma: (B,) in [0, 1].
            noise: standard normal (B, C, h, w), shared by source and target.
        """
        ...


@dataclass(frozen=True)
class ContentSemantic:
    """PairEdit: a content adapter reconstructs the source, a semantic adapter on top learns only the edit.

    content loss   || v(x_t; content) - velocity ||^2
    semantic loss  || v(x_t; content + semantic) - (velocity + eta (x_0_source - x_0_target)) ||^2
    (arXiv 2506.07992; mean over elements). x_t is made from the source in both. Going from noise to data the
    velocity is subtracted, hence source - target: the edit is added as sigma falls.

    Attributes:
        schedule: gives x_t and the velocity.
        eta: strength of the guidance along the direction; the YAML's `cfg_eta`.
    """

    schedule: Schedule
    eta: float
    adapters: ClassVar[tuple[str, ...]] = ("content", "semantic")
    saved: ClassVar[str] = "semantic"

    def losses(
        self, model: VelocityModel, pair: PairLatents, sigma: Tensor, noise: Tensor
    ) -> Generator[tuple[str, Tensor], None, None]:
        """Yields ("content", loss), then ("semantic", loss); see `Objective.losses`."""
        x_t = self.schedule.add_noise(pair.source, noise, sigma)
        velocity = self.schedule.velocity(pair.source, noise)
        with model.adapters(train="content"):
            yield "content", _mean_squared_error(model(x_t, sigma), velocity)
        velocity_target = velocity + self.eta * (pair.source - pair.target)
        with model.adapters(train="semantic", frozen=("content",)):
            yield "semantic", _mean_squared_error(model(x_t, sigma), velocity_target)


OBJECTIVES: dict[str, Callable[[float, float], Objective]] = {
    "train_image": lambda eta, noise_scale: ContentSemantic(ContentPreserving(beta=noise_scale), eta),
}


def build_objective(python_name: str, eta: float, noise_scale: float) -> Objective:
    """The objective of a method.

    Args:
        python_name: a key of OBJECTIVES.
        eta: guidance direction strength, `cfg_eta`.
        noise_scale: beta of the content-preserving schedule, one of `noise_scales`.

    Raises:
        UserError: for an unknown method, naming those there are.
    """
    if python_name not in OBJECTIVES:
        raise UserError(
            f"python_name: expected one of {', '.join(OBJECTIVES)}, "
            f"found {python_name}{nearest(python_name, OBJECTIVES)}"
        )
    return OBJECTIVES[python_name](eta, noise_scale)


def _mean_squared_error(velocity_pred: Tensor, velocity_target: Tensor) -> Tensor:
    """In float32 whatever the model computes in: bfloat16 would round the loss to two digits."""
    return functional.mse_loss(velocity_pred.float(), velocity_target.float())
