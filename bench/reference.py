"""What PairEdit's reference implementation does, written plainly with diffusers and peft: the loops to beat.

Training reads and encodes the images at every step, the empty prompt once; sampling goes from the first step
on for every scale, one forward pass for each velocity. All parts of the model stay on the device. The method
is this framework's own: the same draws give the same losses and images. Adapters that are off are left out,
where the reference implementation computes them and multiplies by 0; it is the faster for it here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import FluxPipeline
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from peft.tuners.lora import LoraLayer
from torch import Tensor
from torch.nn.functional import mse_loss

from utils.bars import Bar
from utils.config.runs import Run
from utils.config.schema import Config
from utils.data.photos import load_photo
from utils.data.pixels import load_image
from utils.errors import UserError
from utils.files import find_images
from utils.models.adapters import adapter_parameters, add_adapter, remove_adapter


class ReferenceTraining:
    """Training by the published loop: `step` does one, `close` takes the adapters off again."""

    def __init__(self, pipeline: FluxPipeline, run: Run) -> None:
        self.pipeline, self.config, self.beta = pipeline, run.config, run.noise_scale
        first = slice(self.config.pair_count or None)
        self.sources, self.targets = (
            list(find_images(folder).values())[first] for folder in (run.source_folder, run.target_folder)
        )
        # random choices in the order of utils/training/trainer.py and utils/training/batches.py
        self.generator = torch.Generator().manual_seed(run.seed)
        for name in ("content", "semantic"):
            seed = int(torch.randint(2**31, (), generator=self.generator))
            add_adapter(
                *(pipeline.transformer, name, self.config.rank, self.config.alpha, self.config.train_method),
                seed,
            )
        if self.config.gradient_checkpointing:
            pipeline.transformer.enable_gradient_checkpointing()
        self.adapters = Adapters(pipeline.transformer)
        self.content = adapter_parameters(pipeline.transformer, "content")
        semantic = adapter_parameters(pipeline.transformer, "semantic")
        self.optimizer = torch.optim.AdamW([*self.content, *semantic], lr=self.config.lr)
        self.text = encode_prompt(pipeline, "", self.config)
        side = self.config.resolution // pipeline.vae_scale_factor
        self.sigmas = noise_levels(pipeline, self.config, side, side)
        self.bar = Bar(desc="reference", unit="step")

    def step(self) -> dict[str, float]:
        """Read and encode a pair, train both adapters on it once; the content and the semantic loss."""
        config, generator, size = self.config, self.generator, (self.config.batch_size,)
        pair = torch.randint(len(self.sources), size, generator=generator).tolist()
        drawn = torch.randint(config.end_step + 1 - config.start_step, size, generator=generator)
        source = torch.cat([self.encode(self.sources[index]) for index in pair])
        target = torch.cat([self.encode(self.targets[index]) for index in pair])
        noise = torch.randn(source.shape, generator=generator).to(source.device)
        sigma = self.sigmas[config.start_step + drawn.to(self.sigmas.device)]

        x_t = source + sigma.reshape(-1, 1, 1, 1) * self.beta * noise
        velocity = self.beta * noise
        self.adapters.set({"content": 1.0})
        content_loss = mse_loss(self.predict(x_t, sigma), velocity)
        content_loss.backward()

        self.adapters.set({"content": 1.0, "semantic": 1.0})
        for weight in self.content:
            weight.requires_grad_(False)
        velocity_target = velocity + config.cfg_eta * (source - target)
        semantic_loss = mse_loss(self.predict(x_t, sigma), velocity_target)
        semantic_loss.backward()

        losses = {"content": content_loss.item(), "semantic": semantic_loss.item()}
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.bar.update()
        self.bar.set_postfix(losses)
        return losses

    def encode(self, path: Path) -> Tensor:
        """Latents (1, C, h, w) of an image's file."""
        return encode_image(self.pipeline, load_image(path, self.config.resolution, self.config.resize))

    def predict(self, x_t: Tensor, sigma: Tensor) -> Tensor:
        """The velocity under the empty prompt, with the adapters now on."""
        return predict_velocity(self.pipeline, x_t, sigma, self.text, self.config.guidance_scale)

    def close(self) -> None:
        """Leave the transformer as it was."""
        self.bar.close()
        self.pipeline.transformer.disable_gradient_checkpointing()
        for name in ("content", "semantic"):
            remove_adapter(self.pipeline.transformer, name)


