"""A run's images as a web page: large, with a slider to drag, and below them what they are of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from utils.config.runs import Run
from utils.config.schema import SliderScale
from utils.data.buckets import size_text
from utils.data.pixels import read_rgb
from utils.generation.gallery import short_name, slider_name
from utils.generation.made_with import loras_of
from utils.report.figures import Grid
from utils.report.page import (
    LARGEST_TILE,
    Block,
    Section,
    Slider,
    Table,
    Text,
    fitting,
    slider_of_scales,
    write_report,
)

MOST_PROMPTS = 64
"""Rows of the table of seeds and prompts."""


def write_page(
    run: Run,
    edit: str,
    prompts: Mapping[int, str],
    command: str,
    held: Mapping[str, Image.Image] | None = None,
) -> Path:
    """Write the page of a run's images, which are there as files: a slider a skip, which all seeds follow.

    Args:
        run: names, paths, settings. Of several LoRAs the first is on the slider, and there is a slider for
            each scale of the others.
        edit: what was applied, to be the title.
        prompts: by seed, in the order shown; what a page has no room for is left out, and said to be.
        command: that made the images, to be stated.
        held: pictures to be seen beside every image, by what they are.

    Returns:
        The page's path, in the run's folder of images.

    Raises:
        UserError: for an image that is not there or damaged.
    """
    held = {name: _small(picture) for name, picture in (held or {}).items()}
    sliders = _positions(run)
    columns = sum(len(scales) + len(held) for scales in sliders.values())
    shown = list(prompts)[: fitting(columns)]

    # The pictures, then what they are of.
    sections = [
        Section(heading, [_slider(run, shown, prompts, skip, scales, held)])
        for (heading, skip), scales in sliders.items()
    ]
    about: list[Block] = [_settings(run, shown[0]), _prompts(prompts)]
    if len(shown) < len(prompts):
        about.insert(
            0, Text(f"{len(shown)} of {len(prompts)} seeds are shown, all are in {run.seeds_folder}.")
        )
    write_report(run.page_path, edit, command, [*sections, Section("Made from", about)])
    return run.page_path


def _positions(run: Run) -> dict[tuple[str, int], list[SliderScale]]:
    """(heading, skip) -> the scales of one slider, of which the first LoRA's differ."""
    names = [short_name(path) for path in run.lora_paths]
    sliders: dict[tuple[str, int], list[SliderScale]] = {}
    for skip in run.config.skips:
        for scale in run.slider_scales:
            others = scale[1:] if isinstance(scale, tuple) else ()
            held_at = [f"{name} at {each:g}" for name, each in zip(names[1:], others, strict=True)]
            heading = ", ".join([f"From step {skip} of {run.config.num_inference_steps} on", *held_at])
            sliders.setdefault((heading, skip), []).append(scale)
    return sliders


def _slider(
    run: Run,
    seeds: Sequence[int],
    prompts: Mapping[int, str],
    skip: int,
    scales: Sequence[SliderScale],
    held: Mapping[str, Image.Image],
) -> Slider:
    """The images of one skip, a row a seed, in ascending order of scale."""
    first = {scale: scale[0] if isinstance(scale, tuple) else scale for scale in scales}
    ordered = sorted(scales, key=first.__getitem__)
    grid = Grid(
        rows=[[_small(read_rgb(run.image_path(seed, skip, scale))) for scale in ordered] for seed in seeds],
        column_labels=[f"{first[scale]:g}" for scale in ordered],
        row_labels=[f"seed {seed}\n{prompts[seed]}" for seed in seeds],
        column_axis=slider_name(run),
    )
    return slider_of_scales(grid, {name: [picture] * len(seeds) for name, picture in held.items()})


def _small(picture: Image.Image) -> Image.Image:
    """As large as a page shows it, so that not all are held at their full size."""
    small = picture.copy()
    small.thumbnail((LARGEST_TILE, LARGEST_TILE), Image.Resampling.LANCZOS)
    return small


def _settings(run: Run, seed: int) -> Table:
    """What the images are of; their size is that of a seed's first, as photographs' edits have their own."""
    config = run.config
    size = read_rgb(run.image_path(seed, config.skips[0], run.slider_scales[0])).size
    rows = [
        ["LoRA", ", ".join(path.name for path in loras_of(run))],
        ["size", f"{size_text(size)} pixels"],
        ["steps", str(config.num_inference_steps)],
        ["guidance", f"{config.guidance_scale:g}"],
    ]
    return Table(["setting", "value"], rows, words=True)


def _prompts(prompts: Mapping[int, str]) -> Table:
    rows = [[str(seed), prompt] for seed, prompt in list(prompts.items())[:MOST_PROMPTS]]
    left = len(prompts) - len(rows)
    caption = f"{left} more seeds are not listed." if left else ""
    return Table(["seed", "prompt"], rows, caption, words=True)
