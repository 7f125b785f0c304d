"""Photographs of any size: the square of them that is edited, and the edit put back into the whole.

The largest centred square is resampled to the base model's resolution and edited. What the edit changed
there, edited minus reconstructed, is resampled back and added to the photograph: detail that the base model
cannot hold stays, and nothing outside the square is touched.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from utils.data.pixels import read_rgb, to_tensor


@dataclass(frozen=True)
class Photo:
    """A photograph.

    Attributes:
        whole: as it is, upright, 8-bit RGB.
        pixels: its largest centred square, (3, resolution, resolution) float32 in [-1, 1].
    """

    whole: Image.Image
    pixels: Tensor

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The square: left, upper, right, lower."""
        side = min(self.whole.size)
        left, upper = (self.whole.width - side) // 2, (self.whole.height - side) // 2
        return left, upper, left + side, upper + side

    def with_change(self, reconstruction: Tensor, edited: Tensor) -> Image.Image:
        """The whole photograph under the edit, at its own size.

            square + resample(edited - reconstruction)

        Args:
            reconstruction, edited: (3, resolution, resolution) in [-1, 1]; equal ones change nothing.
        """
        side = self.box[2] - self.box[0]
        change = functional.interpolate(
            (edited - reconstruction)[None], size=(side, side), mode="bicubic", antialias=True
        )[0]
        square = to_tensor(self.whole.crop(self.box)) + change.cpu()
        values = ((square.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0)
        whole = self.whole.copy()
        whole.paste(Image.fromarray(np.ascontiguousarray(values.numpy())), self.box[:2])
        return whole


def load_photo(path: Path, resolution: int) -> Photo:
    """Read a photograph of any size and its square for the base model; raises `UserError` if unreadable."""
    whole = read_rgb(path)
    photo = Photo(whole, torch.empty(0))
    square = whole.crop(photo.box).resize((resolution, resolution), Image.Resampling.LANCZOS)
    return Photo(whole, to_tensor(square))
