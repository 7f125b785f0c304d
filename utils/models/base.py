"""A frozen base model as the rest of the library sees it, whatever its family; what all families share."""

from __future__ import annotations

import gc
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError
from torch import Tensor

from utils.errors import UserError
from utils.machine import heavy_imports
from utils.models.embeds import PromptEmbeds
from utils.models.families import family_named, pipeline_in
from utils.models.family import Family


@dataclass
class Forwards:
    """How often the transformer was called, and with how many images in all."""

    calls: int = 0
    images: int = 0


@dataclass
class Base(ABC):
    """A frozen base model. Each part is loaded when first asked for, and once more if it was let go since.

    So a prompt is encoded before the transformer is there, and no more is held than is at work. Latents and
    velocities keep the dtype they come in (float32 as a rule); only the networks run in the base's dtype.

    Attributes:
        path: a folder in diffusers layout, or a hub id.
        device, dtype: of all parts.
        quantization: of the transformer's linears, a key of QUANTIZATIONS in utils/models/quantization.py.
        family: the facts that are known without loading.
        parts: those that are there, by the pipeline's names.
        forwards: of the transformer, so far.
        spellings: tokenizer -> {word: what stands for it before this tokenizer}, of new words.
        text_parts: what encodes prompts, by the pipeline's names.
        image_parts: what encodes and decodes images; () for a base whose latents are pixels.
    """

    path: str
    device: torch.device
    dtype: torch.dtype
    quantization: str = "none"
    parts: dict[str, Any] = field(default_factory=dict)
    forwards: Forwards = field(default_factory=Forwards)
    spellings: dict[str, dict[str, str]] = field(default_factory=dict)
    family: ClassVar[Family]
    text_parts: ClassVar[tuple[str, ...]]
    image_parts: ClassVar[tuple[str, ...]] = ("vae",)

    # --- what a family says ---

    @abstractmethod
    def load(self, names: Sequence[str]) -> dict[str, Any]:
        """Some parts, frozen, in eval mode and on the device; raises `UserError` if they are not there."""

    @abstractmethod
    def encode_prompts(
        self, prompts: Sequence[str], max_sequence_length: int, parts: Collection[str] | None = None
    ) -> PromptEmbeds:
        """The embeddings of B prompts, with gradients to what learns in the text encoders, if anything does.

        Args:
            prompts: B texts.
            max_sequence_length: in tokens; a longer prompt is cut, with a warning.
            parts: text encoders whose tensors alone are wanted; None: all.
        """

    @abstractmethod
    def encode_images(self, pixels: Tensor) -> Tensor:
        """Latents (B, C, h, w), float32, about standard normal, of pixels (B, 3, H, W) in [-1, 1]."""

    @abstractmethod
    def decode_latents(self, latents: Tensor) -> Tensor:
        """Pixels (B, 3, H, W), float32 in [-1, 1], of latents (B, C, h, w)."""

    @abstractmethod
    def sigmas(self, num_inference_steps: int, height: int, width: int) -> Tensor:
        """Noise levels (N + 1,) from 1 to 0 of N steps on latents of height x width, on the device."""

    @abstractmethod
    def shape_of_latents(self, height: int, width: int) -> tuple[int, int, int]:
        """(C, h, w) of the latents of an image of height x width pixels, multiples of the family's."""

    @abstractmethod
    def velocity(self, latents: Tensor, sigma: Tensor, embeds: PromptEmbeds, guidance_scale: float) -> Tensor:
        """The transformer's velocity, as of `predict_velocity`; `embeds` are of as many prompts as images."""

    def learned_guidance(self, guidance_scale: float) -> float:
        """The guidance_scale of the velocity that LoRAs learn, where images are sampled under another."""
        return guidance_scale

    # --- what all share ---

    @property
    def transformer(self) -> Any:
        """The network that is edited; diffusers' classes carry no usable types."""
        return self.part("transformer")

    @property
    def scheduler(self) -> Any:
        """The scheduler, which knows the noise levels."""
        return self.part("scheduler")

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(C, h, w) of the latents of an image of height x width pixels.

        Raises:
            UserError: for a side that is no multiple of the family's.
        """
        for side in (height, width):
            self.family.check_size(side, "resolution")
        return self.shape_of_latents(height, width)

    def predict_velocity(
        self, latents: Tensor, sigma: Tensor, embeds: PromptEmbeds, guidance_scale: float
    ) -> Tensor:
        """The transformer's velocity (B, C, h, w), in the latents' dtype, with the adapters now active.

        Args:
            latents: x_t (B, C, h, w).
            sigma: (B,) in [0, 1].
            embeds: of one prompt, or of B.
            guidance_scale: of distilled guidance, or of true one; a base that has none passes it over.
        """
        self.forwards.calls += 1
        self.forwards.images += len(latents)
        # autocast: the base is in its dtype already; adapters are float32, and so are their gradients
        with torch.autocast(latents.device.type, self.dtype, enabled=self.dtype == torch.bfloat16):
            return self.velocity(latents, sigma, embeds.expand(len(latents)), guidance_scale)

    def spelled(self, prompts: Sequence[str], tokenizer: str) -> list[str]:
        """Prompts with what stands for new words before one of the tokenizers."""
        words = self.spellings.get(tokenizer)
        if not words:
            return list(prompts)
        longest_first = "|".join(map(re.escape, sorted(words, key=len, reverse=True)))
        return [re.sub(longest_first, lambda word: words[word[0]], prompt) for prompt in prompts]

    def release_text_encoders(self, keep: Collection[str] = ()) -> None:
        """Let go of what encodes prompts (9.5 GiB with FLUX.1-dev), but for the parts to keep."""
        self._release(*(part for part in self.text_parts if part not in keep))

    def release_vae(self) -> None:
        """Let go of what encodes and decodes images."""
        self._release(*self.image_parts)

    def part(self, name: str) -> Any:
        """A part by the pipeline's name."""
        if name not in self.parts:
            self.parts |= self.load(self.text_parts if name in self.text_parts else (name,))
        return self.parts[name]

    def _release(self, *names: str) -> None:
        held = [self.parts.pop(name, None) for name in names]
        if any(part is not None for part in held) and self.device.type != "cpu":
            held.clear()
            gc.collect()
            (torch.mps if self.device.type == "mps" else torch.cuda).empty_cache()


