"""What a drawn portrait of the face world shows, in its captions' words, as the probe reads it."""

from __future__ import annotations

from functools import cache
from zlib import crc32

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from tinyflux.captions import caption
from tinyflux.people import ATTRIBUTES, YES_NO
from tinyflux.probe import Probe, load_probe
from tinyflux.render import RESOLUTION
from utils.data.pixels import to_tensor


def describe(image: Image.Image) -> str:
    """The caption of an RGB image's centred square; equal images have equal captions.

    Every edit that is there is named, and some of skin, hair, eyes, shirt and background.
    """
    portrait = ImageOps.fit(image.convert("RGB"), (RESOLUTION, RESOLUTION), Image.Resampling.LANCZOS)
    pixels = to_tensor(portrait)[None]
    rng = np.random.default_rng(crc32(portrait.tobytes()))
    return caption(person_in(pixels, _probe()), rng, p_edit=1.0)


@torch.no_grad()
def person_in(pixels: Tensor, probe: Probe) -> dict[str, float]:
    """Who is in an image (1, 3, 128, 128) in [-1, 1], as captions know people: yes or no is 0 or 1."""
    values, hair = probe(pixels)[0].split([len(ATTRIBUTES), probe.head.out_features - len(ATTRIBUTES)])
    person = dict(zip(ATTRIBUTES, values.sigmoid().tolist(), strict=True))
    person |= {name: float(person[name] > 0.5) for name in YES_NO}
    return {**person, "hair_style": int(hair.argmax())}


@cache
def _probe() -> Probe:
    return load_probe()
