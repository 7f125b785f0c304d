"""Image pairs: found by file stem, checked, and read into pixels.

Whatever a camera or a paint program writes becomes the same thing: an upright RGB image of 8 bits, square, of
the base model's resolution, as a tensor in [-1, 1].
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from utils.config.schema import RESIZE_RULES
from utils.errors import UserError
from utils.folders import find_images


@dataclass(frozen=True)
class ImagePair:
    """One subject before and after the edit; pixels are (3, H, W) float32 in [-1, 1]."""

    stem: str
    source: Tensor
    target: Tensor
    source_path: Path
    target_path: Path


def load_pairs(
    source_folder: Path, target_folder: Path, resolution: int, resize: str = "error", count: int = 0
) -> list[ImagePair]:
    """Read the pairs of two folders, the first `count` (0: all) in natural order of stems (2 before 10).

    Files pair up by stem, whatever their suffixes, never by position. See `load_image` for `resize`. Raises
    `UserError` on a missing or empty folder, a stem found twice in one folder, a source without target or the
    reverse, fewer pairs than `count`, an image that cannot be read, and, with resize="error", unequal sizes
    and images not square.
    """
    source_paths, target_paths = find_images(source_folder), find_images(target_folder)
    faults = _missing_partners(source_paths, target_paths, target_folder)
    faults += _missing_partners(target_paths, source_paths, source_folder)
    if count > len(source_paths):
        faults.append(f"{source_folder}: expected {count} pairs (pair_count), found {len(source_paths)}")
    if faults:
        raise UserError("; ".join(faults))
    chosen = list(source_paths.items())[: count or None]
    return [_load_pair(stem, path, target_paths[stem], resolution, resize) for stem, path in chosen]


def load_image(path: Path, resolution: int, resize: str = "error") -> Tensor:
    """Read one image as (3, resolution, resolution) float32 in [-1, 1].

    EXIF orientation is applied, transparency laid over white, and greyscale, 16-bit, CMYK and palette images
    become RGB. A square image is resampled (Lanczos); for any other, `resize` says what to do: "error",
    "stretch", or "center_crop" to the largest square. Raises `UserError` if the image cannot be read, or
    is not square under "error".
    """
    return to_tensor(_fit(read_rgb(path), path, resolution, resize))


def _missing_partners(images: dict[str, Path], others: dict[str, Path], folder: Path) -> list[str]:
    lone = [str(path) for stem, path in images.items() if stem not in others]
    return [f"{folder}: expected an image of the same stem as {', '.join(lone)}, found none"] if lone else []


def _load_pair(stem: str, source_path: Path, target_path: Path, resolution: int, resize: str) -> ImagePair:
    source, target = read_rgb(source_path), read_rgb(target_path)
    if resize == "error" and source.size != target.size:
        raise UserError(
            f"{target_path}: expected the size of its source, {_size(source)}, found {_size(target)} "
            f"({_other_rules()})"
        )
    return ImagePair(
        stem=stem,
        source=to_tensor(_fit(source, source_path, resolution, resize)),
        target=to_tensor(_fit(target, target_path, resolution, resize)),
        source_path=source_path,
        target_path=target_path,
    )


def read_rgb(path: Path) -> Image.Image:
    """Decode a file into an upright 8-bit RGB image; raises `UserError` if it cannot be read."""
    try:
        if path.stat().st_size == 0:
            raise UserError(f"{path}: expected an image, found an empty file")
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            image.load()
    # Pillow's decoders report damage by any of these; a zip bomb has an error of its own.
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: expected a readable image, found {' '.join(str(error).split())}") from None
    if image.mode.startswith("I") or image.mode == "F":
        return _from_deep_grey(image, path)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _from_deep_grey(image: Image.Image, path: Path) -> Image.Image:
    """Scale 16-bit grey to 8 bits; Pillow's own convert would clip everything above 255 to white."""
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise UserError(f"{path}: expected 8 or 16 bits a channel, found Pillow mode {image.mode}")
    return Image.fromarray(np.round(values / 257.0).astype(np.uint8)).convert("RGB")


def _fit(image: Image.Image, path: Path, resolution: int, resize: str) -> Image.Image:
    """Make the image resolution x resolution."""
    size = (resolution, resolution)
    if resize == "center_crop":
        return ImageOps.fit(image, size, Image.Resampling.LANCZOS)
    if resize == "error" and image.width != image.height:
        raise UserError(f"{path}: expected a square image, found {_size(image)} ({_other_rules()})")
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def to_tensor(image: Image.Image) -> Tensor:
    """(3, H, W) float32 in [-1, 1] of an RGB image."""
    pixels = torch.from_numpy(np.array(image, dtype=np.float32))
    return (pixels / 127.5 - 1).permute(2, 0, 1).contiguous()


def _other_rules() -> str:
    return "or " + " or ".join(f"resize={rule}" for rule in RESIZE_RULES if rule != "error")


def _size(image: Image.Image) -> str:
    return f"{image.width} x {image.height}"
