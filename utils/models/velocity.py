"""The velocity of a base under a prompt, with adapters: what training and sampling call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from utils.flow.mixes import Mix
from utils.flow.passes import EMPTY
from utils.models.adapters import use_mixes
from utils.models.base import Base, PromptEmbeds


@dataclass(frozen=True)
class PromptedVelocity:
    """A base with guidance fixed, under prompts by their text: the `VelocityModel` of utils.flow.passes.

    Attributes:
        base: the base.
        embeds: of every prompt that is asked for.
        guidance_scale: that images are sampled under; what is learned may be under another, as the base says.
    """

    base: Base
    embeds: Mapping[str, PromptEmbeds]
    guidance_scale: float

    def __call__(self, x_t: Tensor, sigma: Tensor, prompts: Sequence[str] = EMPTY) -> Tensor:
        """Velocity (B, C, h, w) at x_t (B, C, h, w), sigma (B,), with the adapters now active.

        Each of len(prompts) equal parts of the batch goes under its own prompt.
        """
        own = [self.embeds[prompt] for prompt in prompts]
        size = len(x_t) // len(own)
        embeds = own[0] if len(own) == 1 else PromptEmbeds.joined([each.expand(size) for each in own])
        guidance_scale = self.base.learned_guidance(self.guidance_scale)
        return self.base.predict_velocity(x_t, sigma, embeds, guidance_scale)

    def adapters(self, *mixes: Mix) -> AbstractContextManager[None]:
        """See `use_mixes`."""
        return use_mixes(self.base.transformer, mixes)


@dataclass(frozen=True)
class Velocity:
    """A base with prompt and guidance fixed, for sampling.

    Attributes:
        base: the base.
        embeds: of one prompt, or of one an image.
        guidance_scale: of distilled guidance, or of true one.
        batch_size: most images in one forward pass of sampling.
    """

    base: Base
    embeds: PromptEmbeds
    guidance_scale: float
    batch_size: int = 8

    def __call__(self, x_t: Tensor, sigma: Tensor) -> Tensor:
        """Velocity (B, C, h, w) at x_t (B, C, h, w), sigma (B,), with the adapters now active."""
        return self.base.predict_velocity(x_t, sigma, self.embeds, self.guidance_scale)

    def adapters(self, *mixes: Mix) -> AbstractContextManager[None]:
        """See `use_mixes`."""
        return use_mixes(self.base.transformer, mixes)

    def scaled(self, *scales: Mapping[str, float]) -> ScaledVelocity:
        """The velocity with each of len(scales) equal parts of a batch at adapter scales of its own.

        For sampling: no adapter gets gradients. With one prompt an image, every part has these prompts.
        """
        return ScaledVelocity(self, [Mix(of_part) for of_part in scales])


@dataclass(frozen=True)
class ScaledVelocity:
    """A Velocity at fixed adapter scales, as many parts of a batch at once as batch_size allows."""

    model: Velocity
    mixes: Sequence[Mix]

    def __call__(self, x_t: Tensor, sigma: Tensor) -> Tensor:
        """Velocity (B, C, h, w) at x_t (B, C, h, w), sigma (B,); B a multiple of the number of parts."""
        size, most = len(x_t) // len(self.mixes), self.model.batch_size
        if size > most:
            return self._in_slices(x_t, sigma, [slice(first, first + most) for first in range(0, size, most)])
        at_once = most // size
        velocities = []
        for first in range(0, len(self.mixes), at_once):
            mixes = self.mixes[first : first + at_once]
            rows = slice(first * size, (first + len(mixes)) * size)
            embeds = self.model.embeds.for_parts([mix.scales for mix in mixes], size)
            model = replace(self.model, embeds=embeds)
            with model.adapters(*mixes):
                velocities.append(model(x_t[rows], sigma[rows]))
        return torch.cat(velocities)

    def _in_slices(self, x_t: Tensor, sigma: Tensor, slices: Sequence[slice]) -> Tensor:
        """The same, some images of every part at a time."""
        parts = len(self.mixes)
        by_part, levels = x_t.unflatten(0, (parts, -1)), sigma.unflatten(0, (parts, -1))
        velocities = []
        for images in slices:
            model = replace(self.model, embeds=self.model.embeds.of_images(images))
            some = ScaledVelocity(model, self.mixes)(
                by_part[:, images].flatten(0, 1), levels[:, images].flatten()
            )
            velocities.append(some.unflatten(0, (parts, -1)))
        return torch.cat(velocities, dim=1).flatten(0, 1)
