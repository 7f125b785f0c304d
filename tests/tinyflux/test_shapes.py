"""Signed distances against exact cases and against the nearest of many points on the outline."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tinyflux import shapes as s


def point(x: float, y: float) -> tuple[Tensor, Tensor]:
    return torch.tensor([[[x]]]), torch.tensor([[[y]]])


def nearest(x: Tensor, y: Tensor, curve_x: Tensor, curve_y: Tensor) -> Tensor:
    """Distance from each pixel to the nearest of the curve's points."""
    points = torch.stack([x.flatten(), y.flatten()], dim=1)
    return torch.cdist(points, torch.stack([curve_x, curve_y], dim=1)).min(dim=1).values.reshape(x.shape)


GRID = s.canvas(24)
T = torch.linspace(0, 1, 4001)


def test_canvas_holds_pixel_centres() -> None:
    x, y = s.canvas(4)
    assert x[0, 0].tolist() == y[0, :, 0].tolist() == [-0.75, -0.25, 0.25, 0.75]
    assert torch.equal(x[0], y[0].T)


def test_a_circle_is_exact_everywhere() -> None:
    x, y = GRID
    expected = torch.sqrt((x - 0.2) ** 2 + (y + 0.1) ** 2) - 0.4
    torch.testing.assert_close(s.ellipse(x, y, 0.2, -0.1, 0.4, 0.4), expected, atol=1e-4, rtol=0)


def test_an_ellipse_is_zero_on_its_outline_and_right_near_it() -> None:
    angle = 2 * math.pi * T
    outline = 0.1 + 0.6 * angle.cos(), -0.2 + 0.3 * angle.sin()
    on = s.ellipse(outline[0][None, None], outline[1][None, None], 0.1, -0.2, 0.6, 0.3)
    assert on.abs().max() < 1e-5
    x, y = GRID
    distance, exact = s.ellipse(x, y, 0.1, -0.2, 0.6, 0.3), nearest(x, y, *outline)
    inside = ((x - 0.1) / 0.6) ** 2 + ((y + 0.2) / 0.3) ** 2 < 1
    assert torch.equal(distance < 0, inside)
    near = exact < 0.06
    assert near.sum() > 20
    torch.testing.assert_close(distance.abs()[near], exact[near], atol=0.006, rtol=0)


@pytest.mark.parametrize(
    ("at", "radius", "expected"),
    [
        ((0.9, 0.1), 0.0, 0.2),  # beside it: half sizes 0.5 and 0.3 about (0.2, 0.1)
        ((0.2, -0.5), 0.0, 0.3),
        ((1.0, 0.8), 0.0, 0.5),  # off the corner (0.7, 0.4): 0.3, 0.4, 0.5
        ((0.2, 0.1), 0.0, -0.3),
        ((0.65, 0.1), 0.0, -0.05),
        ((0.9, 0.1), 0.1, 0.2),  # rounding takes nothing from the sides
        ((0.9, 0.7), 0.1, 0.4),  # the corner's circle is about (0.6, 0.3): 0.3, 0.4, 0.5, less 0.1
    ],
)
def test_a_box_is_exact(at: tuple[float, float], radius: float, expected: float) -> None:
    assert s.box(*point(*at), 0.2, 0.1, 0.5, 0.3, radius).item() == pytest.approx(expected, abs=1e-5)


def test_a_capsule_is_a_distance_to_a_segment() -> None:
    x, y = GRID
    exact = nearest(x, y, -0.5 + 0.8 * T, 0.2 - 0.6 * T) - 0.07
    torch.testing.assert_close(s.capsule(x, y, -0.5, 0.2, 0.3, -0.4, 0.07), exact, atol=1e-4, rtol=0)


def test_a_taper_is_a_capsule_whose_radius_runs() -> None:
    x, y = GRID
    even = s.taper(x, y, -0.5, 0.2, 0.3, -0.4, 0.07, 0.07)
    torch.testing.assert_close(even, s.capsule(x, y, -0.5, 0.2, 0.3, -0.4, 0.07))
    for at, edge in ((0.0, 0.2), (0.5, 0.15), (1.0, 0.1)):  # along a horizontal stroke from x = 0 to 1
        assert s.taper(*point(at, edge), 0.0, 0.0, 1.0, 0.0, 0.2, 0.1).item() == pytest.approx(0, abs=1e-6)
    assert s.taper(*point(1.5, 0.0), 0.0, 0.0, 1.0, 0.0, 0.2, 0.1).item() == pytest.approx(0.4)


