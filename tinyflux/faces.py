"""The rendered training set: shards of uint8 images on disk, drawn once and memory-mapped ever after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset

from tinyflux.people import People
from tinyflux.render import render
from utils.bars import Bar

SHARD = 1024
_BATCH = 8


def to_uint8(images: Tensor) -> Tensor:
    """Images in [0, 1] as uint8."""
    return (images * 255).round().clamp(0, 255).to(torch.uint8)


def to_pixels(images: Tensor) -> Tensor:
    """uint8 images as float32 in [-1, 1], what the VAE and the probe take."""
    return images.float() / 127.5 - 1


Draw = Callable[[Sequence[int]], Tensor]
"""Positions -> their uint8 images (B, 3, H, W)."""


def write_shards(folder: Path, count: int, draw: Draw) -> list[Path]:
    """Draw `count` images into shards of `SHARD`, leaving alone those that are there already.

    Returns:
        The shards' paths, in order; each a uint8 tensor (SHARD, 3, H, W), the last one perhaps shorter.
    """
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(0, count, SHARD)
    paths = [folder / f"{start:07d}.pt" for start in starts]
    for start, path in Bar(list(zip(starts, paths, strict=True)), desc=folder.name, unit="shard"):
        if path.exists():
            continue
        own = range(start, min(start + SHARD, count))
        images = torch.cat([draw(own[i : i + _BATCH]) for i in range(0, len(own), _BATCH)])
        unfinished = path.with_suffix(".part")
        torch.save(images, unfinished)
        unfinished.rename(path)
    return paths


def drawing(sample: Callable[[Sequence[int]], People], seeds: Sequence[int], device: torch.device) -> Draw:
    """Renders of the people that `sample` draws from `seeds`."""

    def draw(index: Sequence[int]) -> Tensor:
        people = sample([seeds[i] for i in index])
        return to_uint8(render({name: value.to(device) for name, value in people.items()})).cpu()

    return draw


class Faces:
    """uint8 images of many shards behind one index."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.images: ConcatDataset[Tensor] = ConcatDataset(
            [torch.load(path, mmap=True, weights_only=True) for path in paths]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Tensor) -> Tensor:
        """Images (B, 3, H, W) at `index` (B,)."""
        return torch.stack([self.images[i] for i in index.tolist()])
