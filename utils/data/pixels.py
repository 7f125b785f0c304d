"""Image files to pixels and back: tensors in [-1, 1], and 8-bit RGB images.

Whatever a camera or a paint program writes becomes the same thing: an upright sRGB image of 8 bits.
"""

from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn.functional import interpolate

from utils.config.schema import choices
from utils.data.buckets import Size, bucket_size, crop_box
from utils.data.decoding import read_layers


def load_image(path: Path, resolution: int, resize: str = "error", multiple: int = 1) -> Tensor:
    """Read one image as (3, H, W) float32 in [-1, 1], of the size that `fit_image` gives it.

    EXIF orientation is applied, transparency laid over white, and greyscale, 16-bit, CMYK and palette images
    become RGB. Raises `UserError` if the image cannot be read, or as `fit_image`.
    """
    return to_tensor(fit_image(read_rgb(path), path, resolution, resize, multiple))


def load_cropped(path: Path, size: Size) -> Tensor:
    """Read one image as (3, H, W) float32 in [-1, 1] of a given size, cropped to its aspect ratio."""
    return to_tensor(cropped(read_rgb(path), size))


def read_rgb(path: Path) -> Image.Image:
    """Decode a file into an upright 8-bit sRGB image, transparency laid over white; see `read_layers`."""
    colours, opacity = read_layers(path)
    return colours if opacity is None else over_white(colours, opacity)


def over_white(colours: Image.Image, opacity: Image.Image) -> Image.Image:
    """An RGB image as it looks on white where `opacity`, of mode L, lets it through."""
    layer = colours.copy()
    layer.putalpha(opacity)
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def fit_image(
    image: Image.Image, path: Path, resolution: int, resize: str = "error", multiple: int = 1
) -> Image.Image:
    """Make the image as large as a base takes it, by Lanczos.

    Args:
        image: of any size.
        path: names it in the error.
        resolution: side of the square of the area wanted.
        resize: "stretch" and "center_crop" make it that square, of all of it and of the largest square in
            its middle; under "error" it keeps its aspect ratio, see `bucket_size`.
        multiple: of its sides.

    Raises:
        UserError: an image so long that no size takes it.
    """
    square = (resolution, resolution)
    if resize == "center_crop":
        return ImageOps.fit(image, square, Image.Resampling.LANCZOS)
    if resize == "stretch":
        return resampled(image, square)
    return cropped(image, bucket_size(*image.size, resolution, multiple, path))


def cropped(image: Image.Image, size: Size) -> Image.Image:
    """The image at a size, of the largest box in its middle that has the size's aspect ratio."""
    return resampled(image.crop(crop_box(image.size, size)), size)


def resampled(image: Image.Image, size: Size) -> Image.Image:
    """The whole image at a size, by Lanczos."""
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def covering(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Pixels (B, 3, H, W) at a size (height, width), cropped to its aspect ratio, by antialiased bilinear."""
    height, width = pixels.shape[2:]
    left, upper, right, lower = crop_box((width, height), size[::-1])
    inner = pixels[:, :, upper:lower, left:right]
    return inner if inner.shape[2:] == size else interpolate(inner, size, mode="bilinear", antialias=True)


def to_tensor(image: Image.Image) -> Tensor:
    """(3, H, W) float32 in [-1, 1] of an RGB image."""
    pixels = torch.from_numpy(np.array(image, dtype=np.float32))
    return (pixels / 127.5 - 1).permute(2, 0, 1).contiguous()


def other_rules() -> str:
    """The values of `resize` that take any images, as an error says them."""
    return "or " + " or ".join(f"resize={rule}" for rule in choices("resize") if rule != "error")


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
