"""Whether a face's two eyes agree, read by drawing: each eye is compared with what the renderer would draw.

The probe says who is there and how the head is held; the renderer draws that person with eyes of every size,
height and colour; each eye of the image keeps the drawing that it is nearest to. No eye of the image is
compared with a network's idea of an eye, and neither with the other eye's.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from tinyflux.frame import frame_of
from tinyflux.people import HAIR_STYLES, STYLES, People, take, with_attribute
from tinyflux.probe import Probe
from tinyflux.render import render

SIZES = tuple(i / 8 for i in range(-1, 10))
"""In units of `big_eyes`: 7% of an eye's width a step."""
COLOURS = tuple(i / 6 for i in range(7))
"""In units of `eye_colour`."""
HEIGHTS = tuple(range(-3, 4))
"""In pixels of 128, downwards."""
SIDEWAYS = (-1, 0, 1)
"""In pixels, to the right: what the probe's reading of the turn may be off."""

SAME_SIZE, SAME_COLOUR, SAME_HEIGHT = 0.25, 1 / 3, 1
"""How much two eyes of one face may differ, in the units of the above."""
LIKE_AN_EYE, AS_WELL_DRAWN = 0.25, 0.08
"""Root mean square difference in [-1, 1] that an eye may have from its nearest drawing, and by how much
the two eyes' may differ. Of 44 renders through the autoencoder, half are within 0.15 and 97% within 0.23."""

_CENTRE, _RADII = (0.188, -0.015), (0.18, 0.11)
"""Where an eye is looked at, in head coordinates: the eye, its lid and its lashes, at any size."""


@dataclass(frozen=True)
class Eyes:
    """The two eyes of B faces, left then right in the image; each (B, 2), as of the nearest drawing."""

    size: Tensor
    colour: Tensor
    height: Tensor
    distance: Tensor  # root mean square, in [-1, 1]

    def agree(self) -> Tensor:
        """(B,) bool: both are eyes, and of one size, colour and height."""

        def within(values: Tensor, limit: float) -> Tensor:
            return (values[:, 0] - values[:, 1]).abs() <= limit + 1e-4

        return (
            within(self.size, SAME_SIZE)
            & within(self.colour, SAME_COLOUR)
            & within(self.height, SAME_HEIGHT)
            & within(self.distance, AS_WELL_DRAWN)
            & (self.distance <= LIKE_AN_EYE).all(dim=1)
        )


def who_is_there(probe: Probe, images: Tensor) -> People:
    """The people that the probe sees in images (B, 3, 128, 128), as the renderer takes them."""
    readings = probe.read(images)
    device = probe.head.weight.device
    with torch.no_grad():
        hair = torch.cat([probe(batch.to(device).float()).cpu() for batch in images.split(64)])
    return {**readings, "hair_style": hair[:, -len(HAIR_STYLES) :].argmax(dim=1)}


def read_eyes(probe: Probe, images: Tensor) -> Eyes:
    """The eyes of faces (B, 3, 128, 128) in [-1, 1] that are drawn in no style."""
    people = who_is_there(probe, images)
    parts = [_nearest(images[i : i + 32], take(people, slice(i, i + 32))) for i in range(0, len(images), 32)]
    return Eyes(*(torch.cat(values) for values in zip(*parts, strict=True)))


def _nearest(images: Tensor, people: People) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(B, 2) sizes, colours, heights and distances of the nearest drawings of a batch.

    First the size and the place, in the colour that the probe reads; then each eye's colour at its own size.
    """
    where = _where(people)
    places = list(product(SIZES, HEIGHTS, SIDEWAYS))
    apart = [
        _distances(images, drawn.roll((height, aside), dims=(2, 3)), where)
        for size in SIZES
        for drawn in [render(with_attribute(people, "big_eyes", size)) * 2 - 1]
        for height, aside in product(HEIGHTS, SIDEWAYS)
    ]
    best = torch.stack(apart).argmin(dim=0)
    size, height, aside = torch.tensor(places)[best].unbind(dim=-1)

    by_colour = []
    for colour in COLOURS:
        own = with_attribute(people, "eye_colour", colour)
        drawn = [render(with_attribute(own, "big_eyes", size[:, eye])) * 2 - 1 for eye in (0, 1)]
        moved = [_moved(one, height[:, eye], aside[:, eye]) for eye, one in enumerate(drawn)]
        by_colour.append(_distances(images, torch.stack(moved, dim=1), where))
    distance, best = torch.stack(by_colour).min(dim=0)
    return size, torch.tensor(COLOURS)[best], height, distance


def _distances(images: Tensor, drawn: Tensor, where: Tensor) -> Tensor:
    """(B, 2) root mean square differences around each eye from drawings, (B, 3, H, W) or one an eye."""
    drawn = drawn if drawn.ndim == 5 else drawn[:, None]
    square = (images[:, None] - drawn).square() * where
    return (square.sum(dim=(2, 3, 4)) / (3 * where.sum(dim=(2, 3, 4)))).sqrt()


def _moved(drawn: Tensor, height: Tensor, aside: Tensor) -> Tensor:
    """Drawings (B, 3, H, W), each moved by its own whole pixels down and to the right."""
    shifts = zip(drawn, height.int().tolist(), aside.int().tolist(), strict=True)
    return torch.stack([one.roll((down, right), dims=(1, 2)) for one, down, right in shifts])


def _where(people: People) -> Tensor:
    """(B, 2, 1, 128, 128): 1 around the left eye and around the right one, 0 elsewhere."""
    frame = frame_of(people, 128)
    (x, y), (across, down) = _CENTRE, _RADII
    around = [
        ((frame.feature_x - side * x) / across) ** 2 + ((frame.y - y) / down) ** 2 < 1 for side in (-1, 1)
    ]
    return torch.stack(around, dim=1)[:, :, None].float()


def share_agreeing(probe: Probe, images: Tensor) -> float:
    """The share of faces drawn in no style whose eyes agree; images (B, 3, 128, 128) in [-1, 1].

    Raises:
        ValueError: every image is in a style.
    """
    readings = probe.read(images)
    plain = torch.stack([readings[style] < 0.5 for style in STYLES]).all(dim=0)
    if not plain.any():
        raise ValueError("eyes: expected faces, found only images in a style")
    return read_eyes(probe, images[plain]).agree().float().mean().item()
