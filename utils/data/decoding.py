"""Image files to upright sRGB of 8 bits and, where there is any, transparency.

Damage outside the pixels themselves, in texts, EXIF or a profile, is passed over. What is too large is
refused before it is decoded.
"""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps, PngImagePlugin

from utils.data.salvage import SALVAGED, without_metadata
from utils.errors import UserError
from utils.files import FORMATS

MOST_PIXELS = 178_956_970
"""Of a picture as it is decoded: 0.7 GB, and as much again for each conversion. Pillow's own bound."""
MOST_PIXELS_JPEG = 2 * MOST_PIXELS
"""Of a JPEG, which is read at half its size, each way, where it has more than the other bound."""
MOST_TEXT = 64 * 2**20  # bytes of a PNG's texts and profile, unpacked; image generators write workflows there

_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_TURNED = (5, 6, 7, 8)  # EXIF orientations by which width becomes height
_OPAQUE = {"LA": "L", "L": "L", "1": "L", "CMYK": "CMYK", "LAB": "LAB"}


def read_layers(path: Path) -> tuple[Image.Image, Image.Image | None]:
    """Decode a file; of several frames, the first.

    Returns:
        Its colours, upright sRGB of 8 bits; its opacity, of mode L, or None where all is opaque.

    Raises:
        UserError: a file that cannot be read, is too large, or is of none of `FORMATS`.
    """
    image = _decode(path)
    with suppress(Exception):  # damaged EXIF is no fault of the pixels: the image stays as it lies
        image = ImageOps.exif_transpose(image)
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I") or image.mode == "F":
        opacity, opaque = _deep_opacity(image), _deep_grey(image, path)
    else:
        layers = image.convert("RGBA") if image.has_transparency_data else None
        opacity = layers.getchannel("A") if layers else None
        # the greys and inks that a profile of their own may be of; all else is RGB
        wanted = _OPAQUE.get(image.mode, "RGB")
        opaque = (layers if layers and wanted == "RGB" else image).convert(wanted)
    colours = _to_srgb(opaque, profile)
    colours.info = {}  # else a file's own profile would be written into pictures that are sRGB by now
    return colours, opacity


def read_size(path: Path) -> tuple[int, int]:
    """(width, height) of a file as `read_layers` has it upright, as a rule without decoding it.

    Raises:
        UserError: as `read_layers`, of a file whose head can't be read.
    """
    # what Pillow says of a damaged head, `read_layers` says in words, if it can't do without it
    with suppress(Exception), _pillow_bounds(), Image.open(path, formats=_formats()) as opened:
        if opened.width * opened.height <= MOST_PIXELS:
            turned = opened.getexif().get(ExifTags.Base.Orientation, 1) in _TURNED
            return (opened.height, opened.width) if turned else opened.size
    return read_layers(path)[0].size


# --- decoding ---


def _decode(path: Path) -> Image.Image:
    """The file's first frame as it is stored, its metadata as far as they can be read."""
    try:
        if path.stat().st_size == 0:
            raise UserError(f"{path}: expected an image, found an empty file")
        return _load(path, path)
    except UserError:
        raise
    except Image.DecompressionBombError:
        raise UserError(_too_large(path)) from None
    # Pillow's decoders report damage by any exception there is: struct.error, KeyError, TypeError ...
    except Exception as error:
        if (salvaged := _salvage(path)) is not None:
            return salvaged
        said = _heif_advice(path) or " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: expected a readable image, found {said}") from None


