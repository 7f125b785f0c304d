"""Image pairs: found by file stem, checked, and read into pixels.

Whatever a camera or a paint program writes becomes the same thing: an upright RGB image of 8 bits, of as many
pixels as the square of the base model's resolution and of its own aspect ratio, as a tensor in [-1, 1].
"""

from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from utils.data.buckets import size_text
from utils.data.pixels import fit_image, other_rules, read_rgb, to_tensor
from utils.data.shifts import find_shift, moved_back
from utils.errors import UserError
from utils.files import find_images


@dataclass(frozen=True)
class ImagePair:
    """One subject before and after the edit; pixels are (3, H, W) float32 in [-1, 1], of both the same H, W.

    `moved` is by how much the target lay (down, right) of its source before it was aligned.
    """

    stem: str
    source: Tensor
    target: Tensor
    source_path: Path
    target_path: Path
    moved: tuple[int, int] = (0, 0)


def load_pairs(
    source_folder: Path,
    target_folder: Path,
    resolution: int,
    resize: str = "error",
    count: int = 0,
    align: str = "none",
    multiple: int = 1,
) -> list[ImagePair]:
    """Read the pairs of two folders, the first `count` (0: all) in natural order of stems (2 before 10).

    Files pair up by stem, whatever their suffixes, never by position. See `fit_image` for `resize` and
    `multiple`: pairs may differ in size; with align="shift" a target that is moved as a whole is moved back,
    see `find_shift`. Raises `UserError` on a missing or empty folder, a stem found twice in one folder, a
    source without target or the reverse, fewer pairs than `count`, an image that cannot be read, and, with
    resize="error", unequal sizes within a pair and images too long for any size.
    """
    source_paths, target_paths = find_images(source_folder), find_images(target_folder)
    faults = _missing_partners(source_paths, target_paths, target_folder)
    faults += _missing_partners(target_paths, source_paths, source_folder)
    if count > len(source_paths):
        faults.append(f"{source_folder}: expected {count} pairs (pair_count), found {len(source_paths)}")
    if faults:
        raise UserError("; ".join(faults))
    chosen = list(source_paths.items())[: count or None]
    pairs = [
        _load_pair(stem, path, target_paths[stem], resolution, resize, multiple) for stem, path in chosen
    ]
    return [_aligned(pair) for pair in pairs] if align == "shift" else pairs


def _missing_partners(images: dict[str, Path], others: dict[str, Path], folder: Path) -> list[str]:
    lone = [str(path) for stem, path in images.items() if stem not in others]
    return [f"{folder}: expected an image of the same stem as {', '.join(lone)}, found none"] if lone else []


def _load_pair(
    stem: str, source_path: Path, target_path: Path, resolution: int, resize: str, multiple: int
) -> ImagePair:
    source, target = read_rgb(source_path), read_rgb(target_path)
    if resize == "error" and source.size != target.size:
        raise UserError(
            f"{target_path}: expected the size of its source, {size_text(source.size)}, "
            f"found {size_text(target.size)} ({other_rules()})"
        )
    return ImagePair(
        stem=stem,
        source=to_tensor(fit_image(source, source_path, resolution, resize, multiple)),
        target=to_tensor(fit_image(target, target_path, resolution, resize, multiple)),
        source_path=source_path,
        target_path=target_path,
    )


def _aligned(pair: ImagePair) -> ImagePair:
    shift = find_shift(pair.source, pair.target)
    return replace(pair, target=moved_back(pair.source, pair.target, *shift), moved=shift)
