"""Photographs of any size: the square is edited, everything else comes back as it was."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

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
    inside = before[:, 20:80]
    assert np.abs(after[:, 20:80] - np.clip(inside + 25.5, 0, 255)).max() <= 1


def test_an_unreadable_photograph_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"bad\.png: expected a readable image"):
        load_photo(tmp_path / "bad.png", 16)
