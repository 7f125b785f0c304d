"""Photographs of any size: the square of them that is edited, and the edit put back into the whole.

The largest centred square is resampled to the base model's resolution and edited. What the edit changed
there, edited minus reconstructed, is resampled back and added to the photograph: detail that the base model
cannot hold stays, and nothing outside the square is touched. Towards those sides of the square beyond which
the photograph goes on, the change fades out, so that no edge shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from utils.data.decoding import read_layers
from utils.data.pixels import over_white, to_tensor

FEATHER = 1 / 8
"""Of the square's side: how far from it the change is whole."""


@dataclass(frozen=True)
class Photo:
    """A photograph.

    Attributes:
        whole: as it is, upright, sRGB of 8 bits; RGBA if it has transparency.
        pixels: its largest centred square over white, (3, resolution, resolution) float32 in [-1, 1].
    """

    whole: Image.Image
    pixels: Tensor

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The square: left, upper, right, lower."""
        return _square(self.whole)

    def with_change(self, reconstruction: Tensor, edited: Tensor) -> Image.Image:
        """The whole photograph under the edit, at its own size and as transparent as before.

            square + weight * resample(edited - reconstruction)

        weight is 1, and within `FEATHER` of a side that lies inside the photograph falls to 0.

        Args:
            reconstruction, edited: (3, resolution, resolution) in [-1, 1]; equal ones change nothing.
        """
        left, upper, right, lower = self.box
        side = right - left
        across = _weights(side, left > 0, right < self.whole.width)
        down = _weights(side, upper > 0, lower < self.whole.height)
        change = (edited - reconstruction).cpu()
        bands = list(self.whole.split())

        # One colour after another: floats of a large photograph's square take much memory.
        for index, colour in enumerate(bands[:3]):
            own = functional.interpolate(
                change[None, index : index + 1], size=(side, side), mode="bicubic", antialias=True
            )[0, 0]
            levels = np.array(np.asarray(colour)[upper:lower, left:right], dtype=np.float32)
            square = torch.from_numpy(levels) / 127.5 - 1
            square += own * across * down[:, None]
            values = ((square.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
            bands[index] = colour.copy()
            bands[index].paste(Image.fromarray(values.numpy()), (left, upper))
        return Image.merge(self.whole.mode, bands)


def load_photo(path: Path, resolution: int) -> Photo:
    """Read a photograph of any size and its square for the base model; raises `UserError` if unreadable."""
    whole, opacity = read_layers(path)
    opaque = whole if opacity is None else over_white(whole, opacity)
    left, upper, right, lower = _square(whole)
    cropped = Image.fromarray(np.asarray(opaque)[upper:lower, left:right])
    square = cropped.resize((resolution, resolution), Image.Resampling.LANCZOS)
    if opacity is not None:
        whole.putalpha(opacity)
    return Photo(whole, to_tensor(square))


def _square(image: Image.Image) -> tuple[int, int, int, int]:
    side = min(image.size)
    left, upper = (image.width - side) // 2, (image.height - side) // 2
    return left, upper, left + side, upper + side


def _weights(side: int, *fades: bool) -> Tensor:
    """(side,) weights along one direction: 1, and at each of both ends that `fades` half a cosine from 0."""
    ramp = (1 - torch.cos(torch.pi * ((torch.arange(side) + 0.5) / (FEATHER * side)).clamp(max=1))) / 2
    weights = torch.ones(side)
    for fade, towards in zip(fades, (ramp, ramp.flip(0)), strict=True):
        weights = weights * towards if fade else weights
    return weights