def load_base_model(path: str, device: torch.device, dtype: torch.dtype, quantization: str = "none") -> Base:
    """A base model of whichever family is at `path`, frozen and in eval mode.

    Args:
        path: a folder in diffusers layout, or a hub id.
        device: where all parts go, and where they are to compute.
        dtype: of all parts.
        quantization: of the transformer's linears.

    Raises:
        UserError: if there is no complete pipeline of a known family at `path`; also later, of a part that
            can't be loaded.
    """
    module, name = family_named(pipeline_in(_model_index(path))).base.split(":")
    with heavy_imports():
        family = import_module(module)
    base: Base = getattr(family, name)(path, device, dtype, quantization)
    base.scheduler  # noqa: B018  a wrong path is reported now
    return base


def _model_index(path: str) -> Path:
    """The model_index.json of a folder or hub id."""
    local = Path(path) / "model_index.json"
    if local.is_file():
        return local
    try:
        if Path(path).is_dir():
            raise FileNotFoundError(f"no {local.name} in it")
        return Path(hf_hub_download(path, local.name))
    except (OSError, ValueError, HfHubHTTPError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"pretrained_model_name_or_path: expected a diffusers model at {path}, found: {reason}"
        ) from error


def scheduler_sigmas(scheduler: Any, num_inference_steps: int, mu: float | None) -> Tensor:
    """The noise levels (N + 1,) of N steps as a diffusers flow-matching scheduler lays them out, float32.

    Its own set_timesteps rounds on the way. Where its levels are those of its time shift alone, they are
    taken from that in double precision, right to the last bit; else (a terminal shift, Karras, beta, ...) as
    they are.

    Args:
        scheduler: FlowMatchEulerDiscreteScheduler or alike.
        num_inference_steps: N >= 1.
        mu: log-shift, for a scheduler of dynamic shifting; a fixed shift is its own.

    Raises:
        ValueError: if N < 1.
        UserError: for a scheduler of another kind, which takes no noise levels.
    """
    if not hasattr(scheduler, "time_shift") or "sigmas" not in signature(scheduler.set_timesteps).parameters:
        raise UserError(
            "scheduler_config.json: expected a flow-matching scheduler that takes sigmas, such as "
            f"FlowMatchEulerDiscreteScheduler, found {type(scheduler).__name__}"
        )
    if num_inference_steps < 1:
        raise ValueError(f"num_inference_steps must be at least 1, found {num_inference_steps}")
    steps = np.linspace(1.0, 1 / num_inference_steps, num_inference_steps)
    scheduler.set_timesteps(sigmas=steps, mu=mu)
    rounded = scheduler.sigmas.float().cpu()
    shift = np.log(scheduler.config.shift) if mu is None else mu
    exact = torch.from_numpy(np.append(scheduler.time_shift(shift, 1.0, steps), 0.0)).float()
    return exact if torch.allclose(exact, rounded, rtol=0, atol=1e-6) else rounded
