"""Images of one colour, and encoders and a probe that see one channel of it."""

import math
from pathlib import Path

import torch

from utils.data.pairs import ImagePair
from utils.measure.encoders import ENCODERS, Unavailable
from utils.measure.instruments import Probe

LACKING = {name: Unavailable(name, "no weights named", f"set {name}") for name in ENCODERS}


def flat(*colours):
    """(B, 3, 16, 16), an image of each colour."""
    return torch.tensor(colours, dtype=torch.float32)[:, :, None, None].expand(-1, -1, 16, 16).contiguous()


def pair(source, target):
    pixels = flat(source, target)
    return ImagePair("0", pixels[0], pixels[1], Path("source/0.png"), Path("target/0.png"))


class Angle:
    """Embeds images as the unit vector at an angle: a channel's mean of 1 is 90 degrees."""

    def __init__(self, channel):
        self.channel = channel

    def embed(self, images):
        angle = images[:, self.channel].mean(dim=(1, 2)) * math.pi / 2
        return torch.stack([angle.cos(), angle.sin()], dim=1)

    def embed_text(self, texts):
        """Any text is at 90 degrees."""
        return torch.tensor([[0.0, 1.0]]).repeat(len(texts), 1)


class Lpips:
    """The largest difference, and the resolution it was asked for."""

    def distance(self, a, b, resolution):
        return (a - b).abs().amax(dim=(1, 2, 3)) + (resolution or 0)


TOOLS = {
    "clip": Angle(0),
    "dinov2": Angle(1),
    "arcface": Angle(2),
    "lpips_alex": Lpips(),
    "lpips_vgg": Lpips(),
}


def read(images):
    """Red shows the age, green the smile, blue the beard; [-1, 1] is an attribute's range."""
    values = images.mean(dim=(2, 3)) / 2 + 0.5
    return dict(zip(("age", "smile", "beard"), values.unbind(dim=1), strict=True))


PROBE = Probe(read, lambda images: images.mean(dim=(2, 3)), "age")
PAIRS = [pair((0, 0, 0), (1, 0, 0))]  # 90 degrees, 0.5 of the age's range