@torch.no_grad()
def sweep_images(pipeline: FluxPipeline, prompt: str, seed: int, config: Config) -> dict[float, Tensor]:
    """An image (1, 3, H, W) in [-1, 1] of each of the config's scales, all made from the first step on.

    The adapter "semantic" is off before step index `skips[0]`.
    """
    images, adapters = {}, Adapters(pipeline.transformer)
    for scale in config.scales:
        text = encode_prompt(pipeline, prompt, config)
        width, height = (side // pipeline.vae_scale_factor for side in config.image_size)
        sigmas = noise_levels(pipeline, config, height, width)
        x_t = _noise(pipeline, seed, height, width)
        for step in range(config.num_inference_steps):
            adapters.set({"semantic": scale} if step >= config.skips[0] and scale != 0 else {})
            v = predict_velocity(pipeline, x_t, sigmas[step : step + 1], text, config.guidance_scale)
            x_t = x_t + (sigmas[step + 1] - sigmas[step]) * v
        images[scale] = decode_image(pipeline, x_t)
    adapters.close()
    return images


@torch.no_grad()
def edit_photo(
    pipeline: FluxPipeline, photograph: Path, prompt: str, seed: int, config: Config
) -> dict[float, Tensor]:
    """A photograph's edit (1, 3, H, W) in [-1, 1] at each of the config's scales, each from the file on.

    Raises:
        UserError: for an inversion that has no plain loop here.
    """
    edit = PLAIN.get(config.inversion)
    if edit is None or (config.inversion == "lora" and config.inversion_rule != "difference"):
        raise UserError(
            "inversion: expected flowedit, or lora with inversion_rule difference; found "
            f"{config.inversion} with {config.inversion_rule}"
        )
    images, adapters = {}, Adapters(pipeline.transformer)
    for scale in config.scales:
        photo = load_photo(photograph, config.resolution, config.resize, 2 * pipeline.vae_scale_factor)
        x_0 = encode_image(pipeline, photo.pixels)
        text = encode_prompt(pipeline, prompt, config)
        sigmas = noise_levels(pipeline, config, *x_0.shape[-2:])
        noise = _noise(pipeline, seed, *x_0.shape[-2:])

        def velocity(scales: Mapping[str, float], x_t: Tensor, sigma: Tensor, text: Text = text) -> Tensor:
            adapters.set(scales)
            return predict_velocity(pipeline, x_t, sigma[None], text, config.guidance_scale)

        images[scale] = decode_image(pipeline, edit(velocity, x_0, sigmas, noise, scale, config))
    adapters.close()
    return images


Velocity = Callable[[Mapping[str, float], Tensor, Tensor], Tensor]
"""(scales of the adapters that are on, x_t, sigma) -> velocity."""


def _flowedit(
    velocity: Velocity, x_0: Tensor, sigmas: Tensor, noise: Tensor, scale: float, config: Config
) -> Tensor:
    """FlowEdit (arXiv 2412.08629, algorithm 1) from step index `skips[0]` on: two velocities a step."""
    generator, z = torch.Generator().manual_seed(0), x_0
    for step in range(config.skips[0], config.num_inference_steps):
        order = torch.randperm(noise.numel(), generator=generator).to(noise.device)
        shuffled = noise.flatten()[order].reshape(noise.shape)
        x_source = (1 - sigmas[step]) * x_0 + sigmas[step] * shuffled
        v_source = velocity({}, x_source, sigmas[step])
        v_edited = velocity({"semantic": scale} if scale != 0 else {}, z + x_source - x_0, sigmas[step])
        z = z + (sigmas[step + 1] - sigmas[step]) * (v_edited - v_source)
    return z


def _lora(
    velocity: Velocity, x_0: Tensor, sigmas: Tensor, noise: Tensor, scale: float, config: Config
) -> Tensor:
    """From noise, led by the adapter "inversion": one velocity a step, three once the edit acts."""
    x_t = noise
    for step in range(config.num_inference_steps):
        v = velocity({"inversion": 1.0}, x_t, sigmas[step])
        if step >= config.skips[0] and scale != 0:
            change = velocity({"semantic": scale}, x_t, sigmas[step]) - velocity({}, x_t, sigmas[step])
            v = v + config.semantic_cfg_scale * change
        x_t = x_t + (sigmas[step + 1] - sigmas[step]) * v
    return x_t


PLAIN = {"flowedit": _flowedit, "lora": _lora}


class Adapters:
    """Switches adapters on and off by peft's own calls, the layers looked up once."""

    def __init__(self, transformer: Any) -> None:
        self.layers = [module for module in transformer.modules() if isinstance(module, LoraLayer)]
        self.scales: dict[str, float] | None = None
        weights = [
            weight
            for layer in self.layers
            for weight in (*layer.lora_A.parameters(), *layer.lora_B.parameters())
        ]
        self.before = [(weight, weight.data) for weight in weights]
        for weight in weights:  # in the base's dtype, as the reference implementation has them
            weight.data = weight.data.to(transformer.dtype)

    def close(self) -> None:
        """All off, and their weights as before."""
        self.set({})
        for weight, data in self.before:
            weight.data = data

    def set(self, scales: Mapping[str, float]) -> None:
        """Exactly these are on, and trainable, at these scales; nothing is done where they are already."""
        if scales == self.scales:
            return
        for layer in self.layers:
            if layer.disable_adapters == bool(scales):
                layer.enable_adapters(bool(scales))
            if scales:
                layer.set_adapter(list(scales))
            for name, scale in scales.items():
                layer.set_scale(name, scale)
        self.scales = dict(scales)


@dataclass(frozen=True)
class Text:
    """What the transformer is given of a prompt."""

    prompt_embeds: Tensor
    pooled_prompt_embeds: Tensor
    text_ids: Tensor


@torch.no_grad()
def encode_prompt(pipeline: FluxPipeline, prompt: str, config: Config) -> Text:
    """By CLIP and T5."""
    device = pipeline.transformer.device
    length = config.max_sequence_length
    return Text(*pipeline.encode_prompt(prompt, None, device=device, max_sequence_length=length))


@torch.no_grad()
def encode_image(pipeline: FluxPipeline, pixels: Tensor) -> Tensor:
    """Latents (1, C, h, w), float32, of pixels (3, H, W) in [-1, 1]."""
    vae = pipeline.vae
    latents = vae.encode(pixels[None].to(vae.device, vae.dtype)).latent_dist.mode()
    return (latents.float() - vae.config.shift_factor) * vae.config.scaling_factor


@torch.no_grad()
def decode_image(pipeline: FluxPipeline, latents: Tensor) -> Tensor:
    """Pixels (1, 3, H, W) in [-1, 1], float32 on the CPU."""
    vae = pipeline.vae
    latents = latents / vae.config.scaling_factor + vae.config.shift_factor
    return vae.decode(latents.to(vae.dtype)).sample.float().clamp(-1, 1).cpu()


def predict_velocity(
    pipeline: FluxPipeline, x_t: Tensor, sigma: Tensor, text: Text, guidance_scale: float
) -> Tensor:
    """Velocity (B, C, h, w), float32, at x_t (B, C, h, w) and sigma (B,), as FluxPipeline computes it."""
    transformer, (batch, channels, height, width) = pipeline.transformer, x_t.shape
    dtype, device = transformer.dtype, x_t.device
    guided = transformer.config.guidance_embeds
    packed = pipeline._pack_latents(x_t.to(dtype), batch, channels, height, width)
    predicted = transformer(
        hidden_states=packed,
        timestep=(sigma * 1000).to(dtype) / 1000,
        guidance=torch.full((batch,), guidance_scale, device=device) if guided else None,
        pooled_projections=text.pooled_prompt_embeds.expand(batch, -1),
        encoder_hidden_states=text.prompt_embeds.expand(batch, -1, -1),
        txt_ids=text.text_ids,
        img_ids=pipeline._prepare_latent_image_ids(batch, height // 2, width // 2, device, dtype),
        return_dict=False,
    )[0]
    factor = pipeline.vae_scale_factor
    return pipeline._unpack_latents(predicted, factor * height, factor * width, factor).float()


def noise_levels(pipeline: FluxPipeline, config: Config, height: int, width: int) -> Tensor:
    """The sigmas (N + 1,) of N steps on latents of a size, by the pipeline's scheduler, on the device."""
    scheduler, steps = pipeline.scheduler, config.num_inference_steps
    line = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
    mu = calculate_shift(height // 2 * (width // 2), *(scheduler.config[key] for key in line))
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)
    return scheduler.sigmas.to(pipeline.transformer.device)


def _noise(pipeline: FluxPipeline, seed: int, height: int, width: int) -> Tensor:
    shape: Sequence[int] = (1, pipeline.vae.config.latent_channels, height, width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(pipeline.transformer.device)
