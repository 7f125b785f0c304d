"""What the parts of a portrait are drawn on: coordinates of head and body, attributes, colours."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tinyflux import shapes as s
from tinyflux.people import HAIR_STYLES, People

SKIN = [(1.0, 0.87, 0.77), (0.94, 0.75, 0.62), (0.80, 0.58, 0.42), (0.58, 0.38, 0.26), (0.36, 0.23, 0.16)]
HAIR = [(0.09, 0.08, 0.09), (0.33, 0.19, 0.10), (0.64, 0.27, 0.10), (0.90, 0.73, 0.38)]
EYES = [(0.36, 0.19, 0.07), (0.27, 0.52, 0.20), (0.22, 0.50, 0.85)]
HUES = [
    (0.80, 0.16, 0.18),
    (0.92, 0.50, 0.12),
    (0.93, 0.80, 0.22),
    (0.25, 0.60, 0.25),
    (0.13, 0.60, 0.60),
    (0.18, 0.33, 0.75),
    (0.50, 0.22, 0.66),
]
GREY = (0.80, 0.80, 0.82)
LIPSTICK = (0.80, 0.04, 0.18)


@dataclass
class Frame:
    """One batch being drawn: coordinates (B, H, W), attributes (B, 1, 1), colours (B, 3, 1, 1)."""

    x: Tensor  # head coordinates: the head's own size, tilted with it
    y: Tensor
    feature_x: Tensor  # the same, slid sideways with the turn of the head
    body_x: Tensor  # body coordinates: upright
    body_y: Tensor
    edge: Tensor  # one pixel, in head units
    a: dict[str, Tensor]
    hair_style: Tensor  # (B, styles) one-hot
    skin: Tensor
    hair: Tensor
    face: Tensor  # signed distance to the face outline

    def shade(self, coverage: Tensor, image: Tensor, strength: Tensor | float) -> Tensor:
        """Darken `image` under `coverage`, to (1 - strength) at full coverage."""
        return image * (1 - coverage * strength)[:, None]


def colour(rgb: tuple[float, float, float], device: torch.device) -> Tensor:
    """A colour as (1, 3, 1, 1)."""
    return torch.tensor(rgb, device=device)[None, :, None, None]


def smoothstep(x: Tensor, low: float, high: float) -> Tensor:
    """0 below `low`, 1 above `high`, smooth between."""
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def frame_of(people: People, resolution: int) -> Frame:
    """The frame of a batch of people, `resolution` pixels a side."""
    device = people["age"].device
    a = {name: value[:, None, None].float() for name, value in people.items() if name != "hair_style"}
    canvas_x, canvas_y = s.canvas(resolution, device)
    size = 1.04 + 0.20 * a["scale"]
    angle = (a["tilt"] - 0.5) * 0.36
    pivot = 0.55
    dx, dy = canvas_x / size, (canvas_y - pivot) / size
    x = torch.cos(angle) * dx + torch.sin(angle) * dy
    y = -torch.sin(angle) * dx + torch.cos(angle) * dy + pivot
    turn = (a["turn"] - 0.5) * 2
    feature_x = x - 0.085 * turn
    grey = 0.65 * smoothstep(people["age"], 0.30, 1.0)[:, None, None, None]
    hair = torch.lerp(s.ramp(people["hair_tone"], HAIR), colour(GREY, device), grey)
    one_hot = torch.nn.functional.one_hot(people["hair_style"], len(HAIR_STYLES)).float()

    width = 0.455 - 0.055 * a["face_shape"]
    height = 0.50 + 0.08 * a["face_shape"]
    jaw = torch.sigmoid((y - 0.16) / 0.09)
    widen = 1 + jaw * (0.05 * a["male"] - 0.04 + 0.24 * a["chubby"]) + 0.05 * a["chubby"]
    face = s.ellipse(x / widen, y, 0.0, 0.03, width, height + 0.02 * a["chubby"])
    edge = 2.0 / resolution / size
    return Frame(
        x, y, feature_x, dx.expand_as(x), (canvas_y - pivot) / size + pivot, edge, a, one_hot,
        s.ramp(people["skin"], SKIN), hair, face,
    )  # fmt: skip
