"""What judges see images by: outside networks, the probe of a rendered world, the base itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from utils.config.schema import Config
from utils.data.buckets import size_text
from utils.data.pairs import ImagePair
from utils.data.pixels import covering
from utils.errors import UserError
from utils.measure.encoders import ENCODERS, load
from utils.measure.metrics import Readings

Tools = Mapping[str, Any]
"""{name in ENCODERS: the loaded network, or Unavailable}."""


@dataclass(frozen=True)
class Probe:
    """What reads a rendered world.

    Attributes:
        read: images -> readings.
        features: images (B, 3, H, W) -> (B, D), for distances.
        edited: the attribute that the pairs edit.
        changed: further attributes that they change on purpose.
        resolution: pixels a side of the images that it reads; 0 for any.
        strangers: mean distance between the features of two unrelated images, the unit of distances.
    """

    read: Callable[[Tensor], Readings]
    features: Callable[[Tensor], Tensor]
    edited: str
    changed: Collection[str] = ()
    strangers: float = 1.0
    resolution: int = 0

    def fits(self, width: int, height: int) -> bool:
        """Whether it reads images of that size."""
        return self.resolution == 0 or width == height == self.resolution

    def check_size(self, width: int, height: int) -> None:
        """Raise `UserError` for images of a size that it does not read."""
        if not self.fits(width, height):
            own, found = size_text((self.resolution, self.resolution)), size_text((width, height))
            raise UserError(
                f"judge probe: expected images of {own}, found {found}; judge=pairs takes any size"
            )


Views = Callable[[Tensor], Sequence[Tensor]]
"""What a base sees in images (B, 3, H, W): (B, N, D) each, see utils/models/features.py."""


@dataclass(frozen=True)
class Instruments:
    """What judges see by; each takes what it needs."""

    tools: Tools = field(default_factory=dict)
    probe: Probe | None = None
    views: Views | None = None


def load_tools(config: Config, device: torch.device, names: Collection[str] = ENCODERS) -> Tools:
    """Load the networks of `names` from the weights that the config names."""
    return {name: load(name, getattr(config, f"{name}_weights"), device) for name in names}


def common_size(pairs: Sequence[ImagePair]) -> tuple[int, int]:
    """(height, width) of most of the pairs, of the first of them where several are as common."""
    return Counter((pair.source.shape[1], pair.source.shape[2]) for pair in pairs).most_common(1)[0][0]


def stacked(pairs: Sequence[ImagePair]) -> tuple[Tensor, Tensor]:
    """Sources and targets, (P, 3, H, W) each; pairs of another than their common size are cropped to it."""
    size = common_size(pairs)
    sources = torch.cat([covering(pair.source[None], size) for pair in pairs])
    return sources, torch.cat([covering(pair.target[None], size) for pair in pairs])
