"""What removes backgrounds: masks of what an image shows, and a colour in place of all else."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor

from utils.errors import UserError
from utils.hub import onnx_session
from utils.prepare.networks import LiteNetwork
from utils.prepare.options import Options, Tool

WEIGHTS = Path(__file__).with_name("weights") / "selfie_segmentation.tflite"
_SIDE = 256  # pixels that the person's network sees

Remover = Callable[[Image.Image], Image.Image]
"""An RGB image -> its mask, of mode L and the same size: 255 where the subject is."""


def person_remover(source: str, options: Options) -> Remover:
    """Where people are, by MediaPipe's selfie segmentation."""
    network = LiteNetwork(WEIGHTS)

    def mask(image: Image.Image) -> Image.Image:
        pixels = np.asarray(image.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR), dtype=np.float32) / 255
        return _as_mask(network(pixels[None])[0][..., 0], image.size)

    return mask


def salient_remover(
    source: str, options: Options, *, mean: tuple[float, ...], std: tuple[float, ...]
) -> Remover:
    """What stands out, by a network in ONNX that reads (1, 3, H, W) and gives (1, 1, H, W).

    Args:
        source: the file.
        options: of the preparation.
        mean: of each channel, in [0, 1]; subtracted.
        std: of each channel; divided by.
    """
    session = onnx_session(source)
    first = session.get_inputs()[0]
    if len(first.shape) != 4 or first.shape[1] != 3 or not all(isinstance(n, int) for n in first.shape[2:]):
        raise ValueError(f"{source}: expected a network that reads (1, 3, H, W), found {first.shape}")
    height, width = first.shape[2:]

    def mask(image: Image.Image) -> Image.Image:
        pixels = np.asarray(image.resize((width, height), Image.Resampling.LANCZOS), dtype=np.float32)
        pixels = (pixels / max(pixels.max(), 1) - np.array(mean)) / np.array(std)
        batch = pixels.transpose(2, 0, 1)[None].astype(np.float32)
        found = session.run(None, {first.name: batch})[0][0, 0]
        low, high = found.min(), found.max()
        return _as_mask((found - low) / max(high - low, 1e-6), image.size)

    return mask


def _as_mask(values: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """(H, W) in [0, 1] as a mask of an image's size."""
    mask = Image.fromarray((np.clip(values, 0, 1) * 255).round().astype(np.uint8))
    return mask.resize(size, Image.Resampling.BICUBIC)


_FILE = "FILE, an .onnx file such as"
REMOVERS: dict[str, Tool[Remover]] = {
    "person": Tool("people, by MediaPipe; its weights are here", person_remover, ("ai_edge_litert",)),
    "u2net": Tool(
        "what stands out, by U²-Net (arXiv 2005.09007)",
        partial(salient_remover, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
        ("onnxruntime",),
        setting=f"{_FILE} u2net.onnx of rembg's releases (Apache-2.0)",
    ),
    "isnet": Tool(
        "what stands out, by IS-Net (arXiv 2203.03041)",
        partial(salient_remover, mean=(0.5, 0.5, 0.5), std=(1.0, 1.0, 1.0)),
        ("onnxruntime",),
        setting=f"{_FILE} isnet-general-use.onnx of rembg's releases (Apache-2.0)",
    ),
}
"""What `--background` may be."""


def read_colour(text: str) -> tuple[int, int, int]:
    """RGB of a colour by name or #rrggbb; raises `UserError` for what is none."""
    try:
        return ImageColor.getcolor(text, "RGB")[:3]  # type: ignore[index, return-value]
    except ValueError:
        raise UserError(f"--fill: expected a colour, by name or as #rrggbb, found {text!r}") from None


def filled(image: Image.Image, mask: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    """An image with a colour where its mask is 0."""
    return Image.composite(image, Image.new("RGB", image.size, colour), mask)
