"""Whether one map of all colours takes a source to its target, as another exposure or profile would."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

TINTED, EXPLAINED = 2.0, 2.5
"""Levels: the median position's change from which colours may differ, and what a colour map may leave of it.
Edits leave the median position alone; of styles, sketch changes it, but no map explains that to 3 levels."""
MOST_FITTED = 2**14  # positions, evenly spread, that a colour fit is made of


@dataclass(frozen=True)
class ColourFit:
    """What one map of all colours explains of source -> target.

    Attributes:
        stops: of exposure, log2 of the target's brightness over the source's.
        before, after: the median position's change in levels of 0..255, as it is, and under the map.
    """

    stops: float
    before: float
    after: float

    @property
    def explains(self) -> bool:
        """Whether the pair differs by more than an edit: everywhere, and by that map alone."""
        return self.before >= TINTED and self.after <= min(EXPLAINED, self.before / 2)


def fit_colours(source: Tensor, target: Tensor) -> ColourFit:
    """Fit target = matrix @ source in linear light, by least absolute differences.

    An edit of less than half of the positions has no say in that, as it would have in least squares. Black
    stays black under exposure, white balance and profiles, so there is no offset: with one, a style such as
    a drawing on white would pass for another exposure.
    """
    step = max(1, math.ceil(source[0].numel() / MOST_FITTED))
    given, wanted = (image.flatten(1).T[::step].double() for image in (source, target))
    x, y = _linear(given), _linear(wanted)

    # Least squares, weighted anew by what is left over.
    weights = torch.ones(len(x), 1, dtype=x.dtype)
    identity = torch.eye(3, dtype=x.dtype)
    small = 1e-9 * identity  # for images of too few colours
    for _ in range(20):
        weighted = (x * weights).T
        fitted = identity + torch.linalg.solve(
            weighted @ x + small * weights.sum(), weighted @ (y - x @ identity)
        )
        weights = 1 / (y - x @ fitted).abs().sum(dim=1, keepdim=True).clamp(min=1e-4)

    mapped = _encoded(x @ fitted)
    middle = x.median(dim=0).values
    brightness = (middle @ fitted).clamp(min=1e-6).mean() / middle.clamp(min=1e-6).mean()
    levels = [float((wanted - each).abs().mean(dim=1).median()) * 127.5 for each in (given, mapped)]
    return ColourFit(math.log2(float(brightness)), *levels)


def _linear(values: Tensor) -> Tensor:
    """sRGB in [-1, 1] as linear light in [0, 1]."""
    encoded = (values + 1) / 2
    return torch.where(encoded <= 0.04045, encoded / 12.92, ((encoded.clamp(min=0) + 0.055) / 1.055) ** 2.4)


def _encoded(values: Tensor) -> Tensor:
    """Linear light in [0, 1] as sRGB in [-1, 1]."""
    light = values.clamp(0, 1)
    encoded = torch.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return encoded * 2 - 1
