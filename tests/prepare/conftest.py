"""Networks in miniature, and the photograph that ships."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import TRAIN
from tests.prepare.mini_captioners import SAVED
from tests.prepare.mini_onnx import save_pooling
from utils.data.pixels import read_rgb

PHOTOGRAPH = TRAIN / "photographs" / "astronaut.jpg"


@pytest.fixture(scope="session")
def astronaut() -> Image.Image:
    """A woman whose face is 105 pixels wide around (225, 119) of 512 x 512."""
    return read_rgb(PHOTOGRAPH)


@pytest.fixture(scope="session")
def captioner_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a captioner's network in miniature, made once."""

    @cache
    def folder(name: str) -> Path:
        made = tmp_path_factory.mktemp(name)
        SAVED[name](made)
        return made

    return folder


@pytest.fixture
def wd14_folder(tmp_path: Path) -> Path:
    """A tagger that is as sure of each of three colours as an image has of it, and then some."""
    folder = tmp_path / "wd14"
    folder.mkdir()
    weights = np.array([[0, 0, 1, 0, 0.5], [0, 1, 0, 0, 0], [1, 0, 0, 0, 0]], dtype=np.float32)  # of B, G, R
    save_pooling(folder / "model.onnx", weights / 255)
    rows = ("red_hair,0", "green_hair,0", "blue_hair,0", "sensitive,9", "red_riding_hood,4")
    table = ["tag_id,name,category,count", *(f"{index},{row},9" for index, row in enumerate(rows))]
    (folder / "selected_tags.csv").write_text("\n".join(table) + "\n")
    return folder