def test_an_arc_follows_its_parabola() -> None:
    u = torch.linspace(-1, 1, 4001)
    curve = 0.1 + 0.5 * u, -0.3 + 0.2 * (1 - u**2)
    on = s.arc(curve[0][None, None], curve[1][None, None], 0.1, -0.3, 0.5, 0.2, 0.03)
    torch.testing.assert_close(on, torch.full_like(on, -0.03), atol=1e-5, rtol=0)
    x, y = GRID
    exact = nearest(x, y, *curve)
    near = (exact < 0.05) & ((x - 0.1).abs() < 0.5)
    assert near.sum() > 10
    distance = s.arc(x, y, 0.1, -0.3, 0.5, 0.2, 0.0)
    torch.testing.assert_close(distance[near], exact[near], atol=0.01, rtol=0)


def test_an_arc_without_bend_is_a_capsule() -> None:
    x, y = GRID
    straight = s.capsule(x, y, -0.4, -0.3, 0.6, -0.3, 0.05)
    torch.testing.assert_close(s.arc(x, y, 0.1, -0.3, 0.5, 0.0, 0.05), straight, atol=1e-5, rtol=0)


def test_a_smile_hangs_and_a_brow_arches() -> None:
    below, above = point(0.0, 0.2), point(0.0, -0.2)
    assert s.arc(*below, 0.0, 0.0, 0.5, 0.2, 0.05).item() == pytest.approx(-0.05, abs=1e-5)
    assert s.arc(*above, 0.0, 0.0, 0.5, -0.2, 0.05).item() == pytest.approx(-0.05, abs=1e-5)


def test_union_and_intersection_are_those_of_the_insides() -> None:
    x, y = GRID
    parts = [s.ellipse(x, y, cx, 0.0, 0.4, 0.4) for cx in (-0.3, 0.0, 0.3)]
    insides = torch.stack([part < 0 for part in parts])
    assert torch.equal(s.union(*parts) < 0, insides.any(dim=0))
    assert torch.equal(s.intersect(*parts) < 0, insides.all(dim=0))
    assert insides.any(dim=0).sum() > insides.all(dim=0).sum() > 0


def test_a_smooth_union_only_fills_the_crease() -> None:
    a, b = torch.tensor([0.5, 0.0, 0.1, -0.2]), torch.tensor([0.1, 0.3, 0.1, -0.2])
    blended = s.smooth_union(a, b, 0.2)
    # apart by more than the blend: the nearer of the two; equal: a quarter of the blend further out
    torch.testing.assert_close(blended, torch.tensor([0.1, 0.0, 0.05, -0.25]))
    torch.testing.assert_close(blended, s.smooth_union(b, a, 0.2))


def test_coverage_is_one_inside_half_on_the_edge_and_linear_between() -> None:
    distance = torch.tensor([-1.0, -0.1, -0.05, 0.0, 0.05, 0.1, 1.0])
    torch.testing.assert_close(s.cover(distance, 0.2), torch.tensor([1.0, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]))


@pytest.mark.parametrize("radius", [0.2, 0.43, 0.8])
def test_the_coverage_of_a_disc_sums_to_its_area(radius: float) -> None:
    x, y = s.canvas(64)
    area = s.cover(s.ellipse(x, y, 0.03, -0.02, radius, radius), 2 / 64).sum() * (2 / 64) ** 2
    assert area.item() == pytest.approx(math.pi * radius**2, rel=2e-3)


def test_paint_blends_each_portraits_own_colour() -> None:
    image = torch.full((2, 3, 1, 3), 0.2)
    colour = torch.tensor([[1.0, 0.0, 0.6], [0.2, 0.4, 0.8]])[:, :, None, None]
    painted = s.paint(image, colour, torch.tensor([0.0, 0.5, 1.0]).expand(2, 1, 3))
    torch.testing.assert_close(
        painted[0, :, 0].T, torch.tensor([[0.2] * 3, [0.6, 0.1, 0.4], [1.0, 0.0, 0.6]])
    )
    torch.testing.assert_close(
        painted[1, :, 0].T, torch.tensor([[0.2] * 3, [0.2, 0.3, 0.5], [0.2, 0.4, 0.8]])
    )


def test_a_ramp_meets_its_stops_and_runs_straight_between() -> None:
    stops = [(0.0, 0.0, 1.0), (1.0, 0.5, 0.0), (0.0, 1.0, 0.0)]
    values = torch.tensor([0.0, 0.25, 0.5, 0.9, 1.0, -3.0, 7.0])
    expected = [stops[0], (0.5, 0.25, 0.5), stops[1], (0.2, 0.9, 0.0), stops[2], stops[0], stops[2]]
    colours = s.ramp(values, stops)
    assert colours.shape == (7, 3, 1, 1)
    torch.testing.assert_close(colours[:, :, 0, 0], torch.tensor(expected))
