"""One run's images: its LoRA alone, or several together, from step index `skip` on, at every slider scale."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from utils.flux import Flux, PromptEmbeds
from utils.galleries import write_images
from utils.generate import applied_loras, forwards_told
from utils.runs import Run


def generate_run(
    run: Run, flux: Flux, seeds: Sequence[int], prompts: Sequence[str], embeds: Mapping[str, PromptEmbeds]
) -> Path:
    """Write a run's images and grids, one prompt a seed; returns their folder."""
    with applied_loras(flux.transformer, run.lora_paths, run.config.other_base), forwards_told(flux):
        write_images(run, flux, seeds, prompts, embeds)
    return run.seeds_folder
