"""Anti-aliased drawing with signed distance functions, batched over portraits. Distances are negative inside.

Coordinates are (B, H, W) tensors in canvas units (the canvas spans [-1, 1] in x and y, y down); shape
parameters are floats or (B, 1, 1) tensors, so that every portrait of a batch has its own.
"""

from __future__ import annotations

import torch
from torch import Tensor

Number = float | Tensor


def canvas(resolution: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Pixel centres (1, H, W) of x and y in [-1, 1]."""
    centres = (torch.arange(resolution, device=device, dtype=torch.float32) + 0.5) / resolution * 2 - 1
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    return x[None], y[None]


def ellipse(x: Tensor, y: Tensor, cx: Number, cy: Number, rx: Number, ry: Number) -> Tensor:
    """Distance to an ellipse (first-order approximation, exact on the outline)."""
    px, py = (x - cx) / rx, (y - cy) / ry
    k0 = torch.sqrt(px**2 + py**2 + 1e-9)
    k1 = torch.sqrt((px / rx) ** 2 + (py / ry) ** 2 + 1e-9)
    return k0 * (k0 - 1) / k1


def box(x: Tensor, y: Tensor, cx: Number, cy: Number, hx: Number, hy: Number, radius: Number) -> Tensor:
    """Distance to a rounded box with half sizes hx, hy and corner `radius`."""
    dx, dy = (x - cx).abs() - hx + radius, (y - cy).abs() - hy + radius
    outside = torch.sqrt(dx.clamp(min=0) ** 2 + dy.clamp(min=0) ** 2 + 1e-12)
    return outside + torch.maximum(dx, dy).clamp(max=0) - radius


def capsule(x: Tensor, y: Tensor, ax: Number, ay: Number, bx: Number, by: Number, radius: Number) -> Tensor:
    """Distance to a line from a to b with round ends."""
    px, py, dx, dy = x - ax, y - ay, bx - ax, by - ay
    along = ((px * dx + py * dy) / (dx * dx + dy * dy)).clamp(0, 1)
    return torch.sqrt((px - dx * along) ** 2 + (py - dy * along) ** 2 + 1e-12) - radius


def arc(
    x: Tensor, y: Tensor, cx: Number, cy: Number, half_width: Number, bend: Number, radius: Number
) -> Tensor:
    """Distance to a stroke with round ends along y = cy + bend * (1 - ((x - cx) / half_width)^2).

    `bend` > 0 hangs down in the middle (a smile), < 0 arches up (a brow).
    """
    u = (x - cx) / half_width
    on = u.clamp(-1, 1)
    curve = cy + bend * (1 - on**2)
    slope = -2 * bend * on / half_width
    vertical = (y - curve) / torch.sqrt(1 + slope**2)
    beyond = (u.abs() - 1).clamp(min=0) * half_width
    return torch.sqrt(vertical**2 + beyond**2 + 1e-12) - radius


def taper(
    x: Tensor, y: Tensor, ax: Number, ay: Number, bx: Number, by: Number, ra: Number, rb: Number
) -> Tensor:
    """Distance to a stroke from a to b whose half width runs from ra to rb."""
    px, py, dx, dy = x - ax, y - ay, bx - ax, by - ay
    along = ((px * dx + py * dy) / (dx * dx + dy * dy)).clamp(0, 1)
    return torch.sqrt((px - dx * along) ** 2 + (py - dy * along) ** 2 + 1e-12) - (ra + (rb - ra) * along)


def union(*shapes: Tensor) -> Tensor:
    """Inside any of the shapes."""
    result = shapes[0]
    for shape in shapes[1:]:
        result = torch.minimum(result, shape)
    return result


def smooth_union(a: Tensor, b: Tensor, blend: float) -> Tensor:
    """Inside a or b, with the crease between them rounded over `blend`."""
    h = (0.5 + 0.5 * (b - a) / blend).clamp(0, 1)
    return b + (a - b) * h - blend * h * (1 - h)


def intersect(*shapes: Tensor) -> Tensor:
    """Inside all of the shapes."""
    result = shapes[0]
    for shape in shapes[1:]:
        result = torch.maximum(result, shape)
    return result


def cover(distance: Tensor, softness: Number) -> Tensor:
    """Coverage in [0, 1] of a shape whose edge is `softness` wide (one pixel is an anti-aliased edge)."""
    return (0.5 - distance / softness).clamp(0, 1)


def paint(image: Tensor, colour: Tensor, coverage: Tensor) -> Tensor:
    """Blend `colour` (B, 3, 1 or H, 1 or W) over `image` (B, 3, H, W) by `coverage` (B, H, W) in [0, 1]."""
    return torch.lerp(image, colour.expand_as(image), coverage[:, None].expand_as(image))


def ramp(value: Tensor, colours: list[tuple[float, float, float]]) -> Tensor:
    """(B, 3, 1, 1) colour at `value` (B,) in [0, 1] along evenly spaced `colours`."""
    stops = torch.tensor(colours, device=value.device)
    position = value.clamp(0, 1) * (len(colours) - 1)
    low = position.floor().long().clamp(max=len(colours) - 2)
    colour = torch.lerp(stops[low], stops[low + 1], (position - low)[:, None])
    return colour[:, :, None, None]
