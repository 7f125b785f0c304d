"""What all bases have in common: prompts as embeddings, forward passes counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PromptEmbeds:
    """What the transformer sees of B prompts: T5's prompt_embeds (B, L, D), CLIP's pooled (B, P)."""

    prompt_embeds: Tensor
    pooled_prompt_embeds: Tensor

    def expand(self, batch_size: int) -> PromptEmbeds:
        """One prompt for a whole batch (a view); as many prompts as images stay as they are.

        Raises:
            ValueError: for any other number of prompts.
        """
        prompts = len(self.prompt_embeds)
        if prompts not in (1, batch_size):
            raise ValueError(f"expected 1 prompt or {batch_size}, one an image; found {prompts}")
        return PromptEmbeds(
            self.prompt_embeds.expand(batch_size, -1, -1), self.pooled_prompt_embeds.expand(batch_size, -1)
        )

    def of_images(self, images: slice) -> PromptEmbeds:
        """Those of some of the images; one prompt is that of all of them."""
        if len(self.prompt_embeds) == 1:
            return self
        return PromptEmbeds(self.prompt_embeds[images], self.pooled_prompt_embeds[images])

    def repeated(self, times: int) -> PromptEmbeds:
        """As they are, `times` times over; one prompt stays one, for images of any number."""
        return self if len(self.prompt_embeds) == 1 else PromptEmbeds.joined([self] * times)

    @classmethod
    def joined(cls, embeds: Sequence[PromptEmbeds]) -> PromptEmbeds:
        """One after the other, as one batch."""
        return cls(
            torch.cat([one.prompt_embeds for one in embeds]),
            torch.cat([one.pooled_prompt_embeds for one in embeds]),
        )


@dataclass
class Forwards:
    """How often the transformer was called, and with how many images in all."""

    calls: int = 0
    images: int = 0