def _load(file: Path | BytesIO, path: Path) -> Image.Image:
    """Open, check the size and decode; raises whatever Pillow does, and `UserError` for too many pixels."""
    with _pillow_bounds(), Image.open(file, formats=_formats()) as opened:
        found = opened.width * opened.height
        if found > MOST_PIXELS:
            if opened.format not in ("JPEG", "MPO"):
                raise UserError(_too_large(path))
            opened.draft(None, (opened.width // 2, opened.height // 2))
            size = f"{opened.width} x {opened.height}"
            print(f"{path}: {found / 1e6:.0f} million pixels, read as {size}", file=sys.stderr)
        opened.load()
        return opened


def _salvage(path: Path) -> Image.Image | None:
    """The picture without its metadata; None if the pixels can't be read either."""
    if not _head(path).startswith(SALVAGED):
        return None
    for data in without_metadata(path.read_bytes()):
        with suppress(Exception):
            return _load(BytesIO(data), path)
    return None


def _head(path: Path) -> bytes:
    """The first bytes, which tell the format; none of what is no file or may not be read."""
    try:
        with path.open("rb") as stream:
            return stream.read(12)
    except OSError:
        return b""


def _too_large(path: Path) -> str:
    return (
        f"{path}: expected an image of at most {MOST_PIXELS / 1e6:.0f} million pixels "
        f"({MOST_PIXELS_JPEG / 1e6:.0f} in a JPEG), found more; scale it down first"
    )


@contextmanager
def _pillow_bounds() -> Iterator[None]:
    """Pillow's own bounds set to those here: on texts, beyond which it refuses a PNG, and on pixels.

    It refuses twice as many pixels as its bound, and warns in between.
    """
    before = PngImagePlugin.MAX_TEXT_CHUNK, Image.MAX_IMAGE_PIXELS
    PngImagePlugin.MAX_TEXT_CHUNK, Image.MAX_IMAGE_PIXELS = MOST_TEXT, MOST_PIXELS_JPEG // 2
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            yield
    finally:
        PngImagePlugin.MAX_TEXT_CHUNK, Image.MAX_IMAGE_PIXELS = before


@cache
def _formats() -> list[str]:
    """Those of `FORMATS` that Pillow, with what is installed beside it, can open."""
    with suppress(ImportError):  # an extra; `_heif_advice` says how to get it
        from pillow_heif import register_heif_opener

        register_heif_opener()
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _heif_advice(path: Path) -> str:
    """What to do about an HEIC, whatever its suffix, where nothing reads it; "" = it is none, or was read."""
    head = _head(path)
    if "HEIF" in _formats() or head[4:8] != b"ftyp" or head[8:12] not in _HEIF_BRANDS:
        return ""
    return "an HEIC; pip install -e '.[heic]' installs what reads it, or save it as JPEG or PNG"


# --- colours ---


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert an opaque image from its ICC profile to RGB; one that is damaged or misfit counts as none.

    Relative colorimetric with black point compensation, as browsers and editors do.
    """
    if profile:
        with suppress(ImageCms.PyCMSError, OSError, ValueError, TypeError):
            converted = ImageCms.profileToProfile(
                image,
                ImageCms.ImageCmsProfile(BytesIO(profile)),
                ImageCms.createProfile("sRGB"),
                ImageCms.Intent.RELATIVE_COLORIMETRIC,
                "RGB",
                flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )
            assert converted is not None  # not in place
            return converted
    return (_to_eight_bits(image) if image.mode == "I;16" else image).convert("RGB")


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey; Pillow's own convert would clip everything above 255 to white."""
    return Image.fromarray(np.round(np.asarray(image) / 257.0).astype(np.uint8))


def _deep_grey(image: Image.Image, path: Path) -> Image.Image:
    """Any grey of more than 8 bits as 16 bits, of mode I;16."""
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise UserError(f"{path}: expected 8 or 16 bits a channel, found Pillow mode {image.mode}")
    return Image.fromarray(values.astype(np.uint16))


def _deep_opacity(image: Image.Image) -> Image.Image | None:
    """Where a 16-bit grey is not the one that its file calls transparent."""
    transparent = image.info.get("transparency")
    if not isinstance(transparent, int):
        return None
    return Image.fromarray(np.where(np.asarray(image) == transparent, 0, 255).astype(np.uint8))
