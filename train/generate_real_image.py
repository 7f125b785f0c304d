"""One photograph's edits: at every slider scale and skip, square and put back into the whole."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from utils.flux import Flux, PromptEmbeds
from utils.generate import applied_lora, edit_photo, inversion_of, write_photo_edits
from utils.photos import Photo
from utils.runs import RealRun


def generate_run(run: RealRun, flux: Flux, photo: Photo, seeds: Sequence[int], embeds: PromptEmbeds) -> Path:
    """Write a photograph's edits and grids, one of each a seed if it matters; returns their folder."""
    by_chance = inversion_of(run.config).uses_noise  # else every seed would come out the same
    with ExitStack() as loras:
        loras.enter_context(applied_lora(flux.transformer, Path(run.config.semantic_lora_path)))
        if run.config.inversion == "lora":
            loras.enter_context(applied_lora(flux.transformer, run.lora_path, "inversion"))
        for seed in seeds if by_chance else seeds[:1]:
            write_photo_edits(run, seed, photo, edit_photo(run, flux, photo, seed, embeds))
    return run.seeds_folder
