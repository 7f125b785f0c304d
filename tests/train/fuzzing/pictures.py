"""Picture files: damaged, of absurd sizes, with damaged metadata."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache
from pathlib import Path
from random import Random

from PIL import Image

from tests.train.fuzzing import Workshop, kind, refused_or
from tests.train.fuzzing.values import spoiled
from utils.data.pixels import load_image

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "TGA", "PPM")
SUFFIXES = (".png", ".jpg", ".webp", ".tif")


@cache
def picture(form: str) -> bytes:
    """A good image file."""
    buffer = io.BytesIO()
    Image.effect_noise((32, 32), 60).convert("RGB").save(buffer, form)
    return buffer.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is of any size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(bytes(4096))) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def _chunk(form: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + form + data + struct.pack(">I", zlib.crc32(form + data))


def read(path: Path, data: bytes) -> str:
    """An image comes out right in kind, or one line does."""
    path.write_bytes(data)
    image = refused_or(lambda: load_image(path, 32, "center_crop"), path.name)
    if image is None:
        return "refused"
    assert image.shape == (3, 32, 32)
    assert image.abs().max() <= 1
    return "read"


@kind("picture", 120)
def damaged(draw: Random, shop: Workshop) -> str:
    """Damaged anywhere."""
    data = spoiled(draw, picture(draw.choice(FORMATS)))
    return read(shop.site / f"fuzz{draw.choice(SUFFIXES)}", data)


@kind("picture of any size", 20)
def huge(draw: Random, shop: Workshop) -> str:
    """A few bytes that say they are as large as can be."""
    sides = [draw.choice((0, 1, 70_000, 2**31 - 1, draw.randrange(2**31))) for _ in range(2)]
    return read(shop.site / "fuzz.png", bomb(*sides))


@kind("picture's metadata", 60)
def metadata(draw: Random, shop: Workshop) -> str:
    """EXIF, colour profiles and text that are no such thing."""
    form = draw.choice(("PNG", "JPEG", "WEBP", "TIFF"))
    start = draw.choice((b"Exif\0\0", b"Exif\0\0II*\0\x08\0\0\0", b"II*\0\x08\0\0\0\xff\xff", b""))
    own = {
        "exif": start + draw.randbytes(draw.randrange(120)),
        "icc_profile": draw.randbytes(draw.choice((0, 4, 128, 132, 400))),
        "xmp": draw.randbytes(draw.randrange(60)),
    }
    given = {key: content for key, content in own.items() if draw.random() < 0.6}
    buffer = io.BytesIO()
    image = Image.new(draw.choice(("RGB", "L")), (32, 32), 90)
    try:
        image.save(buffer, form, **given)
    except Exception:  # Pillow would not write it
        return "not made"
    return read(shop.site / f"fuzz.{form.lower()}", buffer.getvalue())
