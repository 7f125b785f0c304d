"""utils/data/pair_checks.py: each measure against an exact case; the shipped pairs, right and made wrong."""

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from utils.data.colour_fit import fit_colours
from utils.data.pair_checks import (
    agreement,
    in_words,
    look_at,
    mean_change,
    share_of_positions,
    strongest_change,
)
from utils.data.pairs import ImagePair, load_pairs
from utils.data.pixels import to_images, to_tensor
from utils.data.shifts import find_shift, moved_back
from utils.machine import REPOSITORY

DATASETS = REPOSITORY / "train" / "datasets"
EDITS = [
    "age",
    "beard",
    "big_eyes",
    "chubby",
    "elf_ears",
    "glasses",
    "lipstick",
    "pixel_art",
    "sketch",
    "smile",
]
SHIFTS = [(5, 9), (-3, 2), (1, 0), (0, -1), (20, -14)]


def shipped(dataset: str, count: int = 0) -> list[ImagePair]:
    return load_pairs(DATASETS / dataset / "source", DATASETS / dataset / "target", 128, count=count)


def scene(seed: int = 0, side: int = 96) -> Tensor:
    """Soft noise, larger than any crop of it, so that a shift brings in new things at the sides."""
    noise = torch.rand(3, side + 64, side + 64, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return torch.nn.functional.avg_pool2d(noise, 5, 1, 2) * 2


def crop(image: Tensor, down: int = 0, right: int = 0, side: int = 96) -> Tensor:
    """What a camera sees whose picture then lies (down, right) of that of none."""
    return image[:, 32 - down : 32 - down + side, 32 - right : 32 - right + side].clamp(-1, 1)


def checks(pair: ImagePair) -> list[str]:
    return [line for line in in_words("mine", *look_at([pair])) if "check" in line]


def edited(pair: ImagePair, **changes: Tensor) -> list[str]:
    return checks(replace(pair, **changes))


# --- exact cases ---


@pytest.mark.parametrize("shift", [*SHIFTS, (0, 0), (-30, 30)])
def test_a_shift_is_found_to_the_pixel_and_moved_back(shift: tuple[int, int]) -> None:
    source, target = crop(scene()), crop(scene(), *shift)
    assert find_shift(source, target) == shift
    assert torch.equal(moved_back(source, target, *shift), source)  # its border is the source's own


@pytest.mark.parametrize("size", [(64, 96), (96, 64), (63, 65)])
def test_a_shift_of_images_that_are_not_square(size: tuple[int, int]) -> None:
    source, target = (crop(scene(), *shift)[:, : size[0], : size[1]] for shift in ((0, 0), (4, -7)))
    assert find_shift(source, target) == (4, -7)


def test_pictures_of_nothing_and_unlike_pictures_have_no_shift() -> None:
    flat = torch.zeros(3, 32, 32)
    assert find_shift(flat, flat) == find_shift(flat, flat + 0.5) == (0, 0)
    assert find_shift(crop(scene(1)), crop(scene(2))) == (0, 0)


@pytest.mark.parametrize("side", [1, 4, 8, 13])
@pytest.mark.parametrize("levels", [(-1.0, -1.0), (-1.0, 1.0), (0.2, 0.2), (1.0, -1.0)])
def test_the_smallest_and_plainest_images_can_be_looked_at(side: int, levels: tuple[float, float]) -> None:
    source, target = (torch.full((3, side, side), level) for level in levels)
    pair = ImagePair("a", source, target, Path("a.png"), Path("a.png"))
    assert in_words("mine", *look_at([pair, replace(pair, stem="b")]))


def test_change_and_the_positions_that_hold_it() -> None:
    source = torch.zeros(3, 40, 40)
    target = source.clone()
    target[:, :8, :16] = 20 / 127.5  # 128 of 1600 positions, 90% of which are 115.2
    assert mean_change(source, target) == pytest.approx(20 * 128 / 1600)
    assert strongest_change(source, target) == pytest.approx(20)
    assert share_of_positions(source, target) == pytest.approx(116 / 1600)
    assert share_of_positions(source, source) == 0
    assert share_of_positions(source, source + 0.1) == pytest.approx(0.9)


def test_agreement() -> None:
    one = torch.tensor([1.0, 0, 0])
    assert agreement(one, torch.tensor([3.0, 4, 0])) == pytest.approx(0.6)
    assert agreement(one, -2 * one) == pytest.approx(-1)
    assert agreement(one, 0 * one) == 0


def lit(image: Tensor, matrix: Tensor) -> Tensor:
    """An image under a matrix of its colours in linear light, by the formulas of IEC 61966-2-1."""
    encoded = (image.double() + 1) / 2
    light = torch.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    mapped = torch.einsum("ij,jhw->ihw", matrix.double(), light).clamp(0, 1)
    return (
        torch.where(mapped <= 0.0031308, mapped * 12.92, 1.055 * mapped ** (1 / 2.4) - 0.055) * 2 - 1
    ).float()


@pytest.mark.parametrize("stops", [-1.0, -0.25, 0.0])
def test_another_exposure_is_found_in_stops_beside_an_edit(stops: float) -> None:
    source = crop(scene())
    target = lit(source, 2**stops * torch.eye(3))
    target[:, 20:60, 20:60] = 0.9  # a sixth of the positions
    fit = fit_colours(source, target)
    assert fit.stops == pytest.approx(stops, abs=0.01)
    assert fit.after == pytest.approx(0, abs=0.1)
    assert fit.explains == (stops != 0)


def test_a_map_of_colours_without_brightness_is_found() -> None:
    """Display P3 taken for sRGB, the matrix of the two."""
    matrix = torch.tensor([[0.8225, 0.1774, 0], [0.0332, 0.9669, 0], [0.0171, 0.0724, 0.9108]])
    image = crop(scene())
    fit = fit_colours(image, lit(image, matrix))
    assert fit.explains
    assert abs(fit.stops) < 0.05


# --- the shipped pairs ---


@pytest.mark.parametrize("dataset", EDITS)
def test_the_shipped_pairs_need_no_check(dataset: str) -> None:
    lines = in_words(dataset, *look_at(shipped(dataset)))
    assert len(lines) == 1
    assert lines[0].startswith(f"{dataset}: 3 pairs, change ")
    everywhere = dataset in ("pixel_art", "sketch")
    assert all((look.share > 0.5) == everywhere for look in look_at(shipped(dataset))[0])


@pytest.mark.parametrize("dataset", [name for name in EDITS if name != "pixel_art"])
def test_a_shift_is_found_beside_every_edit(dataset: str) -> None:
    """But that of pixel_art, whose blocks lie where they lie."""
    for pair in shipped(dataset):
        for shift in SHIFTS[:3]:
            target = moved_back(pair.target, pair.target, -shift[0], -shift[1])
            assert find_shift(pair.source, target) == shift
            back = moved_back(pair.source, target, *shift)
            down, right = map(abs, shift)
            inner = (slice(None), slice(down, 128 - down), slice(right, 128 - right))
            assert torch.equal(back[inner], pair.target[inner])


@pytest.fixture(scope="module")
def pair() -> ImagePair:
    return shipped("glasses", 1)[0]


def test_what_is_wrong_is_said(pair: ImagePair) -> None:
    (same,) = edited(pair, target=pair.source)
    assert "same pixels" in same
    (shifted,) = edited(pair, target=pair.target.roll((5, -9), (1, 2)))
    assert "the target is shifted 5 pixels down and 9 pixels left" in shifted
    assert "align=shift" in shifted
    (by_one,) = edited(pair, target=pair.target.roll(-1, 1))
    assert "shifted 1 pixel up, which" in by_one
    (darker,) = edited(pair, target=lit(pair.target, 0.7 * torch.eye(3)))
    assert "0.5 stops darker everywhere" in darker
    buffer = BytesIO()
    to_images(pair.source[None])[0].save(buffer, "JPEG", quality=90)
    (nearly,) = edited(pair, target=to_tensor(Image.open(buffer)))
    assert "nearly identical" in nearly


def test_a_swapped_pair_is_said() -> None:
    first, second, third = shipped("age")
    swapped = replace(second, source=second.target, target=second.source)
    lines = [line for line in in_words("age", *look_at([first, swapped, third])) if "check" in line]
    assert len(lines) == 2  # with the first and with the third
    assert all(f"{second.stem}" in line and "opposite ways" in line for line in lines)


def test_of_many_swapped_pairs_the_first_are_named() -> None:
    first, second = shipped("age", 2)
    swapped = replace(second, source=second.target, target=second.source)
    pairs = [replace(first if number % 2 else swapped, stem=f"{number}") for number in range(6)]
    lines = [line for line in in_words("age", *look_at(pairs)) if "check" in line]
    assert len(lines) == 6
    assert lines[-1] == "  check 4 more of this kind"  # 3 x 3 in all


def test_align_moves_back_what_is_shifted_and_nothing_else(tmp_path: Path, pair: ImagePair) -> None:
    for number, shift in enumerate(((5, 9), (0, 0))):
        for name, image in (("source", pair.source), ("target", pair.target.roll(shift, (1, 2)))):
            (tmp_path / name).mkdir(exist_ok=True)
            to_images(image[None])[0].save(tmp_path / name / f"{number}.png")
    shifted, straight = load_pairs(tmp_path / "source", tmp_path / "target", 128, align="shift")
    assert shifted.moved == (5, 9)
    assert torch.equal(shifted.target[:, :123, :119], pair.target[:, :123, :119])
    assert torch.equal(shifted.target[:, 123:], pair.source[:, 123:])
    assert straight.moved == (0, 0)
    assert torch.equal(straight.target, pair.target)
    lines = in_words("mine", *look_at([shifted, straight]))
    assert lines[1:] == ["  0: aligned, its target moved 5 pixels up and 9 pixels left"]
