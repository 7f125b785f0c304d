"""The measuring instrument: a small network that reads every attribute of the face world from an image.

from tinyflux.probe import load_probe
readings = load_probe().read(images)  # {attribute: (B,)}, images (B, 3, 128, 128) in [-1, 1]
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tinyflux.faces import Faces, to_pixels
from tinyflux.fit import Losses, LossFn
from tinyflux.people import ATTRIBUTES, COLOURS, HAIR_STYLES, LONG_HAIR, People, take

PROBE_PATH = Path(__file__).parent / "weights" / "probe.safetensors"
WIDTHS = (24, 48, 80, 112, 128)
READINGS = (*ATTRIBUTES, "long_hair")
"""What `read` returns. Hair styles have no order: they are read as the probability of one that hangs down."""


class Block(nn.Module):
    """A residual block that halves the resolution."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.GroupNorm(8, width_in), nn.GroupNorm(8, width_out)
        self.conv_1 = nn.Conv2d(width_in, width_out, 3, stride=2, padding=1)
        self.conv_2 = nn.Conv2d(width_out, width_out, 3, padding=1)
        self.skip = nn.Conv2d(width_in, width_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width_in, H, W) -> (B, width_out, H/2, W/2)."""
        hidden = self.conv_1(F.silu(self.norm_1(x)))
        return self.skip(F.avg_pool2d(x, 2)) + self.conv_2(F.silu(self.norm_2(hidden)))


class Probe(nn.Module):
    """Convolutions down to 4 x 4, then one linear layer to all attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTHS[0], 4, stride=2, padding=1)
        self.blocks = nn.Sequential(*(Block(a, b) for a, b in pairwise(WIDTHS)))
        self.norm = nn.GroupNorm(8, WIDTHS[-1])
        self.squeeze = nn.Linear(WIDTHS[-1] * 16, 64)
        self.head = nn.Linear(64, len(ATTRIBUTES) + len(HAIR_STYLES))

    def features(self, images: Tensor) -> Tensor:
        """(B, 64) features of images (B, 3, 128, 128) in [-1, 1], for the Fréchet distance."""
        x = F.silu(self.norm(self.blocks(self.stem(images))))
        return F.silu(self.squeeze(x.flatten(1)))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, attributes + hair styles)."""
        return self.head(self.features(images))

    @torch.no_grad()
    def read(self, images: Tensor, batch_size: int = 64) -> dict[str, Tensor]:
        """Read every attribute.

        Args:
            images: (B, 3, 128, 128) in [-1, 1].

        Returns:
            {name in READINGS: (B,) in [0, 1]}, each in units of its range.

        Raises:
            ValueError: images of another shape.
        """
        if images.ndim != 4 or images.shape[1:] != (3, 128, 128):
            raise ValueError(f"probe: expected images (B, 3, 128, 128), found {tuple(images.shape)}")
        device = self.head.weight.device
        logits = torch.cat([self(batch.to(device).float()).cpu() for batch in images.split(batch_size)])
        values, hair = logits.split([len(ATTRIBUTES), len(HAIR_STYLES)], dim=1)
        readings = dict(zip(ATTRIBUTES, values.sigmoid().unbind(dim=1), strict=True))
        long = [HAIR_STYLES.index(name) for name in LONG_HAIR]
        return {**readings, "long_hair": hair.softmax(dim=1)[:, long].sum(dim=1)}


def truth(people: People) -> dict[str, Tensor]:
    """What a perfect probe would read of `people`."""
    styles = people["hair_style"]
    long = torch.stack([styles == HAIR_STYLES.index(name) for name in LONG_HAIR]).any(dim=0)
    return {**{name: people[name] for name in ATTRIBUTES}, "long_hair": long.float()}


def visible(people: People) -> Tensor:
    """(B, attributes): 1 where the image shows the attribute, 0 for the colours of a sketch."""
    shown = torch.ones(len(people["sketch"]), len(ATTRIBUTES))
    for name in COLOURS:
        shown[:, ATTRIBUTES.index(name)] = (people["sketch"] < 0.5).float()
    return shown


def probe_losses(
    probe: Probe, images: Faces, people: People, batch_size: int, device: torch.device
) -> LossFn:
    """Squared error of the readings plus cross entropy with soft targets; cross entropy of the hair style.

    Args:
        images: index (B,) -> uint8 images (B, 3, 128, 128), as many as `people`.
    """
    count = len(people["age"])
    wanted = torch.stack([people[name] for name in ATTRIBUTES], dim=1)
    shown = visible(people)

    def losses(step: int, generator: torch.Generator) -> Losses:
        index = torch.randint(count, (batch_size,), generator=generator)
        pixels = to_pixels(images[index])
        strength = 0.06 * torch.rand(batch_size, 1, 1, 1, generator=generator)
        pixels = pixels + strength * torch.randn(pixels.shape, generator=generator)
        with torch.autocast(device.type, torch.bfloat16):
            logits = probe(pixels.to(device)).float()
        values, hair = logits.split([len(ATTRIBUTES), len(HAIR_STYLES)], dim=1)
        target, weight = wanted[index].to(device), shown[index].to(device)
        square = (values.sigmoid() - target).square() * weight
        cross = F.binary_cross_entropy_with_logits(values, target, weight)
        style = F.cross_entropy(hair, take(people, index)["hair_style"].to(device))
        return {"square": 4 * square.mean(), "cross": 0.2 * cross, "hair": 0.1 * style}

    return losses


def save_probe(probe: Probe, path: Path = PROBE_PATH) -> None:
    """Write the weights in float16."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.half().contiguous().cpu() for name, value in probe.state_dict().items()}, path)


def load_probe(path: Path = PROBE_PATH, device: torch.device | str = "cpu") -> Probe:
    """The trained probe, in float32.

    Raises:
        FileNotFoundError: no weights at `path`.
    """
    probe = Probe()
    probe.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    return probe.to(device).eval().requires_grad_(False)
