"""Images for the outside networks, and how the tests load them."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.measure.seeds import rng
from utils.measure.encoders import ENCODERS, Unavailable, load

CPU = torch.device("cpu")


def photo(height, width, seed=0):
    """(1, 3, H, W) in [-1, 1], on 8-bit levels, smooth as photographs are, with one hard edge."""
    coarse = torch.rand(1, 3, 5, 5, generator=rng(seed))
    image = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    image[..., : height // 2, : width // 3] = 1 - image[..., : height // 2, : width // 3]
    return (image * 255).round() / 127.5 - 1


def to_pil(image):
    return Image.fromarray(((image[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())


def pil_resized(image, size, resample):
    """Resize float channels by Pillow, which does not round them: (1, 3, h, w) for size (h, w)."""
    channels = [Image.fromarray(channel.numpy()).resize(size[::-1], resample) for channel in image[0]]
    return torch.from_numpy(np.stack([np.asarray(channel) for channel in channels]))[None]


def loaded(name, source):
    found = load(name, str(source), CPU)
    assert not isinstance(found, Unavailable), str(found)
    return found


def missing(name, source):
    """The reason, after checking what every `Unavailable` is to hold."""
    found = load(name, str(source), CPU)
    assert isinstance(found, Unavailable)
    assert found.name == name
    assert found.remedy == f"set {name}_weights to {ENCODERS[name][1]}"
    assert str(found) == f"{name}: not available: {found.reason}; to have it: {found.remedy}"
    assert "\n" not in str(found)
    return found.reason


EMBEDDERS = pytest.mark.parametrize("name", ["clip", "dinov2"])


def copied(folder, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy
