"""Faces in photographs of any size, by MediaPipe's full-range BlazeFace (arXiv 1907.05047).

The network sees 192 x 192 pixels and finds faces of about a tenth of that to two thirds. So it looks at the
whole photograph first, then at it from farther away, for faces that fill it, then at parts of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from utils.prepare.networks import LiteNetwork

WEIGHTS = Path(__file__).with_name("weights") / "face_detection_full_range_sparse.tflite"
SIDE, CELLS = 192, 48  # pixels of the input; cells each way, of which each may hold one face
THRESHOLD, SAME = 0.6, 0.3  # probability of a face; overlap from which on two boxes are of one
LEVELS = (1.0, 2.0, 0.5, 0.25)
"""Sides of what the network looks at, in the photograph's longer side, in their order."""


class Box(NamedTuple):
    """A rectangle in pixels of an image; right and bottom are outside."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        """Pixels."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """Pixels."""
        return self.bottom - self.top


def find_faces(image: Image.Image, network: LiteNetwork) -> list[Box]:
    """The faces of an RGB image, the largest first; each from the brows to the chin.

    Args:
        image: RGB.
        network: of `WEIGHTS`.
    """
    for level in LEVELS:
        boxes, scores = [], []
        for left, top, side in _windows(image.size, level):
            found, sure = _in_window(image, network, left, top, side)
            boxes += found
            scores += sure
        if boxes:
            faces = _merged(np.array(boxes), np.array(scores))
            return sorted(faces, key=lambda box: box.width * box.height, reverse=True)
    return []


def _windows(size: tuple[int, int], level: float) -> Iterator[tuple[int, int, int]]:
    """Left, top and side of the squares to look at; neighbours overlap by half."""
    side = max(round(max(size) * level), 1)
    if level >= 1:
        yield (size[0] - side) // 2, (size[1] - side) // 2, side
        return
    columns, rows = (range(0, max(length - side // 2, 1), max(side // 2, 1)) for length in size)
    yield from ((left, top, side) for top in rows for left in columns)


def _in_window(
    image: Image.Image, network: LiteNetwork, left: int, top: int, side: int
) -> tuple[list[list[float]], list[float]]:
    """Boxes, in pixels of the image, and probabilities of the faces in a square of it; black is around."""
    seen = image.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    pixels = np.asarray(seen, dtype=np.float32) / 127.5 - 1
    offsets, logits = network(pixels[None])

    # From a cell's middle to its box's middle, then the box's width and height, all in pixels of the input.
    scores = 1 / (1 + np.exp(-np.clip(logits[:, 0].astype(np.float64), -50, 50)))
    sure = np.flatnonzero(scores > THRESHOLD)
    cells = np.stack([sure % CELLS, sure // CELLS], axis=1)
    middles = (cells + 0.5) / CELLS + offsets[sure, :2] / SIDE
    halves = offsets[sure, 2:4] / SIDE / 2
    corners = np.concatenate([middles - halves, middles + halves], axis=1) * side
    return (corners + np.array([left, top, left, top])).tolist(), scores[sure].tolist()


def _merged(boxes: np.ndarray, scores: np.ndarray) -> list[Box]:
    """One box a face: of those that overlap, the mean, weighted by how sure each is.

    Args:
        boxes: (N, 4).
        scores: (N,) in [0, 1].
    """
    faces, left = [], np.ones(len(boxes), dtype=bool)
    for best in np.argsort(-scores):
        if not left[best]:
            continue
        same = left & (_overlaps(boxes, boxes[best]) > SAME)
        left &= ~same
        faces.append(Box(*np.average(boxes[same], axis=0, weights=scores[same]).tolist()))
    return faces


def _overlaps(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """(N,): the intersection of each with `box`, in their union."""
    corners = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
    shared = np.prod(np.clip(corners, 0, None), axis=1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return shared / (areas + np.prod(box[2:] - box[:2]) - shared)
