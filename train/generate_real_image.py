"""One photograph's edits: at every slider scale and skip, square and put back into the whole."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from utils.config.runs import RealRun
from utils.data.photos import Photo
from utils.generation.gallery import write_photo_edits
from utils.generation.sweep import applied_lora, edit_photo, forwards_told, inversion_of
from utils.models.flux1 import Flux, PromptEmbeds


def generate_run(
    run: RealRun,
    flux: Flux,
    photo: Photo,
    seeds: Sequence[int],
    prompts: Sequence[str],
    embeds: Mapping[str, PromptEmbeds],
) -> Path:
    """Write a photograph's edits and grids, one prompt and one of each a seed; returns their folder.

    Where neither noise nor prompt tells the seeds apart, the first stands for all.
    """
    alike = not inversion_of(run.config).uses_noise and len(set(prompts)) == 1
    shots = list(zip(seeds, prompts, strict=True))
    with ExitStack() as loras:
        semantic, other_base = Path(run.config.semantic_lora_path), run.config.other_base
        loras.enter_context(applied_lora(flux.transformer, semantic, other_base=other_base))
        if run.config.inversion == "lora":
            loras.enter_context(applied_lora(flux.transformer, run.weights_path(), "inversion"))
        loras.enter_context(forwards_told(flux))
        for seed, prompt in shots[:1] if alike else shots:
            edits = edit_photo(run, flux, photo, seed, embeds[prompt])
            write_photo_edits(run, seed, prompt, photo, edits)
    return run.seeds_folder
