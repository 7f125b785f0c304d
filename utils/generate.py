"""Images of a run: sweep seeds, skips and slider scales, write the files and a captioned grid a seed.

`sweep_images` gives pixels and touches no file; evaluation uses it too. The edit is whatever adapter is named
"semantic": put one there with `applied_lora`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from utils.adapters import remove_adapter
from utils.config import Config, Run
from utils.figures import Grid, draw_grid, save_gif, to_images
from utils.flux import Flux, FluxVelocity, PromptEmbeds
from utils.inversion import Inversion, build_inversion
from utils.lora_files import load_lora
from utils.photos import Photo
from utils.runs import RealRun
from utils.sampling import OnStep, initial_noise, sweep_forwards, sweep_skips

Sweep = dict[int, dict[float, Tensor]]
"""{skip: {scale: pixels (B, 3, H, W) in [-1, 1], float32 on the CPU}}"""


@contextmanager
def applied_lora(transformer: Any, path: Path, name: str = "semantic") -> Iterator[dict[str, str]]:
    """Inside, the LoRA of a file is there as adapter `name`, inactive; gives the metadata of its header.

    Raises:
        UserError: if the file is missing, damaged, or does not fit the transformer.
    """
    metadata = load_lora(transformer, path, name)
    try:
        yield metadata
    finally:
        remove_adapter(transformer, name)


def sweep_images(
    flux: Flux,
    embeds: PromptEmbeds,
    seeds: Sequence[int],
    skips: Sequence[int],
    scales: Sequence[float],
    config: Config,
    batch_size: int = 8,
    progress: Callable[[int], object] | None = None,
) -> Sweep:
    """Generate one image for every seed, skip and scale.

    The adapter "semantic" acts from step index `skip` on, at `scale`; scale 0 is the base model, for which no
    adapter need be there. A seed's image depends on the other seeds by float rounding at most.

    Args:
        flux: with its VAE; the text encoders may be gone.
        embeds: of one prompt for all seeds, or of one a seed.
        seeds: at least one; each draws the noise of its image.
        skips: step indices in 0..num_inference_steps.
        scales: slider scales, of either sign.
        config: gives resolution, num_inference_steps and guidance_scale.
        batch_size: seeds that go through the model together.
        progress: called after each forward pass with the number of images in it; len(seeds) *
            sweep_forwards(num_inference_steps, skips, scales) in all.

    Returns:
        {skip: {scale: (len(seeds), 3, H, W)}}, float32 in [-1, 1] on the CPU, seeds in the order given.

    Raises:
        ValueError: no seed, skip or scale; a skip out of range; a scale other than 0 without the adapter.
    """
    batches = [
        images
        for _, images in sweep_batches(flux, embeds, seeds, skips, scales, config, batch_size, progress)
    ]
    if not batches:
        raise ValueError("expected at least one seed, found none")
    return {
        skip: {scale: torch.cat([batch[skip][scale] for batch in batches]) for scale in by_scale}
        for skip, by_scale in batches[0].items()
    }


def sweep_batches(
    flux: Flux,
    embeds: PromptEmbeds,
    seeds: Sequence[int],
    skips: Sequence[int],
    scales: Sequence[float],
    config: Config,
    batch_size: int = 8,
    progress: Callable[[int], object] | None = None,
) -> Iterator[tuple[Sequence[int], Sweep]]:
    """Yield `batch_size` seeds at a time, as (these seeds, their images); see `sweep_images`."""
    height = width = config.resolution // 8
    shape = (flux.vae.config.latent_channels, height, width)
    on_step = _counter(progress)
    sigmas = flux.sigmas(config.num_inference_steps, height, width)
    embeds = embeds.expand(len(seeds))
    for first in range(0, len(seeds), batch_size):
        batch = seeds[first : first + batch_size]
        part = slice(first, first + batch_size)
        own = PromptEmbeds(embeds.prompt_embeds[part], embeds.pooled_prompt_embeds[part])
        latents = sweep_skips(
            _velocity_for(FluxVelocity(flux, own, config.guidance_scale)),
            initial_noise(batch, shape).to(flux.device),
            sigmas,
            skips,
            scales,
            on_step,
        )
        yield (
            batch,
            {
                skip: {scale: flux.decode_latents(x_0).cpu() for scale, x_0 in by_scale.items()}
                for skip, by_scale in latents.items()
            },
        )


def _velocity_for(model: FluxVelocity) -> Callable[[float], Any]:
    """Slider scale -> velocity; the base needs no adapter."""
    return lambda scale: model.scaled({"semantic": scale} if scale else {})


def _counter(progress: Callable[[int], object] | None) -> OnStep | None:
    """`progress` as the sampler calls it: after each forward pass, with the number of its images."""
    if progress is None:
        return None

    def on_step(_: int, x_t: Tensor) -> None:
        progress(len(x_t))

    return on_step


def write_images(
    run: Run, flux: Flux, seeds: Sequence[int], prompts: Sequence[str], embeds: Mapping[str, PromptEmbeds]
) -> list[Path]:
    """Generate a run's images with the adapter "semantic" now there, and write them and a grid a seed.

    Files are run.image_path's and run.grid_path's; beside a seed's images its prompt in prompt.txt.

    Args:
        run: names, paths, settings.
        flux: with its VAE.
        seeds: at least one.
        prompts: one a seed.
        embeds: of every prompt, one each.

    Returns:
        The grids' paths, in the order of the seeds.
    """
    config = run.config
    of_seeds = PromptEmbeds.joined([embeds[prompt] for prompt in prompts])
    total = len(seeds) * sweep_forwards(config.num_inference_steps, config.skips, config.scales)
    prompt_of = dict(zip(seeds, prompts, strict=True))
    grids = []
    with tqdm(total=total, desc=run.dataset, unit="step") as bar:
        for batch, images in sweep_batches(
            flux, of_seeds, seeds, config.skips, config.scales, config, progress=bar.update
        ):
            for index, seed in enumerate(batch):
                own = {
                    skip: {
                        scale: to_images(pixels[index : index + 1])[0] for scale, pixels in by_scale.items()
                    }
                    for skip, by_scale in images.items()
                }
                note = f'prompt "{prompt_of[seed]}"\n{run.lora_path}'
                grids.append(write_seed(run, seed, own, note))
                (run.seed_folder(seed) / "prompt.txt").write_text(prompt_of[seed] + "\n", encoding="utf-8")
    return grids


def write_seed(run: Run, seed: int, images: Mapping[int, Mapping[float, Image.Image]], note: str) -> Path:
    """Write one seed's images by skip and scale, their grid with `note` in its caption, and GIFs if wanted.

    Returns:
        The grid's path.
    """
    run.seed_folder(seed).mkdir(parents=True, exist_ok=True)
    for skip, by_scale in images.items():
        for scale, image in by_scale.items():
            image.save(run.image_path(seed, skip, scale))
    config = run.config
    skips = ", ".join(map(str, images))
    grid = Grid(
        rows=[list(by_scale.values()) for by_scale in images.values()],
        column_labels=[f"{scale:g}" for scale in next(iter(images.values()))],
        row_labels=[f"skip {skip}" for skip in images] if len(images) > 1 else (),
        column_axis="slider scale",
        title=run.dataset,
        caption=f"seed {seed}, skip {skips} of {config.num_inference_steps} steps, "
        f"guidance {config.guidance_scale:g}\n{note}",
    )
    tile = min(max(config.resolution, 256), 512)
    draw_grid(grid, tile).save(run.grid_path(seed))
    for skip, by_scale in images.items():
        if config.save_gif and len(by_scale) > 1:
            save_gif([by_scale[scale] for scale in sorted(by_scale)], run.gif_path(seed, skip))
    return run.grid_path(seed)


def inversion_of(config: Config) -> Inversion:
    """The inversion that a study asks for."""
    return build_inversion(config.inversion, config.inversion_rule, config.semantic_cfg_scale)


def edit_photo(run: RealRun, flux: Flux, photo: Photo, seed: int, embeds: PromptEmbeds) -> Sweep:
    """Edit a photograph with the adapters "semantic" and, for `inversion: lora`, "inversion" now there.

    Args:
        run: gives inversion, skips, scales and the other settings.
        flux: with its VAE.
        photo: the photograph.
        seed: of the noise, for inversions that draw any.
        embeds: of the prompt.

    Returns:
        {skip: {scale: pixels (1, 3, H, W)}}; scale 0, the reconstruction, is always among them.
    """
    config = run.config
    x_0 = flux.encode_images(photo.pixels[None])
    noise = initial_noise([seed], x_0.shape[1:]).to(flux.device)
    sigmas = flux.sigmas(config.num_inference_steps, *x_0.shape[-2:])
    fields = FluxVelocity(flux, embeds, config.guidance_scale).scaled
    scales = list(dict.fromkeys([*config.scales, 0.0]))
    edits: Sweep = {}
    for skip in config.skips:
        latents = inversion_of(config).edit(fields, x_0, sigmas, skip, scales, noise)
        edits[skip] = {scale: flux.decode_latents(edited).cpu() for scale, edited in latents.items()}
    return edits


def write_photo_edits(run: RealRun, seed: int, prompt: str, photo: Photo, edits: Sweep) -> Path:
    """Write a photograph's edits: squares, their grid, and in whole/ the photographs with the change in them.

    Returns:
        The grid's path.
    """
    squares = {
        skip: {scale: to_images(by_scale[scale])[0] for scale in run.config.scales}
        for skip, by_scale in edits.items()
    }
    config = run.config
    beside = (
        f" ({config.inversion_rule}, w {config.semantic_cfg_scale:g})" if config.inversion == "lora" else ""
    )
    note = f'{run.photograph}, inversion {config.inversion}{beside}, prompt "{prompt}"'
    note += f"\n{config.semantic_lora_path}"
    grid = write_seed(run, seed, squares, note)
    for skip, by_scale in edits.items():
        for scale in run.config.scales:
            path = run.image_path(seed, skip, scale)
            whole = path.parent / "whole" / path.name
            whole.parent.mkdir(exist_ok=True)
            photo.with_change(by_scale[0.0][0], by_scale[scale][0]).save(whole)
    return grid
