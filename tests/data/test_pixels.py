"""utils/data/pixels.py: every format and profile comes in as its colours; any damage is one line."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from tests.train.fuzzing.pictures import bomb
from utils.data.pixels import read_rgb
from utils.errors import UserError
from utils.files import FORMATS, SUFFIXES, find_images

pytestmark = pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow's own remark

COLOR = (200, 40, 90)

# Primaries under D50, columns of the matrix RGB -> XYZ, and gamma; from the two standards' ICC profiles.
ADOBE_RGB = (
    ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)),
    563 / 256,
)
P3_GAMMA = (((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)), 2.2)
D50 = (0.9642, 1.0, 0.8249)


def profile(primaries: tuple[tuple[float, ...], ...], gamma: float) -> bytes:
    """A matrix profile put together as ICC.1 has it: a header, a table of tags, the tags."""

    def xyz(values: tuple[float, ...]) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))

    curve = b"curv\0\0\0\0" + struct.pack(">IHxx", 1, round(gamma * 256))
    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(4 + 4 + 2 + 1 + 67)
    tags = {b"desc": text + bytes(-len(text) % 4), b"wtpt": xyz(D50)}
    tags |= {name: xyz(column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)

    offset, table, data = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        table += name + struct.pack(">II", offset + len(data), len(content))
        data += content
    size = offset + len(data)
    header = struct.pack(">I4xI", size, 0x02400000) + b"mntrRGB XYZ " + bytes(12) + b"acsp"
    header = header.ljust(68, b"\0") + xyz(D50)[8:]
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


def converted(primaries: tuple[tuple[float, ...], ...], gamma: float) -> list[float]:
    """COLOR in sRGB by the formulas of IEC 61966-2-1, its matrix adapted to D50."""
    linear = np.array(primaries).T @ (np.array(COLOR) / 255) ** gamma
    to_linear_srgb = np.linalg.inv(
        [[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]]
    )
    rgb = np.clip(to_linear_srgb @ linear, 0, 1)
    encoded = np.where(rgb <= 0.0031308, 12.92 * rgb, 1.055 * rgb ** (1 / 2.4) - 0.055)
    return list(encoded * 255)


def pixel(path: Path) -> tuple[int, ...]:
    image = read_rgb(path)
    assert image.mode == "RGB"
    return tuple(np.asarray(image)[3, 3].tolist())


# --- formats ---

LOSSY = {"JPEG", "WEBP", "AVIF", "JPEG2000"}
PALETTES = {"GIF"}


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_every_format_is_read_under_each_of_its_suffixes(tmp_path: Path, name: str) -> None:
    for number, suffix in enumerate(FORMATS[name]):
        Image.new("RGB", (16, 16), COLOR).save(tmp_path / f"{number}{suffix.upper()}", format=name)
    found = find_images(tmp_path)
    assert len(found) == len(FORMATS[name])
    for path in found.values():
        assert pixel(path) == pytest.approx(COLOR, abs=6 if name in LOSSY | PALETTES else 0)


def test_no_suffix_stands_for_two_formats() -> None:
    assert len(set(SUFFIXES)) == len(SUFFIXES)


@pytest.mark.parametrize("name", ["EPS", "PDF"])
def test_a_format_that_starts_a_program_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    Image.new("RGB", (8, 8), COLOR).save(tmp_path / "a.png", format=name)
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("a program was started"))
    with pytest.raises(UserError, match=r"a\.png: expected a readable image, found cannot identify"):
        read_rgb(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["c.psd", "c.cr2", "c.heic", "c"])
def test_a_file_that_is_not_read_is_named_and_never_left_out(tmp_path: Path, name: str) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError, match=rf"found {name}; save as one of these"):
        find_images(tmp_path)


# --- colour profiles ---


@pytest.mark.parametrize("space", [ADOBE_RGB, P3_GAMMA], ids=["Adobe RGB", "P3"])
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_a_profile_is_applied(
    tmp_path: Path, space: tuple[tuple[tuple[float, ...], ...], float], suffix: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.new("RGB", (8, 8), COLOR).save(path, icc_profile=profile(*space))
    assert pixel(path) == pytest.approx(converted(*space), abs=5 if suffix == "jpg" else 1.5)


def test_adobe_rgb_by_the_known_value(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), COLOR).save(tmp_path / "a.png", icc_profile=profile(*ADOBE_RGB))
    assert pixel(tmp_path / "a.png") == pytest.approx((233, 35, 91), abs=1)


def test_a_profile_and_transparency_together(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (*COLOR, 51)).save(tmp_path / "a.png", icc_profile=profile(*ADOBE_RGB))
    over_white = [0.2 * level + 0.8 * 255 for level in converted(*ADOBE_RGB)]
    assert pixel(tmp_path / "a.png") == pytest.approx(over_white, abs=1.5)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1"])
@pytest.mark.parametrize("icc", [b"x", profile(*ADOBE_RGB)[:200], bytes(300)], ids=["byte", "cut", "zeros"])
def test_a_damaged_profile_leaves_the_pixels(tmp_path: Path, mode: str, icc: bytes) -> None:
    plain = Image.new("RGBA", (8, 8), (*COLOR, 255)).convert(mode)
    plain.save(tmp_path / "plain.png")
    plain.save(tmp_path / "a.png", icc_profile=icc)
    assert pixel(tmp_path / "a.png") == pixel(tmp_path / "plain.png")


# --- metadata and damage ---


def test_a_png_with_long_texts_and_a_long_profile(tmp_path: Path) -> None:
    """Image generators write whole workflows there; Pillow alone refuses the image."""
    texts = PngImagePlugin.PngInfo()
    texts.add_text("workflow", "x" * (3 * 2**20), zip=True)
    Image.new("RGB", (8, 8), COLOR).save(tmp_path / "a.png", pnginfo=texts, icc_profile=bytes(3 * 2**20))
    before = PngImagePlugin.MAX_TEXT_CHUNK
    assert pixel(tmp_path / "a.png") == COLOR
    assert before == PngImagePlugin.MAX_TEXT_CHUNK


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x04\0\0\0ab\0\0",  # an orientation that is text
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01\x03\0",
        b"\0" * 40,
    ],
)
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_damaged_exif_leaves_the_pixels(tmp_path: Path, exif: bytes, suffix: str) -> None:
    Image.new("RGB", (8, 8), COLOR).save(tmp_path / f"a.{suffix}", exif=exif)
    assert pixel(tmp_path / f"a.{suffix}") == pytest.approx(COLOR, abs=4)


@pytest.mark.parametrize(
    "fault", [struct.error("x"), KeyError("x"), TypeError(), zlib.error("x"), MemoryError()]
)
def test_whatever_a_decoder_raises_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")

    def fail(*_: object) -> None:
        raise fault

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", fail)
    with pytest.raises(UserError, match=r"a\.png: expected a readable image, found \S+$"):
        read_rgb(tmp_path / "a.png")


def test_an_image_beyond_the_bound_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(bomb(20_000, 20_000))
    with pytest.raises(UserError, match=r"at most 179 million pixels, found more; scale it down"):
        read_rgb(tmp_path / "a.png")
