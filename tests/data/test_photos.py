"""Photographs of any size: what of them is edited, and the edit put back into the whole."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.test_profiles import ADOBE_RGB, profile
from utils.data.photos import load_photo
from utils.data.pixels import load_cropped
from utils.errors import UserError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 100, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    return tmp_path / "wide.png"


def test_the_whole_is_resampled_to_its_own_size(path: Path) -> None:
    photo = load_photo(path, 64, multiple=16)
    assert photo.pixels.shape == (3, 48, 80)
    assert photo.box == (0, 0, 100, 60)
    values = np.array(Image.open(path).resize((80, 48), Image.Resampling.LANCZOS), dtype=np.float32)
    torch.testing.assert_close(photo.pixels, torch.from_numpy(values).permute(2, 0, 1) / 127.5 - 1)
    assert torch.equal(photo.pixels, load_cropped(path, (80, 48)))


def test_the_square_is_centred_and_resampled(path: Path) -> None:
    photo = load_photo(path, 16, "center_crop")
    assert photo.box == (20, 0, 80, 60)
    expected = Image.open(path).crop(photo.box).resize((16, 16), Image.Resampling.LANCZOS)
    values = torch.from_numpy(np.array(expected, dtype=np.float32)).permute(2, 0, 1) / 127.5 - 1
    torch.testing.assert_close(photo.pixels, values)
    stretched = load_photo(path, 16, "stretch")
    assert (stretched.box, stretched.pixels.shape) == ((0, 0, 100, 60), (3, 16, 16))


@pytest.mark.parametrize("resize", ["error", "center_crop", "stretch"])
def test_no_change_gives_back_the_photograph(path: Path, resize: str) -> None:
    photo = load_photo(path, 16, resize)
    reconstruction = torch.rand(photo.pixels.shape) * 2 - 1
    whole = photo.with_change(reconstruction, reconstruction)
    assert whole.tobytes() == Image.open(path).tobytes()


@pytest.mark.parametrize("size", [(1500, 1000), (1000, 1500), (400, 300), (90, 160), (500, 500), (61, 64)])
def test_a_change_reaches_every_side_of_a_photograph_of_any_ratio(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    """What is cropped of it, too: a change of everything is one of every pixel, however sides round."""
    Image.new("RGB", size, (80, 80, 80)).save(tmp_path / "a.png")
    photo = load_photo(tmp_path / "a.png", 128, multiple=16)
    grey = torch.zeros(photo.pixels.shape)
    after = np.array(photo.with_change(grey, grey + 20 / 127.5))
    assert after.shape == (*size[::-1], 3)
    assert (after == 100).all()


def test_a_change_of_one_side_stays_there(tmp_path: Path) -> None:
    """Where in the photograph it is: the right quarter of what is edited, and what was cropped beside it."""
    Image.new("RGB", (1500, 1000), (80, 80, 80)).save(tmp_path / "a.png")
    photo = load_photo(tmp_path / "a.png", 128, multiple=16)
    assert photo.box == (35, 0, 1464, 1000)
    before, after = (torch.zeros(photo.pixels.shape) for _ in range(2))
    after[:, :, 120:] = 20 / 127.5
    row = np.array(photo.with_change(before, after))[500, :, 0].astype(int)
    assert (row[1130:] == 100).all()
    assert (row[:1080] == 80).all()


def test_a_change_stays_in_the_square(path: Path) -> None:
    photo = load_photo(path, 16, "center_crop")
    before = np.array(Image.open(path)).astype(int)
    grey = torch.zeros(3, 16, 16)
    after = np.array(photo.with_change(grey, grey + 0.2)).astype(int)
    assert after.shape == before.shape
    assert (after[:, :20] == before[:, :20]).all()
    assert (after[:, 80:] == before[:, 80:]).all()
    inside = before[:, 28:72]  # beyond the eighth of the side in which it fades; above and below, none does
    assert np.abs(after[:, 28:72] - np.clip(inside + 25.5, 0, 255)).max() <= 1


@pytest.mark.parametrize("size", [(96, 64), (64, 96), (73, 64)])
def test_a_change_fades_towards_the_sides_within_the_photograph(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    """Of a change of 100 levels no step is left that is seen; it stood 100 high before."""
    Image.new("RGB", size, (80, 80, 80)).save(tmp_path / "a.png")
    photo = load_photo(tmp_path / "a.png", 64, "center_crop")
    grey = torch.zeros(3, 64, 64)
    after = np.array(photo.with_change(grey, grey + 100 / 127.5)).astype(int)
    after = after[..., 0] if size[0] > size[1] else after[..., 0].T
    assert (after == after[0]).all()
    assert np.abs(np.diff(after[0])).max() <= 20  # half a cosine over 8 pixels: 100 * pi / 2 / 8
    assert after[0].max() == 180
    assert after[0, 0] == (80 if max(size) == 96 else 180)  # of 73, four pixels are little and five are not
    assert after[0, -1] == 80


def test_transparency_and_srgb_are_kept(tmp_path: Path) -> None:
    """The base sees white beneath; what is saved has the photograph's opacity, and no profile any more."""
    image = Image.new("RGBA", (24, 16), (200, 40, 90, 255))
    image.paste((10, 20, 30, 0), (0, 0, 12, 16))
    image.save(tmp_path / "a.png", icc_profile=profile(*ADOBE_RGB))
    photo = load_photo(tmp_path / "a.png", 16)
    assert (photo.pixels[:, :, 0] == 1).all()
    reconstruction = torch.rand(photo.pixels.shape)
    whole = photo.with_change(reconstruction, reconstruction)
    whole.save(tmp_path / "whole.png")
    saved = Image.open(tmp_path / "whole.png")
    assert saved.getchannel("A").tobytes() == image.getchannel("A").tobytes()
    assert "icc_profile" not in saved.info
    assert saved.getpixel((20, 8))[:3] == pytest.approx((233, 35, 91), abs=1)


def test_an_unreadable_or_endless_photograph_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"bad\.png: expected a readable image"):
        load_photo(tmp_path / "bad.png", 16)
    Image.new("RGB", (3000, 2)).save(tmp_path / "strip.png")
    with pytest.raises(UserError, match=r"strip\.png: expected an aspect ratio .*, found 3000 x 2"):
        load_photo(tmp_path / "strip.png", 128, multiple=16)
