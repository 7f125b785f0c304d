"""What the frozen base sees in an image: the activations of a late block at little noise.

Diffusion features (Tang et al. 2023, arXiv 2306.03881): a network that has learned to denoise tells apart
what is in an image, and hardly minds where or in which colours. They need no weights but the base's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from utils.models.base import Base, PromptEmbeds

SIGMA = 0.1
"""Noise in the image that is looked at: enough for the base to take it for one of its own x_t."""
DEPTH = 0.8
"""Of the block that is listened to, as a share of all blocks; the last ones turn to the velocity itself."""


class BaseViews:
    """Images -> what the base makes of them, no adapter acting: its latents, and the tokens of a late block.

    Args:
        base: with its VAE.
        embeds: of the empty prompt.
        guidance_scale: that images are sampled under.
        batch_size: images in a forward pass.
    """

    def __init__(self, base: Base, embeds: PromptEmbeds, guidance_scale: float, batch_size: int) -> None:
        self.base, self.embeds, self.batch_size = base, embeds, batch_size
        self.guidance_scale = base.learned_guidance(guidance_scale)

    def __call__(self, images: Tensor) -> list[Tensor]:
        """(B, h * w, C) latents and (B, N, D) tokens, on the CPU, of images (B, 3, H, W) in [-1, 1]."""
        batches = [self._of_batch(batch) for batch in images.split(self.batch_size)]
        return [torch.cat(parts) for parts in zip(*batches, strict=True)]

    @torch.no_grad()
    def _of_batch(self, images: Tensor) -> list[Tensor]:
        x_0 = self.base.encode_images(images)
        # the same noise for every image, so that it cancels in differences
        noise = torch.randn(x_0.shape[1:], generator=torch.Generator().manual_seed(0)).to(x_0)
        x_sigma = (1 - SIGMA) * x_0 + SIGMA * noise
        sigma = torch.full((len(x_0),), SIGMA, device=x_0.device)
        with _heard(self.base) as outputs:
            self.base.predict_velocity(x_sigma, sigma, self.embeds, self.guidance_scale)
        return [rearrange(x_0, "b c h w -> b (h w) c").cpu(), outputs[0].float().cpu()]


@contextmanager
def _heard(base: Base) -> Iterator[list[Tensor]]:
    """Inside, what the block at DEPTH gives is put into a list, the image's stream where there are two."""
    blocks = [block for name in base.family.blocks for block in getattr(base.transformer, name)]
    outputs: list[Tensor] = []

    def listen(module: Any, arguments: Any, output: Any) -> None:
        outputs.append(output[-1] if isinstance(output, tuple) else output)

    handle = blocks[round(DEPTH * (len(blocks) - 1))].register_forward_hook(listen)
    try:
        yield outputs
    finally:
        handle.remove()
