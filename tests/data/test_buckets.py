"""Sizes of images of any aspect ratio: of about the same area, multiples, in order, with little cropped."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.data.buckets import LEAST_KEPT, Buckets, bucket_size, crop_box, kept_share
from utils.errors import UserError

Found = tuple[int, int] | str

SIDES = st.integers(1, 20_000)
STEPS = st.sampled_from([1, 2, 8, 16, 32, 64])


def found_or_said(work: Callable[[], tuple[int, int]]) -> Found:
    """A size, or the one line of why there is none."""
    try:
        return work()
    except UserError as error:
        return str(error)


@given(side=SIDES, steps=st.integers(1, 128), multiple=STEPS)
def test_a_square_gets_the_square(side: int, steps: int, multiple: int) -> None:
    resolution = steps * multiple
    assert bucket_size(side, side, resolution, multiple) == (resolution, resolution)


@given(ratio=st.floats(1 / 8, 8), resolution=st.sampled_from([128, 512, 768, 1024]))
def test_area_and_ratio_are_as_near_as_steps_allow(ratio: float, resolution: int) -> None:
    """No other size within three steps is nearer by both logarithms."""
    width, height = round(4000 * math.sqrt(ratio)), round(4000 / math.sqrt(ratio))
    found = bucket_size(width, height, resolution, 16)
    assert all(side % 16 == 0 for side in found)

    def off(size: tuple[int, int]) -> float:
        area = math.log(size[0] * size[1] / resolution**2)
        return area**2 + math.log(size[0] / size[1] * height / width) ** 2

    around = [
        (found[0] + 16 * right, found[1] + 16 * down) for right in range(-3, 4) for down in range(-3, 4)
    ]
    assert off(found) <= min(off(size) for size in around if min(size) > 0) + 1e-9
    bound = math.prod(math.sqrt(1 + 16 / (side - 16)) for side in found if side > 16)
    assert 1 / bound <= found[0] * found[1] / resolution**2 <= bound
    assert kept_share((width, height), found) >= 1 / bound


@given(first=st.tuples(SIDES, SIDES), second=st.tuples(SIDES, SIDES), multiple=STEPS)
def test_a_wider_image_gets_no_narrower_size(
    first: tuple[int, int], second: tuple[int, int], multiple: int
) -> None:
    narrow, wide = sorted([first, second], key=lambda size: size[0] / size[1])
    below, above = (found_or_said(partial(bucket_size, *size, 512, multiple)) for size in (narrow, wide))
    if isinstance(below, str) or isinstance(above, str):
        return
    assert below[0] <= above[0]
    assert below[1] >= above[1]
    assert bucket_size(*narrow[::-1], 512, multiple) == below[::-1]


@given(size=st.tuples(SIDES, SIDES), shape=st.tuples(SIDES, SIDES))
def test_a_crop_is_the_largest_centred_box(size: tuple[int, int], shape: tuple[int, int]) -> None:
    left, upper, right, lower = crop_box(size, shape)
    assert 0 <= left < right <= size[0]
    assert 0 <= upper < lower <= size[1]
    assert (left, upper) == ((size[0] - right + left) // 2, (size[1] - lower + upper) // 2)
    assert right - left == size[0] or lower - upper == size[1]
    inner = (right - left, lower - upper)
    longest = max(shape[0] / shape[1], shape[1] / shape[0])
    assert abs(inner[0] - inner[1] * shape[0] / shape[1]) <= max(0.5, longest / 2) + 1e-6 or min(inner) == 1


@pytest.mark.parametrize(
    ("image", "resolution", "expected"),
    [
        ((1500, 1000), 512, (624, 416)),  # 3:2 exactly
        ((1080, 1920), 512, (384, 688)),
        ((1500, 1000), 128, (160, 112)),
        ((1000, 1001), 128, (128, 128)),
        ((6000, 1000), 128, (320, 48)),
    ],
)
def test_sizes_of_everyday_pictures(
    image: tuple[int, int], resolution: int, expected: tuple[int, int]
) -> None:
    assert bucket_size(*image, resolution, 16) == expected


@given(st.tuples(SIDES, SIDES), st.sampled_from([64, 128, 512]))
def test_what_is_too_long_is_named_and_nothing_else_is_cropped_by_half(
    image: tuple[int, int], resolution: int
) -> None:
    ratio = max(image) / min(image)
    found = found_or_said(lambda: bucket_size(*image, resolution, 16, "strip.png"))
    if isinstance(found, str):
        assert found.startswith("strip.png: expected an aspect ratio that a size takes")
        assert found.endswith(f"found {image[0]} x {image[1]}; crop it first")
        assert ratio > 2 * (resolution / 16) ** 2
    else:
        assert kept_share(image, found) >= LEAST_KEPT
        assert ratio < 6 * (resolution / 16) ** 2


# --- lists of buckets ---


def test_the_list_is_that_of_sd_scripts() -> None:
    """Worked out by hand from its rule: for each width the greatest height of the area, and the reverse."""
    assert Buckets((512, 512), 256, 1024, 64).sizes() == [
        *((256, 832), (256, 896), (256, 960), (256, 1024), (320, 704), (320, 768), (384, 640), (448, 576)),
        *((512, 512), (576, 448), (640, 384), (704, 320), (768, 320), (832, 256), (896, 256), (960, 256)),
        (1024, 256),
    ]
    assert Buckets((512, 512), 512, 512).sizes() == [(512, 512)]


@given(image=st.tuples(SIDES, SIDES), low=st.sampled_from([64, 256, 512]), step=st.sampled_from([32, 64]))
def test_an_image_gets_a_size_of_the_list_or_is_named(image: tuple[int, int], low: int, step: int) -> None:
    buckets = Buckets((512, 512), low, 1024, step)
    found = found_or_said(lambda: buckets.of(*image, "a.png"))
    if isinstance(found, str):
        assert found.startswith("a.png: expected an aspect ratio that a size takes, the nearest being ")
        return
    assert found in buckets.sizes()
    assert found[0] * found[1] <= 512**2
    assert buckets.of(*found) == found
    nearer = min(abs(w / h - image[0] / image[1]) for w, h in buckets.sizes())
    assert found == image or abs(found[0] / found[1] - image[0] / image[1]) == nearer


@given(image=st.tuples(SIDES, SIDES), step=st.sampled_from([1, 16, 64]))
def test_without_upscaling_no_image_gets_larger(image: tuple[int, int], step: int) -> None:
    buckets = Buckets((512, 512), bucket_reso_steps=step, bucket_no_upscale=True)
    found = found_or_said(lambda: buckets.of(*image, "a.png"))
    if isinstance(found, str):
        assert found.startswith("a.png: expected ")
        return
    assert all(side % step == 0 and 0 < side <= own for side, own in zip(found, image, strict=True))
    assert found[0] * found[1] <= 512**2
    if max(image) <= 512 and step == 1:
        assert found == image


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"min_bucket_reso": 1024}, "expected bounds around 512 x 512"),
        ({"max_bucket_reso": 448}, "expected bounds around 512 x 512"),
        ({"bucket_reso_steps": 0}, "bucket_reso_steps: expected 1 or more, found 0"),
        ({"bucket_reso_steps": 2048}, "bucket_reso_steps: expected multiples of it from 256 to 1024"),
    ],
)
def test_bounds_that_leave_nothing_are_refused(changes: dict[str, int], says: str) -> None:
    with pytest.raises(UserError, match=says):
        Buckets((512, 512), **changes)
