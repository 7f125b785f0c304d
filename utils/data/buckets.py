"""Images of any aspect ratio: the size that each gets, and what is cropped of it. Pure functions of sizes.

A size is near in area to the square of `resolution`, so that an image of any ratio costs a model what a
square does, and its sides are multiples of a step, the base family's. What is then left over is cropped at
both ends alike; nothing is ever stretched. Sizes are (width, height) in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from utils.errors import UserError

Size = tuple[int, int]
"""(width, height)"""
Box = tuple[int, int, int, int]
"""Left, upper, right, lower, as Pillow has it."""

LEAST_KEPT = 0.5
"""Of an image's area, what a size must keep of it for the image to be taken."""


def bucket_size(width: int, height: int, resolution: int, multiple: int = 1, where: object = "image") -> Size:
    """The size that an image gets: of its aspect ratio and of resolution^2 pixels, as near as steps allow.

        width' = resolution * sqrt(width / height)    height' = resolution * sqrt(height / width)

    each rounded to the multiple that is nearest by its factor. That is the size nearest in both, area and
    ratio, by their logarithms; a square image's is resolution x resolution.

    Args:
        width, height: of the image.
        resolution: side of the square of the area wanted, a multiple of `multiple`.
        multiple: of both sides.
        where: names the image in the error.

    Raises:
        UserError: an image so long that more than half of it would be cropped.
    """
    across = _rounded(resolution * math.sqrt(width / height), multiple)
    down = _rounded(resolution * math.sqrt(height / width), multiple)
    return _keeping((width, height), (across, down), where)


def crop_box(size: Size, shape: Size) -> Box:
    """The largest centred box within an image of `size` that has the aspect ratio of `shape`, to a pixel."""
    (width, height), (across, down) = size, shape
    if width * down > height * across:
        inner = max(1, round(height * across / down)), height
    else:
        inner = width, max(1, round(width * down / across))
    left, upper = (width - inner[0]) // 2, (height - inner[1]) // 2
    return left, upper, left + inner[0], upper + inner[1]


def kept_share(size: Size, shape: Size) -> float:
    """Share of an image of `size` that is left when it is cropped to the aspect ratio of `shape`."""
    (width, height), (across, down) = size, shape
    return min(width * down, height * across) / max(width * down, height * across)


def size_text(size: Size) -> str:
    """1500 x 1000."""
    return f"{size[0]} x {size[1]}"


# --- a list of sizes between bounds ---


@dataclass(frozen=True)
class Buckets:
    """The sizes that images are sorted into, between bounds, with the meaning that sd-scripts gives its keys.

    Attributes:
        resolution: (width, height) whose area none exceeds.
        min_bucket_reso, max_bucket_reso: bounds of a side.
        bucket_reso_steps: of which sides are multiples.
        bucket_no_upscale: no list and no bounds: an image gets a size of its own, never larger than it is.

    Raises:
        UserError: bounds that the resolution is not between, or no multiple of the steps between them.
    """

    resolution: Size
    min_bucket_reso: int = 256
    max_bucket_reso: int = 1024
    bucket_reso_steps: int = 64
    bucket_no_upscale: bool = False

    def __post_init__(self) -> None:
        """Refuse bounds that leave nothing."""
        low, high, step = self.min_bucket_reso, self.max_bucket_reso, self.bucket_reso_steps
        if step < 1:
            raise UserError(f"bucket_reso_steps: expected 1 or more, found {step}")
        if self.bucket_no_upscale:
            return
        if not low <= min(self.resolution) <= max(self.resolution) <= high:
            raise UserError(
                f"min_bucket_reso, max_bucket_reso: expected bounds around {size_text(self.resolution)} "
                f"(resolution), found {low} and {high}"
            )
        if not self.sizes():
            raise UserError(
                f"bucket_reso_steps: expected multiples of it from {low} to {high} (min_bucket_reso, "
                f"max_bucket_reso), found {step}"
            )

    def sizes(self) -> list[Size]:
        """Every size in the list, ascending: for each width the greatest height, both ways round."""
        low, high, step = self.min_bucket_reso, self.max_bucket_reso, self.bucket_reso_steps
        area = self.resolution[0] * self.resolution[1]
        square = _floored(math.isqrt(area), step)
        found = {(square, square)} if square else set()
        for width in range(low, high + 1, step):
            height = min(high, _floored(area // width, step))
            if height >= low:
                found |= {(width, height), (height, width)}
        return sorted(found)

    def of(self, width: int, height: int, where: object = "image") -> Size:
        """The size that an image gets: its own if it is in the list, else that of the nearest aspect ratio.

        Raises:
            UserError: an image that no bucket takes, as more than half of it would be cropped, or that is
                smaller than a step where it may not be enlarged.
        """
        if self.bucket_no_upscale:
            return _keeping((width, height), self._not_larger(width, height, where), where)
        sizes = self.sizes()
        if (width, height) in sizes:
            return width, height
        nearest = min(sizes, key=lambda size: abs(size[0] / size[1] - width / height))
        return _keeping((width, height), nearest, where)

    def _not_larger(self, width: int, height: int, where: object) -> Size:
        """The image's own size, or that of its ratio and of the greatest area, down to multiples."""
        step, area, ratio = self.bucket_reso_steps, self.resolution[0] * self.resolution[1], width / height
        size = _floored(width, step), _floored(height, step)
        if width * height > area:
            # one side to its multiple and the other after it, the way round that keeps the ratio better
            across, down = _floored(math.sqrt(area * ratio), step), _floored(math.sqrt(area / ratio), step)
            ways = (across, _floored(across / ratio, step)), (_floored(down * ratio, step), down)
            size = min(ways, key=lambda way: abs(way[0] / way[1] - ratio) if all(way) else math.inf)
        if not all(size):
            raise UserError(
                f"{where}: expected an image with room for {step} pixels a side (bucket_reso_steps), which "
                f"bucket_no_upscale never enlarges, found {size_text((width, height))}"
            )
        return size


def _keeping(size: Size, bucket: Size, where: object) -> Size:
    """The bucket; raises `UserError`, naming the image, if it would keep too little of it."""
    if kept_share(size, bucket) < LEAST_KEPT:
        raise UserError(
            f"{where}: expected an aspect ratio that a size takes, the nearest being {size_text(bucket)}, "
            f"found {size_text(size)}; crop it first"
        )
    return bucket


def _rounded(side: float, multiple: int) -> int:
    """The multiple nearest to a side by its factor, at least one."""
    steps = side / multiple
    below = max(1, math.floor(steps))
    return multiple * (below if steps * steps < below * (below + 1) else below + 1)


def _floored(side: float, multiple: int) -> int:
    return int(side / multiple) * multiple
