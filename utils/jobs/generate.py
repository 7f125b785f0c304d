"""What every command that generates does: checks, the base once, a sweep for each run or photograph."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from utils.config.runs import RealRun, Run, expand_real_runs
from utils.generation.prompts_and_seeds import (
    check_loras,
    check_semantic_lora,
    checks_of,
    choose_prompts,
    choose_seeds,
)
from utils.generation.texts import Edits
from utils.jobs.prepare import Experiment, list_runs, load_base, run_all
from utils.lora.calibration import with_scales
from utils.lora.spread import with_locality
from utils.machine import check_writable, heavy_imports
from utils.training.claims import trained_otherwise

if TYPE_CHECKING:
    from utils.models.base import Base, PromptEmbeds


def generate_runs(experiment: Experiment, train_script: str, following: str = "", measuring: str = "") -> int:
    """Generate with the LoRA of every run, or list what would be for a dry run.

    Args:
        experiment: what to generate.
        train_script: the script that trains its runs, to say when a LoRA is missing.
        following: the script that comes next with the same config.
        measuring: in place of it, the script that reads the first run's images by another config.

    Returns:
        The exit status as in `run_all`.

    Raises:
        UserError: before any model is loaded, for a LoRA or prompts file that is missing or a folder that
            cannot be written.
    """
    if experiment.dry_run:
        list_runs(
            experiment.runs,
            lambda run: {"lora": ", ".join(map(_or_not_yet, run.lora_paths)), "images": run.seeds_folder},
            checks_of(experiment.runs),
        )
        return 0
    seeds = choose_seeds(experiment.config)
    prompts = {run.name: choose_prompts(run, seeds) for run in experiment.runs}
    check_loras(experiment.runs, experiment.command(train_script))
    runs = [with_locality(with_scales(run, run.lora_paths), run.lora_paths) for run in experiment.runs]
    for run in experiment.runs:
        check_writable(run.seeds_folder)
    if not experiment.config.use_trained_lora_path:
        tell_other_settings(runs)
    edits = [Edits(run.lora_paths, run.acting_scales, prompts[run.name]) for run in runs]
    base, embeds = _base_for(experiment, edits)
    with heavy_imports():  # here, so that the checks above come at once
        from utils.generation.gallery import edit_name, generate_run
        from utils.generation.page import write_page

    def generate_one(run: Run) -> Path:
        folder = generate_run(run, base, seeds, prompts[run.name], embeds)
        write_page(run, edit_name(run), dict(zip(seeds, prompts[run.name], strict=True)), _typed(experiment))
        return folder

    print(f"seeds: {', '.join(map(str, seeds))}")
    if len(runs[0].lora_paths) > 1 or not (following or measuring):
        command = ""  # no measure is of several edits at once
    else:
        size = experiment.config.image_size
        own = experiment.command(following)
        command = _measuring(experiment, measuring, runs[0], size) if measuring else own
    return run_all(runs, generate_one, _closing(runs, seeds, command))


def generate_photographs(experiment: Experiment, train_script: str, measuring: str) -> int:
    """Edit every photograph of a config, or list what would be for a dry run.

    Args:
        experiment: what to edit, and how.
        train_script: the script that trains inversion LoRAs, to say when one is missing.
        measuring: the script that comes next, for the first photograph's images.

    Returns:
        The exit status as in `run_all`.

    Raises:
        UserError: before any model is loaded, for a LoRA, photograph or prompts file that is missing or a
            folder that cannot be written.
    """
    runs = expand_real_runs(experiment.config)
    if experiment.dry_run:
        own = experiment.config.inversion == "lora"
        list_runs(
            runs,
            lambda run: {
                "photo": run.photograph,
                **({"lora": ", ".join(map(_or_not_yet, run.lora_paths))} if own else {}),
                "edit": experiment.config.semantic_lora_path or "none given",
                "images": run.seeds_folder,
            },
            [partial(check_semantic_lora, experiment.config), *checks_of(runs)],
        )
        return 0
    check_semantic_lora(experiment.config)
    edit = [Path(experiment.config.semantic_lora_path)]
    runs = [with_locality(with_scales(run, edit), edit) for run in runs]
    if experiment.config.inversion == "lora":
        check_loras(runs, experiment.command(train_script))
    seeds = choose_seeds(experiment.config)
    prompts = {run.name: choose_prompts(run, seeds) for run in runs}

    # here, so that the checks above come at once
    with heavy_imports():
        from utils.data.pixels import to_images
        from utils.generation.gallery import edit_name, generate_photo_run, photo_seeds
        from utils.generation.page import write_page
        from utils.training.sources import Photograph

    photos = {run.name: Photograph.of(run).photo for run in runs}
    for run in runs:
        check_writable(run.seeds_folder)
    if experiment.config.inversion == "lora":
        tell_other_settings(runs)
    base, embeds = _base_for(experiment, [Edits(edit, run.config.scales, prompts[run.name]) for run in runs])

    def edit_one(run: RealRun) -> Path:
        photo, of_run = photos[run.name], prompts[run.name]
        folder = generate_photo_run(run, base, photo, seeds, of_run, embeds)
        original = {"original": to_images(photo.pixels[None])[0]}
        write_page(run, edit_name(run), photo_seeds(run, seeds, of_run), _typed(experiment), original)
        return folder

    height, width = photos[runs[0].name].pixels.shape[1:]
    following = _measuring(experiment, measuring, runs[0], (width, height))
    return run_all(runs, edit_one, _closing(runs, seeds, following))


def _base_for(experiment: Experiment, edits: Sequence[Edits]) -> tuple[Base, Mapping[str, PromptEmbeds]]:
    """The base, and the embeddings of the edits' prompts, also as their LoRAs have them."""
    return load_base(experiment, [prompt for edit in edits for prompt in edit.prompts], edits)


def _or_not_yet(path: Path) -> str:
    """A path that an earlier command makes."""
    return str(path) if path.exists() else f"{path} (not there yet)"


def tell_other_settings(runs: Sequence[Run]) -> None:
    """Say which LoRAs were trained with other settings than their runs now have."""
    for run in runs:
        if told := trained_otherwise(run):
            print(f"{told}; it is used as it is", flush=True)


def _measuring(experiment: Experiment, script: str, run: Run, size: tuple[int, int]) -> str:
    """The command that measures a run's images of a size by the pairs' config, on the same base."""
    config = experiment.config
    base = [argument for argument in experiment.arguments if argument.startswith("base=")]
    if config.judge == "probe" and size != (config.resolution, config.resolution):
        base.append("judge=pairs")  # which, unlike the probe, takes any size
    images = [f"--skip={run.config.skips[0]}", f"--images={run.seeds_folder.absolute()}"]
    return shlex.join(["python", str(experiment.scripts / script), "--c=train_image", *base, *images])


def _typed(experiment: Experiment) -> str:
    """The command line that generates, for the page."""
    return experiment.command(Path(sys.argv[0]).name)


def _closing(runs: Sequence[Run], seeds: Sequence[int], following: str) -> str:
    """Where to look, and what comes next, if anything does."""
    pages = str(runs[0].page_path) if len(runs) == 1 else f"{runs[0].page_path.name} in each of them"
    grids = f"{seeds[0]}.png" + (" and so on" if len(seeds) > 1 else "")
    where = f"pictures: {pages} (a slider to drag in a browser); as sheets, {grids} beside it"
    return f"{where}\nnext: {following}" if following else where
