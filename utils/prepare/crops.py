"""What images are cropped to: the largest face, or people, with a margin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from utils.data.findings import counted
from utils.prepare.backgrounds import person_remover
from utils.prepare.faces import WEIGHTS, Box, find_faces
from utils.prepare.networks import LiteNetwork
from utils.prepare.options import Options, Tool

PRESENT = 128
"""Of a mask in [0, 255]: from here on the subject is there."""


@dataclass(frozen=True)
class Crop:
    """What is kept of an image: whole pixels inside it; what is to be said of it."""

    box: tuple[int, int, int, int]
    note: str = ""


Cropper = Callable[[Image.Image], Crop | None]
"""An RGB image -> its crop; None if it does not show what is cropped to."""


def face_cropper(source: str, options: Options) -> Cropper:
    """A square around the largest face."""
    network = LiteNetwork(WEIGHTS)

    def crop(image: Image.Image) -> Crop | None:
        faces = find_faces(image, network)
        if not faces:
            return None
        note = f"the largest of {counted(len(faces), 'face')}" if len(faces) > 1 else ""
        return Crop(square_around(faces[0], options.margin or 0, image.size), note)

    return crop


def person_cropper(source: str, options: Options) -> Cropper:
    """A rectangle around all people."""
    remover = person_remover(source, options)

    def crop(image: Image.Image) -> Crop | None:
        found = remover(image).point(lambda value: 255 * (value >= PRESENT)).getbbox()
        return None if found is None else Crop(around(Box(*found), options.margin or 0, image.size))

    return crop


@dataclass(frozen=True)
class CropTool(Tool[Cropper]):
    """A row of croppers.

    Attributes:
        margin: around what is cropped to, unless another is asked for.
    """

    margin: float = 0.0


_LITE = ("ai_edge_litert",)
CROPPERS: dict[str, CropTool] = {
    "face": CropTool("a square around the largest face, by MediaPipe", face_cropper, _LITE, margin=0.6),
    "person": CropTool("a rectangle around people, by MediaPipe", person_cropper, _LITE, margin=0.1),
}
"""What `--crop` may be."""


def square_around(box: Box, margin: float, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The square with the box in its middle, moved, and if need be made smaller, to be inside the image.

    Args:
        box: in pixels.
        margin: on each side of the box, in its longer side.
        size: (width, height) of the image.
    """
    side = max(1, min(round(max(box.width, box.height) * (1 + 2 * margin)), *size))
    left = _inside((box.left + box.right - side) / 2, size[0] - side)
    top = _inside((box.top + box.bottom - side) / 2, size[1] - side)
    return left, top, left + side, top + side


def around(box: Box, margin: float, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box with a margin, as far as the image goes; arguments as of `square_around`."""
    more = max(box.width, box.height) * margin
    left, right = (_inside(edge, size[0]) for edge in (box.left - more, box.right + more))
    top, bottom = (_inside(edge, size[1]) for edge in (box.top - more, box.bottom + more))
    return left, top, right, bottom


def _inside(position: float, most: int) -> int:
    return min(max(round(position), 0), most)
