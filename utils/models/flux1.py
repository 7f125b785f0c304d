"""FLUX.1: how it encodes prompts and images, packs latents, numbers positions and takes its conditions.

The one module that knows. Latents are (B, C, h, w) everywhere outside; they are packed into tokens only for
the transformer's call.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import Any, ClassVar

import torch
from diffusers import FluxPipeline
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from einops import rearrange
from torch import Tensor

from utils.models.base import Base, PromptEmbeds, scheduler_sigmas
from utils.models.families import FAMILIES
from utils.models.family import Family
from utils.models.parts import load_parts

logger = logging.getLogger(__name__)

TEXT = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
PARTS = ("transformer", "vae", "scheduler", *TEXT)
SHRINK = 8  # pixels a latent, by the VAE


class Flux1(Base):
    """A frozen FLUX.1. Its prompt embeddings: prompt_embeds (B, L, D) of T5, pooled (B, P) of CLIP."""

    family: ClassVar[Family] = FAMILIES["flux1"]
    text_parts: ClassVar[tuple[str, ...]] = TEXT

    def load(self, names: Sequence[str]) -> dict[str, Any]:
        """See `Base.load`."""
        return load_parts(FluxPipeline, PARTS, names, self)

    def encode_prompts(
        self, prompts: Sequence[str], max_sequence_length: int, parts: Collection[str] | None = None
    ) -> PromptEmbeds:
        """Encode prompts as FluxPipeline does: T5 padded to full length without a mask, CLIP pooled.

        Args:
            prompts: B texts; "" is the empty prompt.
            max_sequence_length: L, in T5 tokens; a longer prompt is cut, with a warning in the log.
            parts: see `Base.encode_prompts`.
        """
        tensors: dict[str, Tensor] = {}

        # Both are frozen: gradients go only to what was added to them and learns. One may have been let go.
        if parts is None or "text_encoder_2" in parts:
            text_encoder_2, tokenizer_2 = self.part("text_encoder_2"), self.part("tokenizer_2")
            spelled = self.spelled(prompts, "tokenizer_2")
            for prompt in spelled:
                length = len(tokenizer_2(prompt).input_ids)
                if length > max_sequence_length:
                    logger.warning("prompt cut from %d to %d tokens: %s", length, max_sequence_length, prompt)
            ids = _token_ids(tokenizer_2, spelled, max_sequence_length).to(self.device)
            tensors["prompt_embeds"] = text_encoder_2(ids)[0].to(self.dtype)
        if parts is None or "text_encoder" in parts:
            text_encoder, tokenizer = self.part("text_encoder"), self.part("tokenizer")
            spelled = self.spelled(prompts, "tokenizer")
            ids = _token_ids(tokenizer, spelled, tokenizer.model_max_length).to(self.device)
            tensors["pooled_prompt_embeds"] = text_encoder(ids).pooler_output.to(self.dtype)
        return PromptEmbeds(tensors)

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> Tensor:
        """Latents (B, C, H/8, W/8), float32, of pixels (B, 3, H, W) in [-1, 1].

        The posterior's mode, not a sample: two samples would put noise into the direction source - target.
        z' = (z - shift_factor) * scaling_factor, so that latents are about standard normal.
        """
        vae = self.part("vae")
        latents = vae.encode(pixels.to(self.device, self.dtype)).latent_dist.mode()
        return (latents.float() - vae.config.shift_factor) * vae.config.scaling_factor

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        """Pixels (B, 3, 8h, 8w), float32 in [-1, 1], of latents (B, C, h, w)."""
        vae = self.part("vae")
        latents = latents.to(self.device) / vae.config.scaling_factor + vae.config.shift_factor
        return vae.decode(latents.to(self.dtype)).sample.float().clamp(-1, 1)

    def shape_of_latents(self, height: int, width: int) -> tuple[int, int, int]:
        """See `Base.shape_of_latents`; a token holds 2 x 2 of C channels."""
        return self.transformer.config.in_channels // 4, height // SHRINK, width // SHRINK

    def sigmas(self, num_inference_steps: int, height: int, width: int) -> Tensor:
        """See `Base.sigmas`: larger images need more steps at high noise (Esser et al. 2024, 5.3.2)."""
        config, mu = self.scheduler.config, None
        if config.get("use_dynamic_shifting"):
            line = config.base_image_seq_len, config.max_image_seq_len, config.base_shift, config.max_shift
            mu = calculate_shift((height // 2) * (width // 2), *line)
        return scheduler_sigmas(self.scheduler, num_inference_steps, mu).to(self.device)

    def velocity(self, latents: Tensor, sigma: Tensor, embeds: PromptEmbeds, guidance_scale: float) -> Tensor:
        """See `Base.velocity`; h and w even, guidance_scale is FLUX's distilled guidance embedding."""
        batch, _, height, width = latents.shape
        guidance = None
        if self.transformer.config.guidance_embeds:
            guidance = torch.full((batch,), guidance_scale, device=latents.device)
        velocity = self.transformer(
            hidden_states=pack_latents(latents).to(self.dtype),
            # FluxPipeline's own rounding: timesteps of 0-1000 in the model's dtype, then sigma
            timestep=(sigma * 1000).to(self.dtype) / 1000,
            guidance=guidance,
            encoder_hidden_states=embeds["prompt_embeds"],
            pooled_projections=embeds["pooled_prompt_embeds"],
            txt_ids=torch.zeros(embeds["prompt_embeds"].shape[1], 3, device=latents.device),
            img_ids=image_ids(height, width, latents.device),
            return_dict=False,
        )[0]
        return unpack_latents(velocity, height, width).to(latents.dtype)


def pack_latents(latents: Tensor) -> Tensor:
    """(B, C, h, w) -> packed (B, h/2 * w/2, 4C): one token for every 2 x 2 latents; h and w even."""
    return rearrange(latents, "b c (h ph) (w pw) -> b (h w) (c ph pw)", ph=2, pw=2)


def unpack_latents(packed_latents: Tensor, height: int, width: int) -> Tensor:
    """Packed (B, h/2 * w/2, 4C) -> (B, C, h, w), the inverse of `pack_latents`."""
    return rearrange(
        packed_latents, "b (h w) (c ph pw) -> b c (h ph) (w pw)", h=height // 2, w=width // 2, ph=2, pw=2
    )


def image_ids(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Positions (h/2 * w/2, 3) of the tokens of h x w latents: 0, row, column."""
    ids = torch.zeros(height // 2, width // 2, 3, device=device)
    ids[..., 1] = torch.arange(height // 2, device=device)[:, None]
    ids[..., 2] = torch.arange(width // 2, device=device)[None, :]
    return rearrange(ids, "h w c -> (h w) c")


def _token_ids(tokenizer: Any, prompts: Sequence[str], length: int) -> Tensor:
    """(B, length) token ids, padded and cut to length."""
    tokens = tokenizer(
        list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )
    return tokens.input_ids
