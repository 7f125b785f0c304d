"""Images as pixels: sweep seeds, skips and slider scales with a trained edit, or edit a photograph.

The edit is whatever adapter is named "semantic": put one there with `applied_lora`, or several, "semantic_2"
and so on, with `applied_loras`. utils/generation/gallery.py writes what comes out to files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils.config.runs import RealRun
from utils.config.schema import Config, SliderScale
from utils.data.photos import Photo
from utils.flow.inversion import Inversion, build_inversion
from utils.flow.locality import Locality
from utils.flow.sampling import Hold, OnStep, Scale, initial_noise, sweep_skips
from utils.lora.loading import load_lora
from utils.lora.metadata import check_base
from utils.models.adapters import remove_adapter
from utils.models.base import Base, PromptEmbeds
from utils.models.velocity import ScaledVelocity, Velocity

Sweep = dict[int, dict[Scale, Tensor]]
"""{skip: {scale: pixels (B, 3, H, W) in [-1, 1], float32 on the CPU}}"""


@contextmanager
def applied_lora(
    transformer: Any,
    path: Path,
    name: str = "semantic",
    other_base: bool = False,
    text_apart: bool = False,
) -> Iterator[dict[str, str]]:
    """Inside, the LoRA of a file is there as adapter `name`, inactive; gives the metadata of its header.

    Args:
        transformer: the base's.
        path: the file.
        name: of the adapter.
        other_base: take one that says that it was trained on another base.
        text_apart: whether prompts were encoded with what it has for text encoders (see
            utils/generation/texts.py); a file that has any is refused else.

    Raises:
        UserError: if the file is missing, damaged, or does not fit the transformer; unless `other_base`, if
            it says that it was trained on another.
    """
    metadata = load_lora(transformer, path, name, text_apart)
    try:
        if not other_base:
            check_base(path, metadata, transformer)
        yield metadata
    finally:
        remove_adapter(transformer, name)


@contextmanager
def applied_loras(
    transformer: Any, paths: Sequence[Path], other_base: bool = False, text_apart: bool = False
) -> Iterator[None]:
    """Inside, LoRAs are there together, as "semantic", "semantic_2" and so on; see `applied_lora`."""
    with ExitStack() as loras:
        for name, path in zip(semantic_names(len(paths)), paths, strict=True):
            loras.enter_context(applied_lora(transformer, path, name, other_base, text_apart))
        yield


def semantic_names(count: int) -> list[str]:
    """The adapters of `count` edits applied together."""
    return ["semantic", *(f"semantic_{number}" for number in range(2, count + 1))]


@contextmanager
def forwards_reported(base: Base) -> Iterator[None]:
    """Print how often the transformer was called inside, and with how many images."""
    before = replace(base.forwards)
    yield
    calls, images = base.forwards.calls - before.calls, base.forwards.images - before.images
    print(f"{calls} transformer forwards, {images} images in them", flush=True)


def sweep_images(
    base: Base,
    embeds: PromptEmbeds,
    seeds: Sequence[int],
    skips: Sequence[int],
    scales: Sequence[Scale],
    config: Config,
    progress: Callable[[int], object] | None = None,
) -> Sweep[Scale]:
    """Generate one image for every seed, skip and scale.

    The adapter "semantic" acts from step index `skip` on, at `scale`; scale 0 is the base model, for which no
    adapter need be there. A seed's image depends on the other seeds by float rounding at most.

    Args:
        base: with its VAE; the text encoders may be gone.
        embeds: of one prompt for all seeds, or of one a seed.
        seeds: at least one; each draws the noise of its image.
        skips: step indices in 0..num_inference_steps.
        scales: slider scales, of either sign; of several edits together, a tuple of one each.
        config: gives their size, num_inference_steps, guidance_scale and batch_size_gen.
        progress: called after each forward pass with the number of images in it; len(seeds) *
            sweep_forwards(num_inference_steps, skips, scales, locality) in all.

    Returns:
        {skip: {scale: (len(seeds), 3, H, W)}}, float32 in [-1, 1] on the CPU, seeds in the order given.

    Raises:
        ValueError: no seed, skip or scale; a skip out of range; a scale other than 0 without the adapter.
    """
    batches = [images for _, images in sweep_batches(base, embeds, seeds, skips, scales, config, progress)]
    if not batches:
        raise ValueError("expected at least one seed, found none")
    return {
        skip: {scale: torch.cat([batch[skip][scale] for batch in batches]) for scale in by_scale}
        for skip, by_scale in batches[0].items()
    }


def sweep_batches(
    base: Base,
    embeds: PromptEmbeds,
    seeds: Sequence[int],
    skips: Sequence[int],
    scales: Sequence[Scale],
    config: Config,
    progress: Callable[[int], object] | None = None,
) -> Iterator[tuple[Sequence[int], Sweep[Scale]]]:
    """Yield up to batch_size_gen seeds at a time, as (these seeds, their images); see `sweep_images`."""
    width, height = config.image_size
    shape = base.latent_shape(height, width)
    on_step = _counter(progress)
    names = semantic_names(len(scales[0]) if scales and isinstance(scales[0], tuple) else 1)
    sigmas = base.sigmas(config.num_inference_steps, *shape[1:])
    embeds, batch_size = embeds.expand(len(seeds)), config.batch_size_gen
    for first in range(0, len(seeds), batch_size):
        batch = seeds[first : first + batch_size]
        part = slice(first, first + batch_size)

        latents = sweep_skips(
            velocity_for(_model(base, embeds.of_images(part), config), names),
            initial_noise(batch, shape).to(base.device),
            sigmas,
            skips,
            scales,
            on_step,
            hold_of(config),
            config.lora_skips,
        )
        yield (
            batch,
            {
                skip: {scale: base.decode_latents(x_0).cpu() for scale, x_0 in by_scale.items()}
                for skip, by_scale in latents.items()
            },
        )


def hold_of(config: Config) -> Hold | None:
    """What holds edited images to the unedited one, if the config asks for it."""
    return Locality() if config.locality else None


def velocity_for(model: Velocity, names: Sequence[str]) -> Callable[[Sequence[SliderScale]], ScaledVelocity]:
    """Slider scales -> velocity of a batch with a part at each; the edits are the adapters `names`."""

    def at(scales: Sequence[SliderScale]) -> ScaledVelocity:
        each = [scale if isinstance(scale, tuple) else (scale,) for scale in scales]
        return model.scaled(*(_acting(dict(zip(names, own, strict=True))) for own in each))

    return at


def _acting(scales: dict[str, float]) -> dict[str, float]:
    """Without those at 0: the base needs no adapter."""
    return {name: scale for name, scale in scales.items() if scale}


def _counter(progress: Callable[[int], object] | None) -> OnStep | None:
    """`progress` as the sampler calls it: after each forward pass, with the number of its images."""
    if progress is None:
        return None

    def on_step(_: int, x_t: Tensor) -> None:
        progress(len(x_t))

    return on_step


def _model(base: Base, embeds: PromptEmbeds, config: Config) -> Velocity:
    return Velocity(base, embeds, config.guidance_scale, config.batch_size_gen)


def inversion_of(config: Config) -> Inversion:
    """The inversion that a config asks for."""
    return build_inversion(config.inversion, config.inversion_rule, config.semantic_cfg_scale)


def edit_photo(run: RealRun, base: Base, photo: Photo, seed: int, embeds: PromptEmbeds) -> Sweep[float]:
    """Edit a photograph with the adapters "semantic" and, for `inversion: lora`, "inversion" now there.

    Args:
        run: gives inversion, skips, scales and the other settings.
        base: with its VAE.
        photo: the photograph.
        seed: of the noise, for inversions that draw any.
        embeds: of the prompt.

    Returns:
        {skip: {scale: pixels (1, 3, H, W)}}; scale 0, the reconstruction, is always among them.
    """
    config = run.config
    x_0 = base.encode_images(photo.pixels[None])
    noise = initial_noise([seed], x_0.shape[1:]).to(base.device)
    sigmas = base.sigmas(config.num_inference_steps, *x_0.shape[-2:])
    fields = _model(base, embeds, config).scaled
    scales = list(dict.fromkeys([*config.scales, 0.0]))
    edits: Sweep[float] = {}
    for skip in config.skips:
        latents = inversion_of(config).edit(fields, x_0, sigmas, skip, scales, noise)
        if hold := hold_of(config):  # at the end: what runs along differs from inversion to inversion
            latents = {scale: hold(latents[0.0], edited) for scale, edited in latents.items()}
        edits[skip] = {scale: base.decode_latents(edited).cpu() for scale, edited in latents.items()}
    return edits
