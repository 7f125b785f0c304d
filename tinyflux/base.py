"""The transformer and its text encoders, trained together on captioned faces, then distilled for guidance."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tinyflux.captions import captions
from tinyflux.fit import Losses, Schedule, fit
from tinyflux.people import People, take
from tinyflux.text import CLIP_LENGTH, build_text_encoders
from utils.models.flux1 import image_ids, pack_latents, unpack_latents

CAPTION_DROPOUT = 0.12
T5_LENGTHS = ((32, 0.84), (64, 0.10), (128, 0.05), (512, 0.01))
"""Prompts are padded to these lengths, with these shares: without a mask, padding must be learned too."""
GUIDANCE = (1.0, 6.0)
"""Guidance scales that are distilled."""
SHIFT = 1.6
"""exp(mu) of FLUX's shift at 64 image tokens; training spends its time where sampling does."""

EYES, EYES_WEIGHT = (slice(5, 9), slice(4, 12)), 3.0
"""Rows and columns of the latents where any face has its eyes, and how much more an error counts there.

Eyes are an eighth of the image and what is looked at first. The weights are the same for every image, so that
the best velocity stays what it is.
"""


class Base(nn.Module):
    """Text in, velocity out: what FluxPipeline does around the transformer, with gradients."""

    def __init__(self) -> None:
        super().__init__()
        text = build_text_encoders()
        self.tokenizer, self.tokenizer_2 = text["tokenizer"], text["tokenizer_2"]
        self.text_encoder, self.text_encoder_2 = text["text_encoder"], text["text_encoder_2"]
        self.transformer = FluxTransformer2DModel(
            in_channels=64,
            num_layers=2,
            num_single_layers=4,
            attention_head_dim=64,
            num_attention_heads=4,
            joint_attention_dim=self.text_encoder_2.config.d_model,
            pooled_projection_dim=self.text_encoder.config.hidden_size,
            guidance_embeds=True,
            axes_dims_rope=(8, 28, 28),
        )

    def encode(self, prompts: Sequence[str], length: int) -> tuple[Tensor, Tensor]:
        """T5's (B, length, D) and CLIP's pooled (B, D'), padded as FluxPipeline pads."""
        device = self.transformer.device
        options = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
        clip_ids = self.tokenizer(list(prompts), max_length=CLIP_LENGTH, **options).input_ids.to(device)
        t5_ids = self.tokenizer_2(list(prompts), max_length=length, **options).input_ids.to(device)
        return self.text_encoder_2(t5_ids)[0], self.text_encoder(clip_ids).pooler_output

    def forward(self, x_t: Tensor, sigma: Tensor, guidance: Tensor, text: tuple[Tensor, Tensor]) -> Tensor:
        """Velocity (B, C, h, w) at x_t (B, C, h, w), sigma (B,), guidance scale (B,)."""
        height, width = x_t.shape[-2:]
        prompt_embeds, pooled = text
        velocity = self.transformer(
            hidden_states=pack_latents(x_t),
            timestep=sigma,
            guidance=guidance,
            encoder_hidden_states=prompt_embeds,
            pooled_projections=pooled,
            txt_ids=torch.zeros(prompt_embeds.shape[1], 3, device=x_t.device),
            img_ids=image_ids(height, width, x_t.device),
            return_dict=False,
        )[0]
        return unpack_latents(velocity, height, width).float()


class Captioned:
    """Scaled latents (N, 16, h, w) with their people, handed out in noised batches."""

    def __init__(self, latents: Tensor, people: People, batch_size: int, device: torch.device) -> None:
        self.latents, self.people = latents, people
        self.batch_size, self.device = batch_size, device

    def draw(self, generator: torch.Generator) -> tuple[list[str], int, Tensor, Tensor, Tensor]:
        """Prompts, the length to pad them to, x_t, sigma (B,) and the velocity of rectified flow."""
        index = torch.randint(len(self.latents), (self.batch_size,), generator=generator)
        x_0 = self.latents[index].float()
        noise = torch.randn(x_0.shape, generator=generator)
        sigma = draw_sigma(self.batch_size, generator)
        x_t = torch.lerp(x_0, noise, sigma[:, None, None, None])
        seed = int(torch.randint(2**31, (1,), generator=generator))
        dropped = (torch.rand(self.batch_size, generator=generator) < CAPTION_DROPOUT).tolist()
        prompts = [
            "" if drop else text
            for text, drop in zip(captions(take(self.people, index), seed), dropped, strict=True)
        ]
        shares = torch.tensor([share for _, share in T5_LENGTHS])
        length = T5_LENGTHS[int(torch.multinomial(shares, 1, generator=generator))][0]
        return prompts, length, x_t.to(self.device), sigma.to(self.device), (noise - x_0).to(self.device)


