"""A FLUX model in diffusers layout: load it, encode text, encode and decode images, predict the velocity.

The one module that knows how FLUX packs latents, numbers positions and takes its conditions. Latents are
(B, C, h, w) everywhere outside; they are packed into tokens only for the transformer's call. Latents and
velocities keep the dtype they come in (float32 as a rule); only the networks run in the base model's dtype.
"""

from __future__ import annotations

import gc
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from utils.errors import UserError
from utils.flow.schedules import shifted_sigmas
from utils.models.base import Forwards, PromptEmbeds
from utils.models.parts import TEXT, load_parts

logger = logging.getLogger(__name__)

# Scheduler settings that change the sigmas in ways shifted_sigmas does not know; FLUX sets none of them.
_UNKNOWN_SCHEDULER_SETTINGS = (
    "shift_terminal",
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "invert_sigmas",
)


@dataclass
class Flux:
    """A frozen FLUX. Each part is loaded when first asked for, and once more if it was let go since.

    So a prompt is encoded before the transformer is there, and no more is held than is at work.

    Attributes:
        path: a folder in diffusers layout, or a hub id.
        device, dtype: of all parts.
        quantization: of the transformer's linears, a key of QUANTIZATIONS in utils/models/quantization.py.
        parts: those that are there, by FluxPipeline's names.
        forwards: of the transformer, so far.
    """

    path: str
    device: torch.device
    dtype: torch.dtype
    quantization: str = "none"
    parts: dict[str, Any] = field(default_factory=dict)
    forwards: Forwards = field(default_factory=Forwards)

    # diffusers' and transformers' classes carry no usable types
    @property
    def transformer(self) -> Any:
        """FluxTransformer2DModel."""
        return self.part("transformer")

    @property
    def vae(self) -> Any:
        """AutoencoderKL."""
        return self.part("vae")

    @property
    def scheduler(self) -> Any:
        """FlowMatchEulerDiscreteScheduler."""
        return self.part("scheduler")

    @property
    def latent_channels(self) -> int:
        """C of latents (B, C, h, w)."""
        return self.transformer.config.in_channels // 4

    def release_text_encoders(self) -> None:
        """Let go of CLIP, T5 and their tokenizers (9.5 GiB with FLUX.1-dev)."""
        self._release(*TEXT)

    def release_vae(self) -> None:
        """Let go of the VAE."""
        self._release("vae")

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str], max_sequence_length: int) -> PromptEmbeds:
        """Encode prompts as FluxPipeline does: T5 padded to full length without a mask, CLIP pooled.

        Args:
            prompts: B texts; "" is the empty prompt.
            max_sequence_length: L, in T5 tokens; a longer prompt is cut, with a warning in the log.
        """
        text_encoder, text_encoder_2, tokenizer, tokenizer_2 = map(self.part, TEXT)
        for prompt in prompts:
            length = len(tokenizer_2(prompt).input_ids)
            if length > max_sequence_length:
                logger.warning("prompt cut from %d to %d tokens: %s", length, max_sequence_length, prompt)
        ids = _token_ids(tokenizer, prompts, tokenizer.model_max_length).to(self.device)
        ids_2 = _token_ids(tokenizer_2, prompts, max_sequence_length).to(self.device)
        pooled = text_encoder(ids).pooler_output
        embeds = text_encoder_2(ids_2)[0]
        return PromptEmbeds(embeds.to(self.dtype), pooled.to(self.dtype))

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> Tensor:
        """Latents (B, C, H/8, W/8), float32, of pixels (B, 3, H, W) in [-1, 1].

        The posterior's mode, not a sample: two samples would put noise into the direction source - target.
        z' = (z - shift_factor) * scaling_factor, so that latents are about standard normal.
        """
        vae = self.vae
        latents = vae.encode(pixels.to(self.device, self.dtype)).latent_dist.mode()
        return (latents.float() - vae.config.shift_factor) * vae.config.scaling_factor

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        """Pixels (B, 3, 8h, 8w), float32 in [-1, 1], of latents (B, C, h, w)."""
        vae = self.vae
        latents = latents.to(self.device) / vae.config.scaling_factor + vae.config.shift_factor
        return vae.decode(latents.to(self.dtype)).sample.float().clamp(-1, 1)

    def predict_velocity(
        self, latents: Tensor, sigma: Tensor, embeds: PromptEmbeds, guidance_scale: float
    ) -> Tensor:
        """The transformer's velocity (B, C, h, w), in the latents' dtype, with the adapters now active.

        Args:
            latents: x_t (B, C, h, w), h and w even.
            sigma: (B,) in [0, 1].
            embeds: of one prompt, or of B.
            guidance_scale: FLUX's distilled guidance embedding; ignored by models without one.
        """
        batch, _, height, width = latents.shape
        embeds = embeds.expand(batch)
        config = self.transformer.config
        guidance = None
        if config.guidance_embeds:
            guidance = torch.full((batch,), guidance_scale, device=latents.device)
        self.forwards.calls += 1
        self.forwards.images += batch
        # autocast: the base is in its dtype already; adapters are float32, and so are their gradients
        with torch.autocast(latents.device.type, self.dtype, enabled=self.dtype == torch.bfloat16):
            velocity = self.transformer(
                hidden_states=pack_latents(latents).to(self.dtype),
                # FluxPipeline's own rounding: timesteps of 0-1000 in the model's dtype, then sigma
                timestep=(sigma * 1000).to(self.dtype) / 1000,
                guidance=guidance,
                encoder_hidden_states=embeds.prompt_embeds,
                pooled_projections=embeds.pooled_prompt_embeds,
                txt_ids=torch.zeros(embeds.prompt_embeds.shape[1], 3, device=latents.device),
                img_ids=image_ids(height, width, latents.device),
                return_dict=False,
            )[0]
        return unpack_latents(velocity, height, width).to(latents.dtype)

    def sigmas(self, num_inference_steps: int, height: int, width: int) -> Tensor:
        """The noise levels (N + 1,) of a run of N steps on latents of height x width, on the device.

        Raises:
            UserError: if the model's scheduler asks for a schedule that is not FLUX's.
        """
        config = self.scheduler.config
        unknown = [key for key in _UNKNOWN_SCHEDULER_SETTINGS if config.get(key)]
        if unknown or config.get("time_shift_type", "exponential") != "exponential":
            raise UserError(
                f"scheduler_config.json: expected FLUX's shifted sigmas, found {unknown or 'linear'}"
            )
        if config.use_dynamic_shifting:
            base_shift, max_shift = config.base_shift, config.max_shift
        else:  # a fixed shift, as in FLUX.1-schnell, is a mu of log(shift) at every size
            base_shift = max_shift = math.log(config.shift)
        image_seq_len = (height // 2) * (width // 2)
        sequence = config.base_image_seq_len, config.max_image_seq_len
        return shifted_sigmas(num_inference_steps, image_seq_len, base_shift, max_shift, *sequence).to(
            self.device
        )

    def part(self, name: str) -> Any:
        """A part by FluxPipeline's name."""
        if name not in self.parts:
            self.parts |= self._load(TEXT if name in TEXT else (name,))
        return self.parts[name]

    def _load(self, names: Sequence[str]) -> dict[str, Any]:
        return load_parts(self.path, names, self.device, self.dtype, self.quantization)

    def _release(self, *names: str) -> None:
        held = [self.parts.pop(name, None) for name in names]
        if any(part is not None for part in held) and self.device.type == "cuda":
            held.clear()
            gc.collect()
            torch.cuda.empty_cache()


def load_flux(path: str, device: torch.device, dtype: torch.dtype, quantization: str = "none") -> Flux:
    """A FLUX pipeline, frozen and in eval mode.

    Args:
        path: a folder in diffusers layout, or a hub id.
        device: where all parts go, and where they are to compute.
        dtype: of all parts.
        quantization: of the transformer's linears.

    Raises:
        UserError: if there is no complete pipeline at `path`; also later, of a part that can't be loaded.
    """
    flux = Flux(path, device, dtype, quantization)
    flux.scheduler  # noqa: B018  a wrong path is told now
    return flux


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
