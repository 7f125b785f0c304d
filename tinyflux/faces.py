"""The rendered training set: shards of uint8 images on disk, drawn once and memory-mapped ever after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from tinyflux.people import People, sample_people
from tinyflux.render import render

SHARD = 1024
_BATCH = 32


def to_uint8(images: Tensor) -> Tensor:
    """Images in [0, 1] as uint8."""
    return (images * 255).round().clamp(0, 255).to(torch.uint8)


def to_pixels(images: Tensor) -> Tensor:
    """uint8 images as float32 in [-1, 1], what the VAE and the probe take."""
    return images.float() / 127.5 - 1


def render_shards(
    folder: Path,
    seeds: Sequence[int],
    sample: Callable[[Sequence[int]], People] = sample_people,
    device: torch.device | str = "cpu",
) -> list[Path]:
    """Draw one face a seed into shards of `SHARD`, leaving alone those that are there already.

    Returns:
        The shards' paths, in the order of the seeds; each a uint8 tensor (SHARD, 3, H, W).
    """
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(seeds), SHARD)
    paths = [folder / f"{start:07d}.pt" for start in starts]
    for start, path in tqdm(
        list(zip(starts, paths, strict=True)), desc=f"faces: {folder.name}", unit="shard"
    ):
        if path.exists():
            continue
        own = seeds[start : start + SHARD]
        batches = [_render(sample(own[i : i + _BATCH]), device) for i in range(0, len(own), _BATCH)]
        unfinished = path.with_suffix(".part")
        torch.save(torch.cat(batches), unfinished)
        unfinished.rename(path)
    return paths


def _render(people: People, device: torch.device | str) -> Tensor:
    return to_uint8(render({name: value.to(device) for name, value in people.items()})).cpu()


class Faces:
    """uint8 images of many shards behind one index."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.shards = [torch.load(path, mmap=True, weights_only=True) for path in paths]

    def __len__(self) -> int:
        return sum(len(shard) for shard in self.shards)

    def __getitem__(self, index: Tensor) -> Tensor:
        """Images (B, 3, H, W) at `index` (B,)."""
        return torch.stack([self.shards[i // SHARD][i % SHARD] for i in index.tolist()])
