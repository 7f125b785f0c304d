"""The objective of captioned images, and what keeps the class as it is while one of it is learned.

A prior is a function here and a row of PRIORS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

from utils.flow.mixes import Mix
from utils.flow.passes import CaptionedBatch, Objective, Pass, VelocityModel
from utils.flow.schedules import RectifiedFlow

_SEMANTIC = Mix({"semantic": 1.0}, train=("semantic",))
_FLOW = RectifiedFlow()


def _none(model: VelocityModel, batch: CaptionedBatch) -> list[Pass]:
    """Nothing is kept."""
    return []


def _images(model: VelocityModel, batch: CaptionedBatch) -> list[Pass]:
    """|| v(x_t, class prompt; semantic) - (noise - x_0) ||^2, of an image of the class.

    (DreamBooth's prior preservation, arXiv 2208.12242, as a velocity.)
    """
    if batch.class_x_0 is None:
        raise ValueError("prior images: expected images of the class in the batch, found none")
    x_t = _FLOW.add_noise(batch.class_x_0, batch.noise, batch.sigma)
    velocity = _FLOW.velocity(batch.class_x_0, batch.noise)
    return [Pass("prior", _SEMANTIC, x_t, batch.sigma, velocity, batch.class_prompts)]


def _base(model: VelocityModel, batch: CaptionedBatch) -> list[Pass]:
    """|| v(x_t, c'; semantic) - v(x_t, c') ||^2, c' the caption without the subject's own words.

    v(x_t, c') is the base's own velocity, without adapters and gradient: under words that do not name the
    subject, what the adapter adds is to be nothing. No images are needed.
    """
    import torch

    x_t = _FLOW.add_noise(batch.x_0, batch.noise, batch.sigma)
    with model.adapters(), torch.no_grad():
        velocity = model(x_t, batch.sigma, batch.class_captions)
    return [Pass("prior", _SEMANTIC, x_t, batch.sigma, velocity, batch.class_captions)]


PRIORS: dict[str, Callable[[VelocityModel, CaptionedBatch], list[Pass]]] = {
    "none": _none,
    "images": _images,
    "base": _base,
}
"""The values of the key `prior`."""


@dataclass(frozen=True)
class CaptionedReconstruction(Objective[CaptionedBatch]):
    """Images under their captions, on the rectified flow, and a prior.

    subject loss  || v(x_t, c; semantic) - (noise - x_0) ||^2
    prior loss    prior_weight times that of `PRIORS`

    (Mean over elements; DreamBooth, arXiv 2208.12242, as a velocity.) Both are logged by their names.

    Attributes:
        prior: a key of PRIORS.
        prior_weight: of the prior's loss.
    """

    prior: str
    prior_weight: float
    adapters: ClassVar[tuple[str, ...]] = ("semantic",)
    saved: ClassVar[str] = "semantic"

    def passes(self, model: VelocityModel, batch: CaptionedBatch) -> list[Pass]:
        """ "subject", then "prior" if there is one."""
        x_t = _FLOW.add_noise(batch.x_0, batch.noise, batch.sigma)
        velocity = _FLOW.velocity(batch.x_0, batch.noise)
        subject = Pass("subject", _SEMANTIC, x_t, batch.sigma, velocity, batch.captions)
        prior = PRIORS[self.prior](model, batch)
        return [subject, *(replace(each, weight=self.prior_weight) for each in prior)]
