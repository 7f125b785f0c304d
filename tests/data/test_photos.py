"""Photographs of any size: the square is edited, everything else comes back as it was."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.test_profiles import ADOBE_RGB, profile
from utils.data.photos import load_photo
from utils.errors import UserError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 100, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    return tmp_path / "wide.png"


def test_the_square_is_centred_and_resampled(path: Path) -> None:
    photo = load_photo(path, 16)
    assert photo.box == (20, 0, 80, 60)
    expected = Image.open(path).crop(photo.box).resize((16, 16), Image.Resampling.LANCZOS)
    values = torch.from_numpy(np.array(expected, dtype=np.float32)).permute(2, 0, 1) / 127.5 - 1
    torch.testing.assert_close(photo.pixels, values)


def test_no_change_gives_back_the_photograph(path: Path) -> None:
    photo = load_photo(path, 16)
    reconstruction = torch.rand(3, 16, 16) * 2 - 1
    whole = photo.with_change(reconstruction, reconstruction)
    assert whole.tobytes() == Image.open(path).tobytes()


def test_a_change_stays_in_the_square(path: Path) -> None:
    photo = load_photo(path, 16)
    before = np.array(Image.open(path)).astype(int)
    grey = torch.zeros(3, 16, 16)
    after = np.array(photo.with_change(grey, grey + 0.2)).astype(int)
    assert after.shape == before.shape
    assert (after[:, :20] == before[:, :20]).all()
    assert (after[:, 80:] == before[:, 80:]).all()
    inside = before[:, 28:72]  # beyond the eighth of the side in which it fades; above and below, none does
    assert np.abs(after[:, 28:72] - np.clip(inside + 25.5, 0, 255)).max() <= 1


@pytest.mark.parametrize("size", [(96, 64), (64, 96), (65, 64)])
def test_a_change_fades_towards_the_sides_within_the_photograph(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    """Of a change of 100 levels no step is left that is seen; it stood 100 high before."""
    Image.new("RGB", size, (80, 80, 80)).save(tmp_path / "a.png")
    photo = load_photo(tmp_path / "a.png", 64)
    grey = torch.zeros(3, 64, 64)
    after = np.array(photo.with_change(grey, grey + 100 / 127.5)).astype(int)
    after = after[..., 0] if size[0] > size[1] else after[..., 0].T
    assert (after == after[0]).all()
    assert np.abs(np.diff(after[0])).max() <= 20  # half a cosine over 8 pixels: 100 * pi / 2 / 8
    assert after[0].max() == 180
    assert after[0, 0] == (80 if max(size) == 96 else 180)
    assert after[0, -1] == 80


def test_transparency_and_srgb_are_kept(tmp_path: Path) -> None:
    """The base sees white beneath; what is saved has the photograph's opacity, and no profile any more."""
    image = Image.new("RGBA", (24, 16), (200, 40, 90, 255))
    image.paste((10, 20, 30, 0), (0, 0, 12, 16))
    image.save(tmp_path / "a.png", icc_profile=profile(*ADOBE_RGB))
    photo = load_photo(tmp_path / "a.png", 16)
    assert (photo.pixels[:, :, 0] == 1).all()
    reconstruction = torch.rand(3, 16, 16)
    whole = photo.with_change(reconstruction, reconstruction)
    whole.save(tmp_path / "whole.png")
    saved = Image.open(tmp_path / "whole.png")
    assert saved.getchannel("A").tobytes() == image.getchannel("A").tobytes()
    assert "icc_profile" not in saved.info
    assert saved.getpixel((20, 8))[:3] == pytest.approx((233, 35, 91), abs=1)


def test_an_unreadable_photograph_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"bad\.png: expected a readable image"):
        load_photo(tmp_path / "bad.png", 16)
