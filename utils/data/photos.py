"""Photographs of any size: what of them is edited, and the edit put back into the whole.

A photograph is resampled to the size that has its aspect ratio and about the pixels of the base model's
square, and edited. What the edit changed there, edited minus reconstructed, is resampled back and added to
the photograph: detail that the base model cannot hold stays. The little that is cropped, as sides are
multiples of the family's, takes the change of the pixels beside it. Where more is cropped, nothing of it is
touched, and towards it the change fades out: no edge shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from utils.data.buckets import Box, bucket_size, crop_box
from utils.data.decoding import read_layers
from utils.data.pixels import over_white, resampled, to_tensor

FEATHER, LITTLE = 1 / 8, 1 / 16
"""Of the shorter side of what is edited: how far from a side within the photograph the change is whole; how
near the photograph's own side must be for the change to be carried on to there instead."""


@dataclass(frozen=True)
class Photo:
    """A photograph.

    Attributes:
        whole: as it is, upright, sRGB of 8 bits; RGBA if it has transparency.
        pixels: what of it is edited, over white, (3, H, W) float32 in [-1, 1].
        box: where that lies in the whole: left, upper, right, lower.
    """

    whole: Image.Image
    pixels: Tensor
    box: Box

    def with_change(self, reconstruction: Tensor, edited: Tensor) -> Image.Image:
        """The whole photograph under the edit, at its own size and as transparent as before.

            whole + weight * resample(edited - reconstruction)

        weight is 1, and within `FEATHER` of a side that lies well inside the photograph falls to 0.

        Args:
            reconstruction, edited: (3, H, W) in [-1, 1], of the size of `pixels`; equal ones change nothing.
        """
        left, upper, right, lower = self.box
        size = lower - upper, right - left
        reached = self._reached()
        beyond = left - reached[0], reached[2] - right, upper - reached[1], reached[3] - lower
        weights = self._weights(reached)
        change = (edited - reconstruction).cpu()
        bands = list(self.whole.split())

        # One colour after another: floats of a large photograph take much memory.
        for index, colour in enumerate(bands[:3]):
            own = functional.interpolate(
                change[None, index : index + 1], size=size, mode="bicubic", antialias=True
            )
            own = functional.pad(own, beyond, mode="replicate")[0, 0]
            levels = np.array(colour.crop(reached), dtype=np.float32)
            values = torch.from_numpy(levels) / 127.5 - 1
            values += own * weights[0] * weights[1][:, None]
            values = ((values.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
            bands[index] = colour.copy()
            bands[index].paste(Image.fromarray(values.numpy()), reached[:2])
        return Image.merge(self.whole.mode, bands)

    def _reached(self) -> Box:
        """The box carried on to those of the photograph's sides that are near."""
        left, upper, right, lower = self.box
        near = LITTLE * min(right - left, lower - upper)
        return (
            0 if left <= near else left,
            0 if upper <= near else upper,
            self.whole.width if self.whole.width - right <= near else right,
            self.whole.height if self.whole.height - lower <= near else lower,
        )

    def _weights(self, reached: Box) -> tuple[Tensor, Tensor]:
        """Weights across and down: 1, and half a cosine from 0 at each end that is not the photograph's."""
        left, upper, right, lower = reached
        feather = FEATHER * min(right - left, lower - upper)
        across = _faded(right - left, feather, left > 0, right < self.whole.width)
        return across, _faded(lower - upper, feather, upper > 0, lower < self.whole.height)


def load_photo(path: Path, resolution: int, resize: str = "error", multiple: int = 1) -> Photo:
    """Read a photograph of any size and what of it is edited.

    Args:
        path: of its file.
        resolution: side of the square of the area that is edited.
        resize: "center_crop" and "stretch" edit that square, of the largest one in the middle and of the
            whole; under "error" the photograph keeps its aspect ratio, see `bucket_size`.
        multiple: of the sides of what is edited.

    Raises:
        UserError: a file that cannot be read, or a photograph so long that no size takes it.
    """
    whole, opacity = read_layers(path)
    opaque = whole if opacity is None else over_white(whole, opacity)
    square = (resolution, resolution)
    size = square if resize != "error" else bucket_size(*whole.size, resolution, multiple, path)
    box = (0, 0, *whole.size) if resize == "stretch" else crop_box(whole.size, size)
    pixels = to_tensor(resampled(opaque.crop(box), size))
    if opacity is not None:
        whole.putalpha(opacity)
    return Photo(whole, pixels, box)


def _faded(side: int, feather: float, *fades: bool) -> Tensor:
    """(side,) weights along one direction: 1, and over `feather` from each of both ends that `fades` less."""
    ramp = (1 - torch.cos(torch.pi * ((torch.arange(side) + 0.5) / feather).clamp(max=1))) / 2
    weights = torch.ones(side)
    for fade, towards in zip(fades, (ramp, ramp.flip(0)), strict=True):
        weights = weights * towards if fade else weights
    return weights
