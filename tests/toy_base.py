"""A base of another kind in one file: no VAE, one embedding a word, latents that are half-size pixels."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import ConfigMixin, FlowMatchEulerDiscreteScheduler, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.loaders import PeftAdapterMixin
from torch import Tensor, nn
from torch.nn import functional

from utils.models.base import Base, PromptEmbeds, scheduler_sigmas
from utils.models.family import Family, LoraNames
from utils.models.quantization import quantize

LETTERS = 32


class ToyBlock(nn.Module):
    """Every position of an image looks at the prompt, and is moved by what it sees."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.look, self.move = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor, words: Tensor) -> Tensor:
        """(B, N, D) under words (B, 1, D)."""
        return x + self.move(torch.tanh(self.look(x + words)))


class ToyTransformer(ModelMixin, ConfigMixin, PeftAdapterMixin):
    """Velocity of pixels (B, 3, h, w) under the mean of a prompt's letters (B, 1, D)."""

    @register_to_config
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(4, width), nn.Linear(width, 3)
        self.layers = nn.ModuleList(ToyBlock(width) for _ in range(2))
        self.letters = nn.Embedding(LETTERS, width)

    def forward(self, x: Tensor, sigma: Tensor, words: Tensor) -> Tensor:
        """The same shape as x."""
        tokens = torch.cat([x, sigma[:, None, None, None].expand(-1, 1, *x.shape[2:])], dim=1)
        hidden = self.enter(tokens.flatten(2).transpose(1, 2))
        for layer in self.layers:
            hidden = layer(hidden, words)
        return self.leave(hidden).transpose(1, 2).unflatten(2, x.shape[2:])


FAMILY = Family(
    pipeline="ToyPipeline",
    base="tests.toy_base:Toy",
    transformer="ToyTransformer",
    pixel_multiple=2,
    targets={"full": ("look", "move"), "look": ("look",)},
    blocks=("layers",),
    lora=LoraNames(linears={"layers": ("look", "move"), "": ("enter", "leave")}),
)


class Toy(Base):
    """The toy of a folder."""

    family: ClassVar[Family] = FAMILY
    text_parts: ClassVar[tuple[str, ...]] = ("letters",)
    image_parts: ClassVar[tuple[str, ...]] = ()

    def load(self, names: Sequence[str]) -> dict[str, Any]:
        """See `Base.load`."""
        if "scheduler" in names:
            return {
                "scheduler": FlowMatchEulerDiscreteScheduler.from_pretrained(self.path, subfolder="scheduler")
            }
        transformer = ToyTransformer.from_pretrained(self.path, subfolder="transformer").requires_grad_(False)
        quantize(transformer, self.quantization, self.device)
        transformer = transformer.to(self.device, self.dtype).eval()
        own = {"transformer": transformer, "letters": transformer.letters}
        return {name: own[name] for name in names}

    @torch.no_grad()
    def encode_prompts(
        self, prompts: Sequence[str], max_sequence_length: int, parts: Collection[str] | None = None
    ) -> PromptEmbeds:
        """The mean of a prompt's letters, "words" (B, 1, D)."""
        letters = self.part("letters")
        ids = [
            [ord(letter) % LETTERS for letter in prompt[:max_sequence_length] or " "] for prompt in prompts
        ]
        return PromptEmbeds({"words": torch.stack([letters(torch.tensor(own)).mean(0, True) for own in ids])})

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Half the size."""
        return functional.avg_pool2d(pixels.to(self.device), 2)

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Twice the size."""
        return latents.repeat_interleave(2, 2).repeat_interleave(2, 3).clamp(-1, 1)

    def shape_of_latents(self, height: int, width: int) -> tuple[int, int, int]:
        """Of half-size pixels."""
        return 3, height // 2, width // 2

    def sigmas(self, num_inference_steps: int, height: int, width: int) -> Tensor:
        """Of the scheduler's fixed shift."""
        return scheduler_sigmas(self.scheduler, num_inference_steps, None).to(self.device)

    def velocity(self, latents: Tensor, sigma: Tensor, embeds: PromptEmbeds, guidance_scale: float) -> Tensor:
        """See `Base.velocity`; there is no guidance."""
        return self.transformer(latents.to(self.dtype), sigma, embeds["words"]).to(latents.dtype)


def save_toy(folder: Path) -> None:
    """A toy of random weights, as a folder that a config can name."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        ToyTransformer().save_pretrained(folder / "transformer")
    FlowMatchEulerDiscreteScheduler(shift=2.0).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "ToyPipeline"}))
