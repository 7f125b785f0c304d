"""utils/data/pixels.py: every format comes in as its colours; any damage is one line."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from tests.data.test_profiles import ADOBE_RGB, COLOR, pixel, profile
from tests.train.fuzzing.pictures import bomb
from utils.data.pixels import load_image, read_rgb
from utils.data.salvage import without_metadata
from utils.errors import UserError
from utils.files import FORMATS, SUFFIXES, find_images

pytestmark = pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow's own remark

# --- formats ---

LOSSY = {"JPEG", "WEBP", "AVIF", "JPEG2000", "HEIF"}
PALETTES = {"GIF"}


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_every_format_is_read_under_each_of_its_suffixes(tmp_path: Path, name: str) -> None:
    if name == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
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


@pytest.mark.parametrize("name", ["c.psd", "c.cr2", "c"])
def test_a_file_that_is_not_read_is_named_and_never_left_out(tmp_path: Path, name: str) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError, match=rf"found {name}; save as one of these"):
        find_images(tmp_path)


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


def png_with(kind: bytes, data: bytes, checksum_error: int = 0) -> bytes:
    """A good PNG with one more chunk behind its header."""
    buffer = BytesIO()
    Image.new("RGB", (8, 8), COLOR).save(buffer, "PNG")
    chunk = struct.pack(">I", len(data)) + kind + data
    chunk += struct.pack(">I", zlib.crc32(kind + data) ^ checksum_error)
    return buffer.getvalue()[:33] + chunk + buffer.getvalue()[33:]


CHUNKS = [
    *("gAMA", "cHRM", "sRGB", "pHYs", "acTL", "fcTL", "eXIf"),
    *("tIME", "tEXt", "zTXt", "iTXt", "iCCP", "tRNS", "sBIT"),
]


@pytest.mark.filterwarnings("ignore:Invalid APNG")  # Pillow's own remark
@pytest.mark.parametrize("data", [b"", b"\1\2\3", b"a\0\5x", b"\xff" * 64], ids=["empty", "3", "5", "64"])
@pytest.mark.parametrize("kind", CHUNKS)
def test_a_png_is_read_whatever_its_other_chunks_hold(tmp_path: Path, kind: str, data: bytes) -> None:
    for checksum_error in (0, 1):
        (tmp_path / "a.png").write_bytes(png_with(kind.encode(), data, checksum_error))
        if (kind, data) != ("tRNS", b"\xff" * 64):  # that one names a colour, if not this one
            assert pixel(tmp_path / "a.png") == COLOR


def test_a_png_with_more_text_than_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("utils.data.decoding.MOST_TEXT", 1000)
    texts = PngImagePlugin.PngInfo()
    texts.add_text("workflow", "x" * 10_000, zip=True)
    Image.new("RGB", (8, 8), COLOR).save(tmp_path / "a.png", pnginfo=texts, icc_profile=profile(*ADOBE_RGB))
    assert pixel(tmp_path / "a.png") == pytest.approx((233, 35, 91), abs=1)  # the profile is kept


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_tiff_is_read_without_the_tags_that_keep_pillow_from_it(order: str) -> None:
    """Its directory can be read without a tag that is not of the pixels, and nothing moves."""
    start = b"II*\0" if order == "<" else b"MM\0*"
    tags = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 271: 9, 273: 300, 278: 8, 279: 64}
    entries = [struct.pack(f"{order}HHIHxx", tag, 99 if tag == 271 else 3, 1, tags[tag]) for tag in tags]
    directory = struct.pack(f"{order}H", len(entries)) + b"".join(entries) + bytes(4)
    data = (start + struct.pack(f"{order}I", 8) + directory).ljust(300, b"\0") + b"\x4d" * 64
    salvaged = [*without_metadata(data)]
    assert len(salvaged) == 2
    for each in salvaged:
        assert len(each) == len(data)
        image = Image.open(BytesIO(each))
        assert image.getpixel((3, 3)) == 0x4D
        assert 271 not in image.tag_v2
    assert [*without_metadata(data[:20])] == []


def test_damaged_pixels_are_not_salvaged(tmp_path: Path) -> None:
    for suffix in ("png", "tif"):
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
        path.write_bytes(path.read_bytes()[:-40])
        with pytest.raises(UserError, match=r"expected a readable image"):
            read_rgb(path)


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
    with pytest.raises(UserError, match=r"at most 179 million pixels \(358 in a JPEG\), found more; scale"):
        read_rgb(tmp_path / "a.png")


def test_a_jpeg_beyond_the_bound_is_read_at_half_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("utils.data.decoding.MOST_PIXELS", 63 * 64)
    monkeypatch.setattr("utils.data.decoding.MOST_PIXELS_JPEG", 2 * 63 * 64)
    for name in ("a.jpg", "a.png"):
        Image.new("RGB", (64, 64), COLOR).save(tmp_path / name)
    assert read_rgb(tmp_path / "a.jpg").size == (32, 32)
    assert "read as 32 x 32" in capsys.readouterr().err
    with pytest.raises(UserError, match="found more; scale it down first"):
        read_rgb(tmp_path / "a.png")
    Image.new("RGB", (128, 64), COLOR).save(tmp_path / "b.jpg")
    with pytest.raises(UserError, match="found more; scale it down first"):
        read_rgb(tmp_path / "b.jpg")


def test_an_heic_without_its_reader_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under any suffix: telephones and messengers call them .jpg."""
    monkeypatch.setattr("utils.data.decoding._formats", lambda: ["PNG", "JPEG"])
    for name in ("a.heic", "a.jpg"):
        (tmp_path / name).write_bytes(struct.pack(">I", 24) + b"ftypheic" + bytes(12))
        with pytest.raises(
            UserError, match=r"found an HEIC; pip install -e '\.\[heic\]' installs what reads it"
        ):
            read_rgb(tmp_path / name)


# --- sizes ---


def test_an_image_keeps_its_aspect_ratio_or_becomes_the_square(tmp_path: Path) -> None:
    path = tmp_path / "wide.png"
    image = Image.new("RGB", (24, 8), "black")
    image.paste((255, 255, 255), (8, 0, 16, 8))  # black, white, black thirds
    image.save(path)
    whole = load_image(path, 64, multiple=2)
    assert whole.shape == (3, 36, 110)  # 64^2 pixels, as far as even numbers go
    assert whole[:, :, 0].max() == -1
    assert whole[:, :, -1].max() == -1
    assert whole[:, :, 55].min() == 1
    assert (load_image(path, 8, "center_crop") == 1).all()
    stretched = load_image(path, 24, "stretch")
    assert stretched.shape == (3, 24, 24)
    assert stretched[:, :, 0].max() == -1
    assert stretched[:, :, 12].min() == 1


def test_a_square_image_has_the_pixels_of_a_plain_resize(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    for resolution in (32, 50, 64):
        plain = Image.fromarray(pixels).resize((resolution, resolution), Image.Resampling.LANCZOS)
        expected = torch.from_numpy(np.array(plain, dtype=np.float32)).permute(2, 0, 1) / 127.5 - 1
        for rule in ("error", "stretch", "center_crop"):
            assert torch.equal(load_image(tmp_path / "a.png", resolution, rule), expected)
