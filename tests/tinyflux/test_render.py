"""The renderer: deterministic, in range, every attribute seen, continuous, local, anti-aliased."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tinyflux.people import (
    ATTRIBUTES,
    HAIR_STYLES,
    STYLES,
    YES_NO,
    People,
    sample_people,
    stack_people,
    take,
    with_attribute,
)
from tinyflux.render import RESOLUTION, render
from tinyflux.seeds import HELD_OUT
from tinyflux.styles import pixel_art, sketch

SOMEBODY: People = {
    **{name: torch.tensor([0.0 if name in YES_NO else 0.5]) for name in ATTRIBUTES},
    "hair_style": torch.tensor([HAIR_STYLES.index("short")]),
}
"""In the middle of the world, head upright, hair off the ears, no edit of the yes/no kind."""


def somebody_with(name: str, values: list[float]) -> People:
    """One person a value, alike in all but `name`."""
    return stack_people([with_attribute(SOMEBODY, name, value) for value in values])


def change(name: str, low: float = 0.0, high: float = 1.0) -> Tensor:
    """(H, W): the largest change of each pixel's channels."""
    before, after = render(somebody_with(name, [low, high]))
    return (after - before).abs().amax(dim=0)


@pytest.fixture(scope="module")
def people() -> People:
    return sample_people(HELD_OUT[:12])


@pytest.fixture(scope="module")
def images(people: People) -> Tensor:
    return render(people)


def test_images_are_in_range_and_use_it(images: Tensor) -> None:
    assert images.shape == (12, 3, RESOLUTION, RESOLUTION) == (12, 3, 128, 128)
    assert images.dtype == torch.float32
    assert images.min() >= 0
    assert images.max() <= 1
    assert (images.amax(dim=(1, 2, 3)) - images.amin(dim=(1, 2, 3))).min() > 0.5


def test_rendering_is_deterministic_and_people_differ(people: People, images: Tensor) -> None:
    assert torch.equal(render(people), images)
    for one, other in itertools.combinations(images, 2):
        assert (one - other).abs().mean() > 0.02


def test_a_portrait_does_not_depend_on_its_batch(people: People, images: Tensor) -> None:
    alone = render(take(people, slice(4, 5)))
    reversed_ = render(take(people, list(range(11, -1, -1)))).flip(0)
    # the processor may sum in another order; a block of pixel art must not then round the other way
    torch.testing.assert_close(alone, images[4:5], atol=1e-5, rtol=0)
    torch.testing.assert_close(reversed_, images, atol=1e-5, rtol=0)


def test_rendering_leaves_the_people_alone(people: People) -> None:
    before = {name: value.clone() for name, value in people.items()}
    render(people, 32)
    assert all(torch.equal(people[name], before[name]) for name in before)


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_every_attribute_is_seen(name: str) -> None:
    changed = change(name)
    assert changed.max() > 0.25
    assert (changed > 0.05).float().mean() > 0.004  # 65 pixels: the iris is the smallest
    assert (change(name, 0.4, 0.6) > 0.02).sum() > 10


def test_every_hair_style_is_its_own() -> None:
    styles = torch.arange(len(HAIR_STYLES))
    portraits = render({**{name: value.expand(5) for name, value in SOMEBODY.items()}, "hair_style": styles})
    for one, other in itertools.combinations(portraits, 2):
        assert ((one - other).abs().amax(dim=0) > 0.1).float().mean() > 0.01


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_images_are_continuous(name: str) -> None:
    """Halve the interval in which a pixel changes most: a steep change shrinks with it, a jump stays."""

    def at(*values: float) -> Tensor:
        return render(stack_people([with_attribute(SOMEBODY, name, value) for value in values]), 64)

    grid = torch.linspace(0, 1, 17).tolist()
    portraits = at(*grid)
    widest = (portraits[1:] - portraits[:-1]).abs().amax(dim=(1, 2, 3)).argmax().item()
    (low, high), (before, after) = grid[widest : widest + 2], portraits[widest : widest + 2]
    for _ in range(9):
        middle = (low + high) / 2
        between = at(middle)[0]
        if (between - before).abs().max() > (after - between).abs().max():
            high, after = middle, between
        else:
            low, before = middle, between
    assert (after - before).abs().max() <= 0.01


def rows_and_columns(mask: Tensor) -> tuple[int, int, int, int]:
    """The first and last row, the first and last column in which `mask` holds."""
    rows, columns = mask.any(dim=1).nonzero(), mask.any(dim=0).nonzero()
    return rows.min().item(), rows.max().item(), columns.min().item(), columns.max().item()


@pytest.mark.parametrize(
    ("name", "top", "bottom", "left", "right"),
    [
        ("glasses", 45, 72, 28, 99),
        ("lipstick", 75, 95, 45, 82),
        ("eye_colour", 52, 66, 40, 87),
        ("beard", 40, 112, 22, 105),
        ("big_eyes", 38, 70, 35, 92),
    ],
)
def test_edits_are_local(name: str, top: int, bottom: int, left: int, right: int) -> None:
    found = rows_and_columns(change(name) > 0)
    assert top <= found[0] < found[1] <= bottom
    assert left <= found[2] < found[3] <= right


def test_elf_ears_leave_the_face_and_clothes_leave_the_head() -> None:
    ears = change("elf_ears") > 0
    assert not ears[:, 44:84].any()
    assert ears[:, :44].any()
    assert ears[:, 84:].any()
    assert rows_and_columns(change("clothes") > 0)[0] > 90


def test_an_upright_head_is_the_same_on_both_sides() -> None:
    """Where, that is: light, parting and the glint in the eyes have a side."""
    for name in ("glasses", "lipstick", "elf_ears"):
        changed = change(name) > 0
        assert changed.sum() > 100
        assert torch.equal(changed, changed.flip(1))


def test_a_half_put_on_edit_lies_between() -> None:
    for name in ("glasses", "beard", *STYLES):
        off, half, on = render(somebody_with(name, [0.0, 0.5, 1.0]))
        # a frame over a tinted lens is a product of the two coverages, all else is a blend
        tolerance = 0.03 if name == "glasses" else 1e-5
        torch.testing.assert_close(half, (off + on) / 2, atol=tolerance, rtol=0)


def test_styles_are_of_the_finished_image(people: People) -> None:
    plain = with_attribute(with_attribute(people, "sketch", 0), "pixel_art", 0)
    images = render(plain)
    torch.testing.assert_close(render(with_attribute(plain, "pixel_art", 1)), pixel_art(images))
    torch.testing.assert_close(render(with_attribute(plain, "sketch", 1)), sketch(images))


@pytest.mark.parametrize("resolution", [32, 128])
def test_edges_are_anti_aliased(people: People, resolution: int) -> None:
    """A render is closer to the mean of four times the pixels than those pixels themselves are."""
    plain = with_attribute(with_attribute(people, "sketch", 0), "pixel_art", 0)
    coarse, fine = render(plain, resolution), render(plain, 2 * resolution)
    assert coarse.shape[-2:] == (resolution, resolution)
    averaged = F.avg_pool2d(fine, 2)
    error = (coarse - averaged).abs().mean()
    assert error < 0.008
    assert error < 0.4 * (fine[..., ::2, ::2] - averaged).abs().mean()
