"""FLUX.2 [klein]: how it encodes prompts and images, numbers positions, and is guided.

The one module that knows. Latents are the VAE's 32 channels, 2 x 2 of them one latent of 128, normalized by
the VAE's running statistics; each is a token.

Guidance is true classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598), against the empty prompt:

    v = v(empty) + guidance_scale * (v(prompt) - v(empty))

The embeddings of every prompt carry the empty one's along, so that nothing else need know. Training is under
v(prompt) alone, as the base itself was trained. The model distilled to four steps has guidance in it already.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
from diffusers import Flux2KleinPipeline
from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu
from einops import rearrange
from torch import Tensor

from utils.errors import UserError
from utils.models.base import Base, PromptEmbeds, scheduler_sigmas
from utils.models.families import FAMILIES
from utils.models.family import Family
from utils.models.parts import load_parts

logger = logging.getLogger(__name__)

TEXT = ("text_encoder", "tokenizer")
PARTS = ("transformer", "vae", "scheduler", *TEXT)
SHRINK = 16  # pixels a latent, by the VAE and by patches of 2 x 2
LAYERS = (9, 18, 27)
"""Hidden states of the text encoder that the transformer sees side by side."""


class Flux2(Base):
    """A frozen FLUX.2 [klein]. Its prompt embeddings (B, L, D): of a prompt, and of the empty one."""

    family: ClassVar[Family] = FAMILIES["flux2"]
    text_parts: ClassVar[tuple[str, ...]] = TEXT

    @cached_property
    def distilled(self) -> bool:
        """Whether the model takes a few steps and no guidance, as its model_index.json says."""
        return bool(Flux2KleinPipeline.load_config(self.path).get("is_distilled", False))

    def load(self, names: Sequence[str]) -> dict[str, Any]:
        """See `Base.load`."""
        return load_parts(Flux2KleinPipeline, PARTS, names, self)

    def encode_prompts(
        self, prompts: Sequence[str], max_sequence_length: int, parts: Collection[str] | None = None
    ) -> PromptEmbeds:
        """Encode prompts as Flux2KleinPipeline does: Qwen3 in its chat's form, three hidden states.

        Args:
            prompts: B texts; "" is the empty prompt.
            max_sequence_length: L, in tokens, the chat's own among them; a longer prompt is cut, with a
                warning in the log.
            parts: see `Base.encode_prompts`.

        Raises:
            UserError: for a tokenizer without a chat's form, or a text encoder of fewer layers.
        """
        if parts is not None and "text_encoder" not in parts:
            return PromptEmbeds({})
        tokens = self._tokens(["", *self.spelled(prompts, "tokenizer")], max_sequence_length)

        # The language model without its head; it is frozen, so that gradients go only to what learns in it.
        encoder = self.part("text_encoder")
        if (layers := encoder.config.num_hidden_layers) < max(LAYERS):
            raise UserError(
                f"{self.path}: text_encoder: expected {max(LAYERS)} layers or more, found {layers}"
            )
        states = encoder.model(**tokens, output_hidden_states=True, use_cache=False).hidden_states
        embeds = torch.cat([states[layer] for layer in LAYERS], dim=2).to(self.dtype)
        empty = embeds[:1].expand(len(prompts), -1, -1)
        return PromptEmbeds({"prompt_embeds": embeds[1:], "negative_prompt_embeds": empty.contiguous()})

    def _tokens(self, prompts: Sequence[str], length: int) -> dict[str, Tensor]:
        """input_ids and attention_mask (B, length) of prompts as a user's words in a chat."""
        tokenizer = self.part("tokenizer")
        try:
            texts = [
                tokenizer.apply_chat_template(
                    [{"role": "user", "content": prompt}],
                    tokenize=False,
                    add_generation_prompt=True,
                    enable_thinking=False,
                )
                for prompt in prompts
            ]
        except ValueError as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{self.path}: tokenizer: expected a chat template, found: {reason}") from error
        for prompt, text in zip(prompts, texts, strict=True):
            if (needs := len(tokenizer(text).input_ids)) > length:
                logger.warning("prompt cut from %d to %d tokens: %s", needs, length, prompt)
        tokens = tokenizer(
            texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        return {name: tokens[name].to(self.device) for name in ("input_ids", "attention_mask")}

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> Tensor:
        """Latents (B, 4C, H/16, W/16), float32, of pixels (B, 3, H, W) in [-1, 1].

        The posterior's mode, not a sample: two samples would put noise into the direction source - target.
        """
        vae = self.part("vae")
        latents = vae.encode(pixels.to(self.device, self.dtype)).latent_dist.mode()
        mean, std = _statistics(vae)
        return (to_patches(latents.float()) - mean) / std

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        """Pixels (B, 3, 16h, 16w), float32 in [-1, 1], of latents (B, 4C, h, w)."""
        vae = self.part("vae")
        mean, std = _statistics(vae)
        patches = latents.to(self.device) * std + mean
        return vae.decode(from_patches(patches).to(self.dtype)).sample.float().clamp(-1, 1)

    def shape_of_latents(self, height: int, width: int) -> tuple[int, int, int]:
        """See `Base.shape_of_latents`."""
        return self.transformer.config.in_channels, height // SHRINK, width // SHRINK

    def sigmas(self, num_inference_steps: int, height: int, width: int) -> Tensor:
        """See `Base.sigmas`; shifted by the size and by the number of steps."""
        mu = None
        if self.scheduler.config.get("use_dynamic_shifting"):
            mu = compute_empirical_mu(height * width, num_inference_steps)
        return scheduler_sigmas(self.scheduler, num_inference_steps, mu).to(self.device)

    def learned_guidance(self, guidance_scale: float) -> float:
        """See `Base.learned_guidance`: training is under the prompt alone."""
        return 1.0

    def velocity(self, latents: Tensor, sigma: Tensor, embeds: PromptEmbeds, guidance_scale: float) -> Tensor:
        """See `Base.velocity`; above a guidance_scale of 1 both velocities are one batch, twice as large."""
        prompt = embeds["prompt_embeds"]
        if guidance_scale <= 1 or self.distilled:
            return self._under(prompt, latents, sigma)

        # An image's two stand side by side, so that parts of the batch, each at its own scales, stay parts.
        texts = torch.stack([embeds["negative_prompt_embeds"], prompt], dim=1).flatten(0, 1)
        both = self._under(texts, latents.repeat_interleave(2, 0), sigma.repeat_interleave(2, 0))
        empty, prompted = both.unflatten(0, (-1, 2)).unbind(1)
        return empty + guidance_scale * (prompted - empty)

    def _under(self, prompt_embeds: Tensor, latents: Tensor, sigma: Tensor) -> Tensor:
        """The transformer's own velocity (B, C, h, w) under prompts (B, L, D), one an image."""
        height, width = latents.shape[-2:]
        velocity = self.transformer(
            hidden_states=rearrange(latents, "b c h w -> b (h w) c").to(self.dtype),
            # the pipeline's own rounding: timesteps of 0-1000 in the model's dtype, then sigma
            timestep=(sigma * 1000).to(self.dtype) / 1000,
            guidance=None,
            encoder_hidden_states=prompt_embeds,
            txt_ids=text_ids(prompt_embeds.shape[1], latents.device),
            img_ids=image_ids(height, width, latents.device),
            return_dict=False,
        )[0]
        return rearrange(velocity, "b (h w) c -> b c h w", h=height).to(latents.dtype)


def to_patches(latents: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, 4C, h/2, w/2): 2 x 2 latents are one; h and w even."""
    return rearrange(latents, "b c (h ph) (w pw) -> b (c ph pw) h w", ph=2, pw=2)


def from_patches(patches: Tensor) -> Tensor:
    """(B, 4C, h, w) -> (B, C, 2h, 2w), the inverse of `to_patches`."""
    return rearrange(patches, "b (c ph pw) h w -> b c (h ph) (w pw)", ph=2, pw=2)


def image_ids(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Positions (h * w, 4) of the tokens of h x w latents: 0, row, column, 0."""
    ids = torch.zeros(height, width, 4, device=device)
    ids[..., 1] = torch.arange(height, device=device)[:, None]
    ids[..., 2] = torch.arange(width, device=device)[None, :]
    return rearrange(ids, "h w c -> (h w) c")


def text_ids(length: int, device: torch.device | None = None) -> Tensor:
    """Positions (L, 4) of the tokens of a prompt: 0, 0, 0, place."""
    ids = torch.zeros(length, 4, device=device)
    ids[:, 3] = torch.arange(length, device=device)
    return ids


def _statistics(vae: Any) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (4C, 1, 1) of the VAE's patches, float32."""
    mean, variance = vae.bn.running_mean.float(), vae.bn.running_var.float()
    return mean[:, None, None], (variance + vae.config.batch_norm_eps).sqrt()[:, None, None]
