"""The portrait renderer: attributes in, anti-aliased 128 x 128 images out, continuous in every attribute."""

from __future__ import annotations

import torch
from torch import Tensor

from tinyflux import parts
from tinyflux.frame import frame_of
from tinyflux.people import People
from tinyflux.styles import pixel_art, sketch

RESOLUTION = 128


def render(people: People, resolution: int = RESOLUTION) -> Tensor:
    """Draw portraits.

    Args:
        people: attributes, each (B,); values in [0, 1], `hair_style` an index.
        resolution: pixels on a side.

    Returns:
        (B, 3, resolution, resolution) images in [0, 1], on the device of the attributes.
    """
    f = frame_of(people, resolution)
    image = parts.draw_background(f, people, resolution)
    image = parts.draw_back_hair(f, image)
    image = parts.draw_body(f, people, image)
    image = parts.draw_ears(f, image)
    image = parts.draw_face(f, image)
    image = parts.draw_age_lines(f, image)
    image = parts.draw_nose(f, image)
    image = parts.draw_beard(f, image)
    image = parts.draw_mouth(f, image)
    image = parts.draw_eyes(f, people, image)
    image = parts.draw_brows(f, image)
    image = parts.draw_front_hair(f, image)
    image = parts.draw_glasses(f, image).clamp(0, 1)
    image = torch.lerp(image, pixel_art(image), f.a["pixel_art"][:, None])
    return torch.lerp(image, sketch(image), f.a["sketch"][:, None])