def draw_sigma(count: int, generator: torch.Generator) -> Tensor:
    """Noise levels (count,): logit-normal (arXiv 2403.03206, section 3.1), a fifth uniform, shifted."""
    normal = torch.randn(count, generator=generator).sigmoid()
    uniform = torch.rand(count, generator=generator)
    sigma = torch.where(torch.rand(count, generator=generator) < 0.2, uniform, normal)
    return SHIFT * sigma / (1 + (SHIFT - 1) * sigma)


@contextmanager
def training_mode(device: torch.device) -> Iterator[None]:
    """bfloat16, and on a CPU plain attention: its fused attention is slow to differentiate at this size."""
    attention = sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()
    with attention, torch.autocast(device.type, torch.bfloat16):
        yield


def weighted_error(predicted: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared error of velocities (B, C, 16, 16), weighted (by 1 on average) towards the eyes."""
    weights = torch.ones(predicted.shape[-2:], device=predicted.device)
    weights[EYES] = EYES_WEIGHT
    return ((predicted - wanted).square() * (weights / weights.mean())).mean()


def flow_losses(base: Base, data: Captioned) -> Callable[[int, torch.Generator], Losses]:
    """|v(x_t, sigma, text) - (noise - x_0)|^2 at guidance 1; see `weighted_error`."""

    def losses(step: int, generator: torch.Generator) -> Losses:
        prompts, length, x_t, sigma, velocity = data.draw(generator)
        with training_mode(data.device):
            predicted = base(x_t, sigma, torch.ones_like(sigma), base.encode(prompts, length))
        return {"flow": weighted_error(predicted, velocity)}

    return losses


def guidance_losses(base: Base, teacher: Base, data: Captioned) -> Callable[[int, torch.Generator], Losses]:
    """Classifier-free guidance in one pass (Meng et al. 2022, arXiv 2210.03142, section 3.1).

    |v(x_t, text, g) - (v_teacher(x_t, "") + g * (v_teacher(x_t, text) - v_teacher(x_t, "")))|^2
    """

    def losses(step: int, generator: torch.Generator) -> Losses:
        prompts, length, x_t, sigma, _ = data.draw(generator)
        low, high = GUIDANCE
        guidance = (low + (high - low) * torch.rand(len(sigma), generator=generator)).to(sigma)
        with training_mode(data.device):
            with torch.no_grad():
                one = torch.ones_like(sigma)
                conditional = teacher(x_t, sigma, one, teacher.encode(prompts, length))
                empty = tuple(
                    part.expand(len(sigma), *part.shape[1:]) for part in teacher.encode([""], length)
                )
                unconditional = teacher(x_t, sigma, one, empty)
            target = unconditional + guidance[:, None, None, None] * (conditional - unconditional)
            predicted = base(x_t, sigma, guidance, base.encode(prompts, length))
        return {"guidance": weighted_error(predicted, target)}

    return losses


def train_base(data: Captioned, schedule: Schedule, checkpoint: Path, compiled: bool = False) -> Base:
    """Train transformer and text encoders from nothing."""
    base = Base().to(data.device)
    if compiled:
        base.transformer.compile(dynamic=False)
    return fit(base, flow_losses(base, data), schedule, checkpoint)


def distill_guidance(
    teacher: Base, data: Captioned, schedule: Schedule, checkpoint: Path, compiled: bool = False
) -> Base:
    """A copy of `teacher` whose guidance embedding does what classifier-free guidance would."""
    teacher.requires_grad_(False)
    base = copy.deepcopy(teacher).requires_grad_(True)
    base.text_encoder.requires_grad_(False)
    base.text_encoder_2.requires_grad_(False)
    if compiled:
        base.transformer.compile(dynamic=False)
        teacher.transformer.compile(dynamic=False)
    return fit(base, guidance_losses(base, teacher, data), schedule, checkpoint, seed=1)
