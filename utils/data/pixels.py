"""Image files to pixels and back: tensors in [-1, 1], and 8-bit RGB images.

Whatever a camera or a paint program writes becomes the same thing: an upright sRGB image of 8 bits.
"""

from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from utils.config.schema import choices
from utils.data.decoding import read_layers
from utils.errors import UserError


def load_image(path: Path, resolution: int, resize: str = "error") -> Tensor:
    """Read one image as (3, resolution, resolution) float32 in [-1, 1].

    EXIF orientation is applied, transparency laid over white, and greyscale, 16-bit, CMYK and palette images
    become RGB. A square image is resampled (Lanczos); for any other, `resize` says what to do: "error",
    "stretch", or "center_crop" to the largest square. Raises `UserError` if the image cannot be read, or
    is not square under "error".
    """
    return to_tensor(fit_square(read_rgb(path), path, resolution, resize))


def read_rgb(path: Path) -> Image.Image:
    """Decode a file into an upright 8-bit sRGB image, transparency laid over white; see `read_layers`."""
    colours, opacity = read_layers(path)
    return colours if opacity is None else over_white(colours, opacity)


def over_white(colours: Image.Image, opacity: Image.Image) -> Image.Image:
    """An RGB image as it looks on white where `opacity`, of mode L, lets it through."""
    layer = colours.copy()
    layer.putalpha(opacity)
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


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
