"""utils/data/decoding.py: whatever a picture's colour profile, it comes in as sRGB."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from utils.data.pixels import read_rgb

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


def encoded(xyz: np.ndarray) -> list[float]:
    """XYZ under D50 in sRGB, by the formulas of IEC 61966-2-1, its matrix adapted to D50."""
    to_linear_srgb = np.linalg.inv(
        [[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]]
    )
    rgb = np.clip(to_linear_srgb @ xyz, 0, 1)
    return list(255 * np.where(rgb <= 0.0031308, 12.92 * rgb, 1.055 * rgb ** (1 / 2.4) - 0.055))


def converted(primaries: tuple[tuple[float, ...], ...], gamma: float) -> list[float]:
    """COLOR in sRGB."""
    return encoded(np.array(primaries).T @ (np.array(COLOR) / 255) ** gamma)


def pixel(path: Path) -> tuple[int, ...]:
    image = read_rgb(path)
    assert image.mode == "RGB"
    return tuple(np.asarray(image)[3, 3].tolist())


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


def grey_profile(gamma: float) -> bytes:
    """That of one channel, made of the above: another colour space, and one curve in place of three."""
    rgb = profile(ADOBE_RGB[0], gamma)
    return (rgb[:16] + b"GRAY" + rgb[20:]).replace(b"rTRC", b"kTRC")


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_profile_of_greys_is_applied(tmp_path: Path, mode: str, suffix: str) -> None:
    """Of linear light here: 100 of 255 is 168 in sRGB."""
    colour = {"L": 100, "LA": (100, 255), "I;16": 100 * 257}[mode]
    path = tmp_path / f"a.{suffix}"
    Image.new(mode, (8, 8), colour).save(path, icc_profile=grey_profile(1.0))
    assert pixel(path) == pytest.approx((168, 168, 168), abs=1)


@pytest.mark.parametrize("transparent", [False, True])
def test_a_profile_of_a_palette_is_applied(tmp_path: Path, transparent: bool) -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, *COLOR])
    options = {"transparency": 0} if transparent else {}
    image.save(tmp_path / "a.png", icc_profile=profile(*ADOBE_RGB), **options)
    assert pixel(tmp_path / "a.png") == pytest.approx((233, 35, 91), abs=1)


def of_lab(lightness: float, a: float, b: float) -> list[float]:
    """A colour of CIE Lab under D50 in sRGB, by the formulas of CIE 15 and IEC 61966-2-1."""
    f = (lightness + 16) / 116
    ratios = [t**3 if t > 6 / 29 else 3 * (6 / 29) ** 2 * (t - 4 / 29) for t in (f + a / 500, f, f - b / 200)]
    return encoded(np.array(D50) * ratios)


LAB_50_40_20 = of_lab(50, 40, 20)


def ink_profile() -> bytes:
    """A CMYK profile of one table (lut8Type of ICC.1): no ink is white, any ink Lab 50, 40, 20."""
    white, red = bytes((255, 128, 128)), bytes((128, 168, 148))
    ramp = bytes(range(256))
    table = b"".join(white if not corner else red for corner in range(2**4))
    matrix = struct.pack(">9i", *(65536 * (n % 4 == 0) for n in range(9)))
    lut = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + matrix + ramp * 4 + table + ramp * 3
    lut += bytes(-len(lut) % 4)
    tags = {b"wtpt": b"XYZ " + bytes(4) + struct.pack(">3i", *(round(v * 65536) for v in D50)), b"A2B0": lut}
    tags |= dict.fromkeys((b"A2B1", b"A2B2"), lut)
    offset, listing, data = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        listing += name + struct.pack(">II", offset + len(data), len(content))
        data += content
    header = struct.pack(">I4xI", offset + len(data), 0x02400000) + b"prtrCMYKLab " + bytes(12) + b"acsp"
    header = (header.ljust(68, b"\0") + struct.pack(">3i", *(round(v * 65536) for v in D50))).ljust(
        128, b"\0"
    )
    return header + struct.pack(">I", len(tags)) + listing + data


@pytest.mark.parametrize("suffix", ["tif", "jpg"])
def test_a_profile_of_inks_is_applied(tmp_path: Path, suffix: str) -> None:
    """Without the profile full cyan would be (0, 255, 255)."""
    path = tmp_path / f"a.{suffix}"
    options = {"quality": 100} if suffix == "jpg" else {}
    Image.new("CMYK", (8, 8), (255, 0, 0, 0)).save(path, icc_profile=ink_profile(), **options)
    assert pixel(path) == pytest.approx(LAB_50_40_20, abs=3)


def test_lab_becomes_srgb(tmp_path: Path) -> None:
    """L 50, a 40, b 20, stored in bytes of 255 / 100 and from 128 on."""
    Image.new("LAB", (8, 8), (128, 168, 148)).save(tmp_path / "a.tif")
    assert pixel(tmp_path / "a.tif") == pytest.approx(LAB_50_40_20, abs=2)


def test_a_deep_grey_keeps_its_transparent_level(tmp_path: Path) -> None:
    Image.new("I;16", (8, 8), 500).save(tmp_path / "a.png", transparency=500)
    assert pixel(tmp_path / "a.png") == (255, 255, 255)


def test_a_pictures_own_profile_is_not_written_into_another(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), COLOR).save(tmp_path / "a.png", icc_profile=b"damaged")
    read_rgb(tmp_path / "a.png").save(tmp_path / "b.png")
    assert "icc_profile" not in Image.open(tmp_path / "b.png").info
