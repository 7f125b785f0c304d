"""Reading generated images back: a slider's images as one tensor a scale, whoever made them.

`read_tree` reads what gen_image_script.py writes, SEED/skip14_scale0.40.png; `read_folders` any folders of
images of the same names, one folder a slider scale: before/ and after/ of another tool are scales 0 and 1.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from utils.data.pixels import read_rgb, to_tensor
from utils.errors import UserError
from utils.files import find_images

_FILE = re.compile(r"skip(?P<skip>\d+)_scale(?P<scale>-?\d+\.\d+)")


@dataclass(frozen=True)
class ImageSeries:
    """The same identities at every slider scale.

    Attributes:
        names: what the identities are called.
        images: {scale: (B, 3, H, W) float32 in [-1, 1]}, in ascending order of scale, 0 among them.
    """

    names: list[str]
    images: dict[float, Tensor]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of every image."""
        _, _, height, width = self.images[0.0].shape
        return width, height

    @property
    def scales(self) -> list[float]:
        """The slider scales, ascending."""
        return list(self.images)


def read_tree(
    folder: Path, skip: int, seeds: Collection[str] = (), scales: Collection[float] = ()
) -> ImageSeries:
    """Read a run's images, a folder a seed, at one skip.

    Args:
        folder: as `Run.seeds_folder`.
        skip: which of the skips there are.
        seeds, scales: those wanted; what else lies there may be of an earlier LoRA. None named: all.

    Raises:
        UserError: no such images, images of several LoRAs at once, another skip, seeds that lack a scale, no
            scale 0, or images of several sizes.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: expected images that gen_image_script.py wrote, found no such folder")
    found: dict[int, dict[float, dict[str, Path]]] = {}
    for path in sorted(folder.glob("*/skip*_scale*.png")):
        match = _FILE.fullmatch(path.stem)
        if (
            match
            and (not seeds or path.parent.name in seeds)
            and (not scales or float(match["scale"]) in scales)
        ):
            by_scale = found.setdefault(int(match["skip"]), {})
            by_scale.setdefault(float(match["scale"]), {})[path.parent.name] = path
    if not found:
        raise UserError(f"{folder}: expected images SEED/skipN_scaleX.png of one LoRA, found none")
    if skip not in found:
        raise UserError(f"{folder}: expected images of skip {skip}, found skips {sorted(found)}")
    return _series(found[skip], str(folder))


def read_folders(folders: Mapping[float, Path]) -> ImageSeries:
    """Read one folder of images a slider scale; images belong together by file stem.

    Raises:
        UserError: a missing or empty folder, stems that are not in all of them, no scale 0, or images of
            several sizes.
    """
    where = ", ".join(map(str, folders.values()))
    return _series({scale: find_images(folder) for scale, folder in folders.items()}, where)


def _series(paths: Mapping[float, Mapping[str, Path]], where: str) -> ImageSeries:
    names = list(dict.fromkeys(name for by_name in paths.values() for name in by_name))
    for scale, by_name in paths.items():
        if lacking := [name for name in names if name not in by_name]:
            raise UserError(
                f"{where}: expected every image at every scale, found no {lacking[0]} at {scale:g}"
            )
    if 0 not in paths or len(paths) < 2:
        raise UserError(f"{where}: expected images at scale 0 and others, found scales {sorted(paths)}")
    images: dict[float, Tensor] = {}
    for scale in sorted(paths):
        pixels = [to_tensor(read_rgb(paths[scale][name])) for name in names]
        sizes = {tuple(image.shape[1:]) for image in pixels} | {image.shape[2:] for image in images.values()}
        if len(sizes) > 1:
            raise UserError(f"{where}: expected images of one size, found {sorted(sizes)} (height, width)")
        images[scale] = torch.stack(pixels)
    return ImageSeries(names, images)
