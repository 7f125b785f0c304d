"""One run's images: its LoRA alone, or several together, from step index `skip` on, at every slider scale."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from utils.config.runs import Run
from utils.generation.gallery import write_images
from utils.generation.sweep import applied_loras, forwards_told
from utils.models.flux1 import Flux, PromptEmbeds


def generate_run(
    run: Run, flux: Flux, seeds: Sequence[int], prompts: Sequence[str], embeds: Mapping[str, PromptEmbeds]
) -> Path:
    """Write a run's images and grids, one prompt a seed; returns their folder."""
    with applied_loras(flux.transformer, run.lora_paths, run.config.other_base), forwards_told(flux):
        write_images(run, flux, seeds, prompts, embeds)
    return run.seeds_folder
