"""Image files to pixels and back: tensors in [-1, 1], and 8-bit RGB images.

Whatever a camera or a paint program writes becomes the same thing: an upright sRGB image of 8 bits.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps, PngImagePlugin
from torch import Tensor

from utils.config.schema import choices
from utils.errors import UserError
from utils.files import FORMATS

MOST_TEXT = 64 * 2**20  # bytes of a PNG's texts and profile, unpacked; image generators write workflows there


def load_image(path: Path, resolution: int, resize: str = "error") -> Tensor:
    """Read one image as (3, resolution, resolution) float32 in [-1, 1].

    EXIF orientation is applied, transparency laid over white, and greyscale, 16-bit, CMYK and palette images
    become RGB. A square image is resampled (Lanczos); for any other, `resize` says what to do: "error",
    "stretch", or "center_crop" to the largest square. Raises `UserError` if the image cannot be read, or
    is not square under "error".
    """
    return to_tensor(fit_square(read_rgb(path), path, resolution, resize))


def read_rgb(path: Path) -> Image.Image:
    """Decode a file into an upright 8-bit sRGB image; of several frames, the first.

    Its colour profile is applied, transparency laid over white. Damaged metadata is passed over.

    Raises:
        UserError: a file that cannot be read, or is of none of `FORMATS`.
    """
    image = _decode(path)
    with suppress(Exception):  # damaged EXIF is no fault of the pixels: the image stays as it lies
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        return _from_deep_grey(image, path)
    if image.has_transparency_data:
        image = _to_srgb(image.convert("RGBA"), image.info.get("icc_profile"))
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return _to_srgb(image, image.info.get("icc_profile")).convert("RGB")


def _decode(path: Path) -> Image.Image:
    """The file's first frame as it is stored."""
    try:
        if path.stat().st_size == 0:
            raise UserError(f"{path}: expected an image, found an empty file")
        with _long_texts(), Image.open(path, formats=list(FORMATS)) as opened:
            opened.load()
            return opened
    except UserError:
        raise
    except Image.DecompressionBombError:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise UserError(
            f"{path}: expected an image of at most {most:.0f} million pixels, found more; scale it down first"
        ) from None
    # Pillow's decoders report damage by any exception there is: struct.error, KeyError, TypeError ...
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: expected a readable image, found {said}") from None


@contextmanager
def _long_texts() -> Iterator[None]:
    """Let Pillow unpack a PNG's texts up to `MOST_TEXT`; it refuses the whole image above 1 MiB."""
    before = PngImagePlugin.MAX_TEXT_CHUNK
    PngImagePlugin.MAX_TEXT_CHUNK = MOST_TEXT
    try:
        yield
    finally:
        PngImagePlugin.MAX_TEXT_CHUNK = before


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert an image from its ICC profile; one without, or with one that is damaged or misfit, stays.

    Relative colorimetric with black point compensation, as browsers and editors do.
    """
    if not profile:
        return image
    if image.mode == "P":
        image = image.convert("RGB")
    try:
        converted = ImageCms.profileToProfile(
            image,
            ImageCms.ImageCmsProfile(BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            "RGBA" if image.mode == "RGBA" else "RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image
    assert converted is not None  # not in place
    return converted


def _from_deep_grey(image: Image.Image, path: Path) -> Image.Image:
    """Scale 16-bit grey to 8 bits; Pillow's own convert would clip everything above 255 to white."""
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise UserError(f"{path}: expected 8 or 16 bits a channel, found Pillow mode {image.mode}")
    return Image.fromarray(np.round(values / 257.0).astype(np.uint8)).convert("RGB")


def fit_square(image: Image.Image, path: Path, resolution: int, resize: str) -> Image.Image:
    """Make the image resolution x resolution."""
    size = (resolution, resolution)
    if resize == "center_crop":
        return ImageOps.fit(image, size, Image.Resampling.LANCZOS)
    if resize == "error" and image.width != image.height:
        raise UserError(f"{path}: expected a square image, found {size_text(image)} ({other_rules()})")
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def to_tensor(image: Image.Image) -> Tensor:
    """(3, H, W) float32 in [-1, 1] of an RGB image."""
    pixels = torch.from_numpy(np.array(image, dtype=np.float32))
    return (pixels / 127.5 - 1).permute(2, 0, 1).contiguous()


def other_rules() -> str:
    return "or " + " or ".join(f"resize={rule}" for rule in choices("resize") if rule != "error")


def size_text(image: Image.Image) -> str:
    return f"{image.width} x {image.height}"


def to_images(pixels: Tensor) -> list[Image.Image]:
    """Turn pixels (B, 3, H, W) in [-1, 1] into B RGB images; values beyond the range are clipped.

    Raises:
        ValueError: another shape, or pixels that are not finite.
    """
    if pixels.ndim != 4 or pixels.shape[1] != 3:
        raise ValueError(f"expected pixels of shape (B, 3, H, W), found {tuple(pixels.shape)}")
    if not pixels.isfinite().all():
        raise ValueError("expected finite pixels, found NaN or infinity")
    bytes_ = ((pixels.detach().float().cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in bytes_]


def pixel_hash(pixels: Tensor) -> str:
    """A hash of an image (3, H, W) in [-1, 1] as learned from: of its 8-bit values, 16 hex digits."""
    values = ((pixels.detach().cpu() + 1) * 127.5).round().to(torch.uint8)
    return sha256(values.numpy().tobytes()).hexdigest()[:16]
