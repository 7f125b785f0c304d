"""Faces found, images cropped and cut out, on a real photograph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.prepare.mini_onnx import save_pooling, save_redness
from utils.errors import UserError
from utils.prepare.backgrounds import REMOVERS, filled
from utils.prepare.crops import CROPPERS, around, square_around
from utils.prepare.faces import WEIGHTS, Box, find_faces
from utils.prepare.networks import LiteNetwork
from utils.prepare.options import Options, load_tool

OPTIONS = Options(Path("photographs"), "mine", margin=0.6)
FACE = Box(172, 67, 277, 172)


@pytest.fixture(scope="module")
def network() -> LiteNetwork:
    return LiteNetwork(WEIGHTS)


def placed(image: Image.Image, scale: float, at: tuple[int, int], size: tuple[int, int]) -> Image.Image:
    """An image in another, of grey."""
    canvas = Image.new("RGB", size, "grey")
    side = round(image.width * scale)
    canvas.paste(image.resize((side, side), Image.Resampling.LANCZOS), at)
    return canvas


def is_near(found: Box, wanted: Box, tolerance: float) -> bool:
    return bool(np.abs(np.array(found) - np.array(wanted)).max() < tolerance * wanted.width)


@pytest.mark.parametrize(
    ("scale", "at", "size"),
    [
        (1.0, (0, 0), (512, 512)),
        (1.0, (700, 100), (1400, 700)),
        (0.5, (20, 380), (640, 700)),
        (0.25, (900, 40), (1100, 640)),
        (4.0, (-660, -240), (512, 512)),
    ],
    ids=["portrait", "wide", "tall", "far", "close"],
)
def test_a_face_is_found_wherever_and_however_large_it_is(
    astronaut: Image.Image,
    network: LiteNetwork,
    scale: float,
    at: tuple[int, int],
    size: tuple[int, int],
) -> None:
    (face,) = find_faces(placed(astronaut, scale, at, size), network)
    wanted = Box(*(scale * edge + at[index % 2] for index, edge in enumerate(FACE)))
    assert is_near(face, wanted, 0.25), (face, wanted)


def test_the_largest_of_two_faces_comes_first_and_is_cropped_to(
    astronaut: Image.Image, network: LiteNetwork
) -> None:
    both = placed(astronaut, 1.0, (512, 0), (1024, 512))
    both.paste(astronaut.resize((300, 300)), (50, 100))
    first, second = find_faces(both, network)
    assert is_near(first, Box(FACE.left + 512, FACE.top, FACE.right + 512, FACE.bottom), 0.15)
    assert second.right < 512
    crop = load_tool("crop", CROPPERS, "face", "", OPTIONS)(both)
    assert crop is not None
    assert crop.note == "the largest of 2 faces"
    left, top, right, bottom = crop.box
    assert right - left == bottom - top == pytest.approx(105 * 2.2, abs=20)


def test_without_anybody_there_is_nothing_to_crop_to() -> None:
    for name in CROPPERS:
        assert load_tool("crop", CROPPERS, name, "", OPTIONS)(Image.new("RGB", (200, 120), "grey")) is None


def test_a_crop_stays_inside_its_image() -> None:
    assert square_around(Box(0, 0, 40, 50), 0.5, (300, 200)) == (0, 0, 100, 100)
    assert square_around(Box(280, 90, 300, 110), 1, (300, 200)) == (240, 70, 300, 130)
    assert square_around(Box(100, 50, 200, 150), 2, (300, 200)) == (50, 0, 250, 200)
    assert around(Box(10, 20, 50, 100), 0.5, (300, 200)) == (0, 0, 90, 140)


def test_a_person_is_cut_out(astronaut: Image.Image) -> None:
    mask = load_tool("background", REMOVERS, "person", "", OPTIONS)(astronaut)
    assert (mask.mode, mask.size) == ("L", astronaut.size)
    values = np.asarray(mask)
    assert values[119, 225] > 250  # the face
    assert values[350, 200] > 250  # the suit
    assert values[60, 400] < 5  # the rocket
    assert values[30, 110] < 5  # the wall
    cut = filled(astronaut, mask, (0, 255, 0))
    assert cut.getpixel((400, 60)) == (0, 255, 0)
    assert cut.getpixel((225, 119)) == astronaut.getpixel((225, 119))


@pytest.mark.parametrize("name", ["u2net", "isnet"])
def test_a_network_in_onnx_says_what_stands_out(tmp_path: Path, name: str) -> None:
    save_redness(tmp_path / "net.onnx")
    image = Image.new("RGB", (64, 32), "black")
    image.paste("red", (0, 0, 32, 32))
    mask = np.asarray(load_tool("background", REMOVERS, name, str(tmp_path / "net.onnx"), OPTIONS)(image))
    assert mask.shape == (32, 64)
    assert mask[:, :20].min() >= 250
    assert mask[:, 44:].max() <= 5


def test_weights_that_are_missing_or_others_are_told_with_what_to_do(tmp_path: Path) -> None:
    def refused(weights: str) -> str:
        with pytest.raises(UserError) as error:
            load_tool("background", REMOVERS, "u2net", weights, OPTIONS)
        return str(error.value)

    remedy = "to have it: --background-weights=FILE, an .onnx file such as u2net.onnx"
    assert refused("").startswith(f"u2net: not available: no weights named; {remedy}")
    assert remedy in refused(str(tmp_path / "none.onnx"))
    (tmp_path / "page.onnx").write_text("<html>not found</html>")
    assert remedy in refused(str(tmp_path / "page.onnx"))
    save_pooling(tmp_path / "tagger.onnx", np.ones((3, 5)))
    assert "expected a network that reads (1, 3, H, W), found [1, 8, 8, 3]" in refused(
        str(tmp_path / "tagger.onnx")
    )
    with pytest.raises(UserError, match=r"--background-weights: expected none, as person takes no others"):
        load_tool("background", REMOVERS, "person", "x.onnx", OPTIONS)


def test_a_missing_extra_is_told_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("utils.prepare.options.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"expected the package ai-edge-litert, found none; pip install -e '"):
        load_tool("crop", CROPPERS, "face", "", OPTIONS)
