"""Finding images in folders. Nothing heavy is imported here, so that a study is checked at once."""

import re
from pathlib import Path

from utils.errors import UserError, nearest

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def find_images(folder: Path) -> dict[str, Path]:
    """Map stem to path for the images of a folder, in natural order; hidden and other files are passed over.

    Raises `UserError` on a missing folder (naming the datasets beside it), on one without images, and on a
    stem found twice.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: expected a folder of images, found none{_datasets_beside(folder)}")
    files = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.name[0] != "."]
    found: dict[str, Path] = {}
    for path in sorted(files, key=lambda path: (_natural(path.stem), path.name)):
        if path.stem in found:
            raise UserError(
                f"{folder}: expected one image a stem, found {found[path.stem].name} and {path.name}"
            )
        found[path.stem] = path
    if not found:
        raise UserError(f"{folder}: expected images ({' '.join(SUFFIXES)}), found none")
    return found


def _natural(stem: str) -> list[tuple[int, str]]:
    """Sort key that reads runs of digits as numbers."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", stem)]


def _datasets_beside(folder: Path) -> str:
    """Name the datasets that do have a folder of this name: datasets_folder/DATASET/folder."""
    datasets = folder.parent.parent
    there = sorted(path.parent.name for path in datasets.glob(f"*/{folder.name}") if path.is_dir())
    if not there:
        return f"; {datasets} has no dataset with a folder {folder.name!r}"
    return f"{nearest(folder.parent.name, there)}; datasets in {datasets}: {', '.join(there)}"
