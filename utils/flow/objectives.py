"""Training objectives: one class a method, one call signature.

An objective never asks what the model is: any `VelocityModel` will do, so a test can pass a few lines of
arithmetic. A new method is one class below and one row in utils/training/methods.py.

x_t is made from the source in every loss that does not say otherwise, and source and target share the noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from utils.flow.mixes import Mix
from utils.flow.passes import Objective, PairBatch, Pass, TextBatch, VelocityModel
from utils.flow.schedules import Schedule

if TYPE_CHECKING:
    from torch import Tensor

_CONTENT = Mix({"content": 1.0}, train=("content",))
_SEMANTIC = Mix({"semantic": 1.0}, train=("semantic",))
_SEMANTIC_ON_CONTENT = Mix({"content": 1.0, "semantic": 1.0}, train=("semantic",))


@dataclass(frozen=True)
class PairObjective(Objective[PairBatch]):
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
class Anchored(PairObjective):
    """One adapter, pushed from where the base itself is: what it is asked for holds the edit alone.

    semantic loss  || v(x_t_source; semantic) - (v(x_t_source) + eta (x_0_source - x_0_target)) ||^2

    v(x_t) is the base's own velocity, without adapters and gradient. In PairEdit's loss the schedule's stands
    in its place, from which the base is away by what it does not know of this person: what the content
    adapter does not take up of that, the semantic adapter learns.

    Attributes:
        eta: strength of the guidance along the direction.
    """

    eta: float
    adapters: ClassVar[tuple[str, ...]] = ("semantic",)
    saved: ClassVar[str] = "semantic"

    def passes(self, model: VelocityModel, batch: PairBatch) -> list[Pass]:
        """ "semantic"."""
        return [self.pushed(model, batch, "semantic", batch.source, 1.0)]

    def pushed(self, model: VelocityModel, batch: PairBatch, name: str, x_0: Tensor, scale: float) -> Pass:
        """At x_t of an image, the adapter at `scale` moves the base's velocity by scale eta direction."""
        import torch

        x_t = self.schedule.add_noise(x_0, batch.noise, batch.sigma)
        with model.adapters(), torch.no_grad():
            velocity = model(x_t, batch.sigma)
        velocity_target = velocity + scale * self.eta * (batch.source - batch.target)
        return Pass(name, Mix({"semantic": scale}, train=("semantic",)), x_t, batch.sigma, velocity_target)


@dataclass(frozen=True)
class Bipolar(Anchored):
    """`Anchored` at both ends of the slider: from the source to the target, and from the target back.

    positive loss  || v(x_t_source; +semantic) - (v(x_t_source) + eta (x_0_source - x_0_target)) ||^2
    negative loss  || v(x_t_target; -semantic) - (v(x_t_target) - eta (x_0_source - x_0_target)) ||^2

    both under the same noise and sigma. What both ends ask of an adapter is even in its scale, and cancels.
    """

    def passes(self, model: VelocityModel, batch: PairBatch) -> list[Pass]:
        """ "positive", then "negative"."""
        return [
            self.pushed(model, batch, "positive", batch.source, 1.0),
            self.pushed(model, batch, "negative", batch.target, -1.0),
        ]


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
class TextSlider(Objective[TextBatch]):
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


def _norm(velocity: Tensor) -> Tensor:
    """Euclidean norm of each image, (B, C, h, w) -> (B, 1, 1, 1)."""
    return velocity.float().flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
