"""Images of the subject's class, made by the base itself: what prior preservation holds on to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

from utils.bars import Bar
from utils.config.schema import Config
from utils.files import find_images, write_atomically

if TYPE_CHECKING:
    from utils.models.base import Base, PromptEmbeds

_MADE = re.compile(r"made_[0-9a-f]{8}_\d+")
"""The stem of what was generated: a hash of what it was made with, and the seed."""


def given_class_images(config: Config) -> dict[str, Path]:
    """Stem -> path of the images in prior_folder that were not generated; raises `UserError` for other files.

    These are part of what is learned from; those generated say nothing that base and settings do not.
    """
    there = _images_in(Path(config.prior_folder)) if config.prior_folder else {}
    given = {stem: path for stem, path in there.items() if not _MADE.fullmatch(stem)}
    return dict(islice(given.items(), config.prior_count))


def generated_class_images(base: Base, embeds: PromptEmbeds, prompt: str, config: Config) -> list[Path]:
    """The files of `prior_count` images of the class; those that are not there yet are generated.

    Args:
        base: with its VAE; no adapter acts.
        embeds: of `prompt`.
        prompt: what they are images of.
        config: prior_folder, whose images come first; "": class_images in output_folder.
    """
    # here, as what is in the folder is asked for before anything heavy is loaded
    from utils.data.pixels import to_images
    from utils.generation.sweep import sweep_images

    folder = Path(config.prior_folder or Path(config.output_folder) / "class_images")
    folder.mkdir(parents=True, exist_ok=True)
    given, there = given_class_images(config), _images_in(folder)
    made_with = _made_with(base, prompt, config)
    seeds = range(config.prior_count - len(given))
    wanted = {seed: f"made_{made_with}_{seed}" for seed in seeds}
    missing = [seed for seed in seeds if wanted[seed] not in there]

    with Bar(total=len(missing), desc=config.datasets[0], unit="class image", silent=not missing) as bar:
        for first in range(0, len(missing), config.batch_size_gen):
            batch = missing[first : first + config.batch_size_gen]
            images = sweep_images(base, embeds, batch, [0], [0.0], config)[0][0.0]
            for seed, image in zip(batch, to_images(images), strict=True):
                data = BytesIO()
                image.save(data, "PNG")
                write_atomically(folder / f"{wanted[seed]}.png", data.getvalue())
            bar.update(len(batch))
    return [*given.values(), *(folder / f"{stem}.png" for stem in wanted.values())]


def _images_in(folder: Path) -> Mapping[str, Path]:
    """Stem -> path; none in a folder that is empty or not there."""
    there = folder.is_dir() and any(path.name[0] != "." for path in folder.iterdir())
    return find_images(folder) if there else {}


def _made_with(base: Base, prompt: str, config: Config) -> str:
    from utils.models.identity import base_hash

    all_of_it = (
        *(base_hash(base.transformer), prompt, config.image_size, config.dtype, config.quantization),
        *(config.num_inference_steps, config.guidance_scale, config.max_sequence_length),
    )
    return f"{crc32(repr(all_of_it).encode()):08x}"
