"""Pixel art and sketch against plain loops and exact images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tinyflux.people import sample_people, with_attribute
from tinyflux.render import render
from tinyflux.seeds import HELD_OUT
from tinyflux.styles import PIXEL_BLOCK, PIXEL_LEVELS, pixel_art, sketch

PAPER, GRAPHITE = torch.tensor([0.99, 0.97, 0.93]), torch.tensor([0.16, 0.16, 0.19])


@pytest.fixture(scope="module")
def portraits() -> Tensor:
    people = sample_people(HELD_OUT[:3])
    return render(with_attribute(with_attribute(people, "sketch", 0), "pixel_art", 0))


def flat(value: float) -> Tensor:
    return torch.full((1, 3, 64, 64), value)


def test_pixel_art_equals_plain_loops() -> None:
    image = torch.rand(1, 3, 16, 8, generator=torch.Generator().manual_seed(0))
    expected = np.zeros((3, 16, 8))
    for channel in range(3):
        for top in range(0, 16, 4):
            for left in range(0, 8, 4):
                mean = image[0, channel, top : top + 4, left : left + 4].numpy().astype(float).mean()
                expected[channel, top : top + 4, left : left + 4] = np.round(mean * 11) / 11
    torch.testing.assert_close(pixel_art(image)[0], torch.from_numpy(expected).float(), atol=1e-6, rtol=0)


def test_pixel_art_has_constant_blocks_on_its_levels(portraits: Tensor) -> None:
    art = pixel_art(portraits)
    corners = art[..., ::PIXEL_BLOCK, ::PIXEL_BLOCK]
    blocks = corners.repeat_interleave(PIXEL_BLOCK, -1).repeat_interleave(PIXEL_BLOCK, -2)
    assert torch.equal(art, blocks)
    steps = art * (PIXEL_LEVELS - 1)
    assert (steps - steps.round()).abs().max() < 1e-5
    assert len(steps.round().unique()) > PIXEL_LEVELS // 2
    assert (art - portraits).abs().mean() > 0.01


def test_pixel_art_of_pixel_art_is_itself(portraits: Tensor) -> None:
    art = pixel_art(portraits)
    torch.testing.assert_close(pixel_art(art), art, atol=1e-6, rtol=0)


def test_pixel_art_takes_other_blocks_and_levels(portraits: Tensor) -> None:
    art = pixel_art(portraits, block=8, levels=2)
    assert set(art.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(art[..., :8, :8], art[..., :1, :1].expand(-1, -1, 8, 8))


def test_a_sketch_of_white_is_paper_and_of_black_graphite() -> None:
    for value, colour in ((1.0, PAPER), (0.0, GRAPHITE)):
        torch.testing.assert_close(sketch(flat(value)), colour[None, :, None, None].expand(1, 3, 64, 64))


@pytest.mark.parametrize("value", [0.2, 0.5, 0.9])
def test_a_sketch_of_a_flat_grey_is_nearly_paper(value: float) -> None:
    """Dodging divides a flat tone by itself: what is left of it is the 0.18 that the pencil keeps."""
    expected = GRAPHITE + (PAPER - GRAPHITE) * (0.82 + 0.18 * value)
    torch.testing.assert_close(sketch(flat(value))[0, :, 32, 32], expected, atol=1e-4, rtol=0)


def test_a_sketch_draws_lines() -> None:
    image = flat(0.8)
    image[..., 32] = 0.3
    drawn = sketch(image)[0, 0, 32]
    assert drawn[32] < 0.5
    assert drawn[:20].min() > 0.9
    assert drawn[44:].min() > 0.9


def test_a_sketch_is_grey_on_paper(portraits: Tensor) -> None:
    drawn = sketch(portraits)
    # every pixel lies on the line from graphite to paper
    along = (drawn - GRAPHITE[None, :, None, None]) / (PAPER - GRAPHITE)[None, :, None, None]
    torch.testing.assert_close(along[:, 0], along[:, 2], atol=1e-5, rtol=0)
    torch.testing.assert_close(along[:, 0], along[:, 1], atol=1e-5, rtol=0)
    assert along.min() > -1e-6
    assert along.max() < 1 + 1e-6
    spread = drawn.amax(dim=1) - drawn.amin(dim=1)
    assert spread.max() < 0.07
    assert (portraits.amax(dim=1) - portraits.amin(dim=1)).max() > 0.5


def test_a_sketch_depends_on_luma_alone() -> None:
    """0.299 R + 0.587 G + 0.114 B, of ITU-R BT.601: a red as bright as a green gives the same drawing."""
    red, green = flat(0.0), flat(0.0)
    red[:, 0, 20:40] = 0.8
    green[:, 1, 20:40] = 0.8 * 0.299 / 0.587
    torch.testing.assert_close(sketch(red), sketch(green), atol=1e-5, rtol=0)
