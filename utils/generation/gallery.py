"""A run's images as files: one for every seed, skip and slider scale, a captioned grid a seed, GIFs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from PIL import Image

from utils.bars import Bar
from utils.config.runs import RealRun, Run
from utils.data.photos import Photo
from utils.data.pixels import to_images
from utils.files import remove_unfinished, write_atomically
from utils.flow.sampling import Scale, sweep_forwards
from utils.generation.made_with import claim_images
from utils.generation.sweep import (
    Sweep,
    applied_lora,
    applied_loras,
    edit_photo,
    forwards_reported,
    inversion_of,
    semantic_names,
    sweep_batches,
)
from utils.generation.texts import with_files
from utils.models.base import Base, PromptEmbeds
from utils.records import recorded
from utils.report.figures import Grid, draw_grid, save_gif, save_image


def write_images(
    run: Run, base: Base, seeds: Sequence[int], prompts: Sequence[str], embeds: Mapping[str, PromptEmbeds]
) -> list[Path]:
    """Generate a run's images with the LoRAs run.lora_paths now applied, and write them and a grid a seed.

    Files are run.image_path's and run.grid_path's; beside a seed's images its prompt in prompt.txt.

    Args:
        run: names, paths, settings.
        base: with its VAE.
        seeds: at least one.
        prompts: one a seed.
        embeds: of every prompt, one each.

    Returns:
        The grids' paths, in the order of the seeds.
    """
    config = run.config
    of_seeds = PromptEmbeds.joined([embeds[prompt] for prompt in prompts])
    scales = run.slider_scales
    total = len(seeds) * sweep_forwards(config.num_inference_steps, config.skips, scales, config.locality)
    prompt_of = dict(zip(seeds, prompts, strict=True))

    grids = []
    made = len(seeds) * len(config.skips) * len(scales)
    with (
        recorded(run.seeds_folder / "record.json", "generation", made, base.device),
        Bar(total=total, desc=run.dataset, unit="step") as bar,
    ):
        for batch, images in sweep_batches(
            base, of_seeds, seeds, config.skips, scales, config, progress=bar.update
        ):
            for index, seed in enumerate(batch):
                own = {
                    skip: {
                        scale: to_images(pixels[index : index + 1])[0] for scale, pixels in by_scale.items()
                    }
                    for skip, by_scale in images.items()
                }
                note = f'prompt "{prompt_of[seed]}"'
                grids.append(write_seed(run, seed, own, run.lora_paths, note))
                write_atomically(run.seed_folder(seed) / "prompt.txt", f"{prompt_of[seed]}\n".encode())
    return grids


def write_seed(
    run: Run,
    seed: int,
    images: Mapping[int, Mapping[Scale, Image.Image]],
    loras: Sequence[Path],
    note: str,
    original: Image.Image | None = None,
) -> Path:
    """Write one seed's images by skip and scale, their grid, and GIFs if wanted.

    The grid's columns are the scales of the first LoRA, its rows the skips and the scales of the others.

    Args:
        run: names, paths, settings.
        seed: names the files.
        images: {skip: {scale: image}}.
        loras: the edits' files, one for each number in a scale.
        note: for the end of the caption.
        original: what is edited, to stand first in each of the grid's rows.

    Returns:
        The grid's path.
    """
    rows: dict[tuple[int, tuple[float, ...]], dict[float, Image.Image]] = {}
    for skip, by_scale in images.items():
        for scale, image in by_scale.items():
            save_image(image, run.image_path(seed, skip, scale))
            each = scale if isinstance(scale, tuple) else (scale,)
            rows.setdefault((skip, each[1:]), {})[each[0]] = image

    # A grid of all, a column a scale.
    config, names = run.config, [short_name(path) for path in loras]
    first = [] if original is None else [original]
    grid = Grid(
        rows=[[*first, *row.values()] for row in rows.values()],
        column_labels=[*["original" for _ in first], *(f"{scale:g}" for scale in next(iter(rows.values())))],
        row_labels=[_row_label(skip, others, names, len(images)) for skip, others in rows]
        if len(rows) > 1
        else (),
        column_axis=slider_name(run),
        title=edit_name(run),
        caption=f"seed {seed}, skip {', '.join(map(str, images))} of {config.num_inference_steps} steps, "
        f"guidance {config.guidance_scale:g}\n{note}\n" + "\n".join(map(str, loras)),
    )
    size = next(iter(images[next(iter(images))].values())).size
    tile = min(max(*size, 256), 512)
    save_image(draw_grid(grid, tile), run.grid_path(seed))

    # The slider moving, a GIF a row.
    for (skip, others), row in rows.items():
        if config.save_gif and len(row) > 1:
            save_gif([row[scale] for scale in sorted(row)], run.gif_path(seed, skip, others))
    return run.grid_path(seed)


def edit_name(run: Run) -> str:
    """What is seen in a run's images: the edit, or the edits and of a photograph which."""
    if isinstance(run, RealRun):
        return f"{short_name(Path(run.config.semantic_lora_path))}, photograph {run.photograph.stem}"
    if run.config.use_trained_lora_path:
        return " and ".join(map(short_name, run.lora_paths))
    return run.dataset


