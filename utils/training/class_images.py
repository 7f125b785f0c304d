"""Images of the subject's class, made by the base itself: what prior preservation holds on to."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from zlib import crc32

from utils.bars import Bar
from utils.config.schema import Config
from utils.data.pixels import to_images
from utils.files import find_images, write_atomically
from utils.generation.sweep import sweep_images
from utils.models.base import Base, PromptEmbeds
from utils.models.identity import base_hash


def generated_class_images(base: Base, embeds: PromptEmbeds, prompt: str, config: Config) -> list[Path]:
    """The files of `prior_count` images of the class; those that are not there yet are generated.

    Args:
        base: with its VAE; no adapter acts.
        embeds: of `prompt`.
        prompt: what they are images of.
        config: prior_folder, whose images are taken as they are as far as they go; "": a folder in
            output_folder that is named by base, prompt and settings.
    """
    folder = Path(config.prior_folder) if config.prior_folder else _folder(base, prompt, config)
    folder.mkdir(parents=True, exist_ok=True)
    there = list(find_images(folder).values()) if any(folder.iterdir()) else []
    missing = range(len(there), config.prior_count)
    for first in Bar(missing[:: config.batch_size_gen], desc="images of the class", unit="batch"):
        seeds = [seed for seed in missing if first <= seed < first + config.batch_size_gen]
        images = sweep_images(base, embeds, seeds, [0], [0.0], config)[0][0.0]
        for seed, image in zip(seeds, to_images(images), strict=True):
            data = BytesIO()
            image.save(data, "PNG")
            path = folder / f"{seed}.png"
            write_atomically(path, data.getvalue())
            there.append(path)
    return there[: config.prior_count]


def _folder(base: Base, prompt: str, config: Config) -> Path:
    made_with = (
        *(base_hash(base.transformer), prompt, config.image_size),
        *(config.num_inference_steps, config.guidance_scale),
    )
    return Path(config.output_folder) / "class_images" / f"{crc32(repr(made_with).encode()):08x}"
