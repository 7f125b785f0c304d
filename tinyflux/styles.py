"""Style edits, computed from the finished image. Images are (B, 3, H, W) in [0, 1]."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

PIXEL_BLOCK = 4
PIXEL_LEVELS = 12


def pixel_art(image: Tensor, block: int = PIXEL_BLOCK, levels: int = PIXEL_LEVELS) -> Tensor:
    """Blocks of `block` pixels, each channel on `levels` evenly spaced values."""
    small = F.avg_pool2d(image, block)
    quantised = torch.round(small * (levels - 1)) / (levels - 1)
    return F.interpolate(quantised, scale_factor=block, mode="nearest")


def sketch(image: Tensor) -> Tensor:
    """A pencil drawing: grey image, colour-dodged by its own blurred negative, on warm paper."""
    weights = torch.tensor([0.299, 0.587, 0.114], device=image.device)[None, :, None, None]
    grey = (image * weights).sum(dim=1, keepdim=True)
    sigma = image.shape[-1] / 40
    blurred_negative = gaussian_blur(1 - grey, kernel_size=int(4 * sigma) | 1, sigma=sigma)
    dodged = (grey / (1 - blurred_negative).clamp(min=0.04)).clamp(0, 1)
    pencil = (0.82 * dodged**1.6 + 0.18 * grey).clamp(0, 1)
    paper = torch.tensor([0.99, 0.97, 0.93], device=image.device)[None, :, None, None]
    graphite = torch.tensor([0.16, 0.16, 0.19], device=image.device)[None, :, None, None]
    return graphite + (paper - graphite) * pencil