def slider_name(run: Run) -> str:
    """What the slider of a run's images moves: of several LoRAs the first."""
    one = len(run.lora_paths) == 1
    return "slider scale" if one else f"{short_name(run.lora_paths[0])}, slider scale"


def _row_label(skip: int, others: Sequence[float], names: Sequence[str], skips: int) -> str:
    """The skip, if there are several, and the scales of all LoRAs but the first."""
    parts = [f"skip {skip}"] if skips > 1 else []
    return "\n".join([*parts, *(f"{name} {scale:g}" for name, scale in zip(names[1:], others, strict=True))])


def short_name(lora: Path) -> str:
    """What a LoRA file is called in a picture: the part of its stem that names the edit."""
    return re.sub(r"_[\d.]+eta_.*", "", lora.stem)


def write_photo_edits(run: RealRun, seed: int, prompt: str, photo: Photo, edits: Sweep[float]) -> Path:
    """Write a photograph's edits, their grid, and in whole/ the photographs with the change in them.

    Returns:
        The grid's path.
    """
    images = {
        skip: {scale: to_images(by_scale[scale])[0] for scale in run.config.scales}
        for skip, by_scale in edits.items()
    }
    config = run.config
    beside = (
        f" ({config.inversion_rule}, w {config.semantic_cfg_scale:g})" if config.inversion == "lora" else ""
    )
    note = f'{run.photograph}, inversion {config.inversion}{beside}, prompt "{prompt}"'
    original = to_images(photo.pixels[None])[0]
    grid = write_seed(run, seed, images, [Path(config.semantic_lora_path)], note, original)
    for skip, by_scale in edits.items():
        for scale in run.config.scales:
            path = run.image_path(seed, skip, scale)
            whole = path.parent / "whole" / path.name
            save_image(photo.with_change(by_scale[0.0][0], by_scale[scale][0]), whole)
    return grid


def generate_run(
    run: Run, base: Base, seeds: Sequence[int], prompts: Sequence[str], embeds: Mapping[str, PromptEmbeds]
) -> Path:
    """Write a run's images and grids, one prompt a seed; returns their folder."""
    remove_unfinished(run.seeds_folder, own=False)
    embeds = with_files(embeds, semantic_names(len(run.lora_paths)), run.lora_paths)
    loras = applied_loras(base.transformer, run.lora_paths, run.config.other_base, text_apart=True)
    with loras, forwards_reported(base):
        claim_images(run)
        write_images(run, base, seeds, prompts, embeds)
    return run.seeds_folder


def generate_photo_run(
    run: RealRun,
    base: Base,
    photo: Photo,
    seeds: Sequence[int],
    prompts: Sequence[str],
    embeds: Mapping[str, PromptEmbeds],
) -> Path:
    """Write a photograph's edits and grids, one prompt and one of each a seed; returns their folder."""
    remove_unfinished(run.seeds_folder, own=False)
    with ExitStack() as loras:
        semantic, other_base = Path(run.config.semantic_lora_path), run.config.other_base
        embeds = with_files(embeds, ["semantic"], [semantic])
        edit = applied_lora(base.transformer, semantic, other_base=other_base, text_apart=True)
        loras.enter_context(edit)
        if run.config.inversion == "lora":
            loras.enter_context(applied_lora(base.transformer, run.weights_path(), "inversion"))
        loras.enter_context(forwards_reported(base))
        claim_images(run)
        for seed, prompt in photo_seeds(run, seeds, prompts).items():
            edits = edit_photo(run, base, photo, seed, embeds[prompt])
            write_photo_edits(run, seed, prompt, photo, edits)
    return run.seeds_folder


def photo_seeds(run: RealRun, seeds: Sequence[int], prompts: Sequence[str]) -> dict[int, str]:
    """The prompt of each seed of a photograph's edits: of the first alone where nothing tells them apart."""
    alike = not inversion_of(run.config).uses_noise and len(set(prompts)) == 1
    by_seed = dict(zip(seeds, prompts, strict=True))
    return {seeds[0]: prompts[0]} if alike else by_seed
