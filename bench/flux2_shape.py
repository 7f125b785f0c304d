"""FLUX.2 [klein] by its sizes alone, for what depends on no weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import Flux2Transformer2DModel

from utils.models.base import Base, PromptEmbeds
from utils.models.flux2 import LAYERS, Flux2


@dataclass(frozen=True)
class Flux2Shape:
    """The sizes of a FLUX.2 [klein]; those of the 4B unless said otherwise.

    Attributes:
        double_blocks, single_blocks, heads, head_size, axes: the transformer's; `axes` split a head's
            positions and add up to its size.
        text: width of the text encoder; the transformer sees three of its hidden states side by side.
    """

    double_blocks: int = 5
    single_blocks: int = 20
    heads: int = 24
    head_size: int = 128
    axes: tuple[int, int, int, int] = (32, 32, 32, 32)
    text: int = 2560

    def build(self) -> Flux2Transformer2DModel:
        """The transformer, on torch's default device; 3,875,544,576 parameters are the 4B's."""
        return Flux2Transformer2DModel(
            in_channels=128,
            num_layers=self.double_blocks,
            num_single_layers=self.single_blocks,
            attention_head_dim=self.head_size,
            num_attention_heads=self.heads,
            joint_attention_dim=len(LAYERS) * self.text,
            axes_dims_rope=self.axes,
            guidance_embeds=False,
        )

    def base(self, transformer: Flux2Transformer2DModel, dtype: torch.dtype) -> Base:
        """A base of the transformer alone, on the CPU."""
        base = Flux2("shapes", torch.device("cpu"), dtype, parts={"transformer": transformer})
        base.distilled = False
        return base

    def embeds(self, length: int, dtype: torch.dtype) -> PromptEmbeds:
        """Of one prompt of `length` tokens."""
        names = ("prompt_embeds", "negative_prompt_embeds")
        return PromptEmbeds(
            {name: torch.zeros(1, length, len(LAYERS) * self.text, dtype=dtype) for name in names}
        )


KLEIN_4B = Flux2Shape()
