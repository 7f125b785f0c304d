"""What generation needs of a run before any model is loaded: its LoRA file, its seeds and its prompts."""

import random
from collections.abc import Callable, Sequence
from functools import partial
from glob import escape
from pathlib import Path

from utils.config.runs import RealRun, Run
from utils.config.schema import Config
from utils.config.yaml_files import find_yaml
from utils.data.prompts import load_prompts
from utils.errors import UserError
from utils.names import beside


def check_loras(runs: Sequence[Run], train_command: str) -> None:
    """Raise `UserError` unless every run's LoRA file is there, naming those that are not.

    So it does if none can be read; where one of several cannot, its run fails, and the others go on.

    Args:
        runs: to be generated; none is well.
        train_command: the command that trains them, to say in the error.
    """
    lacking = [run for run in runs if not all(path.is_file() for path in run.lora_paths)]
    if not lacking:
        _check_one_reads([run.lora_paths for run in runs])
        return
    missing = [path for run in lacking for path in run.lora_paths if not path.is_file()]
    paths = ", ".join(dict.fromkeys(map(str, missing)))
    if runs[0].config.use_trained_lora_path:
        raise UserError(f"trained_lora_path: expected a LoRA file, found none at {paths}{beside(missing[0])}")
    earlier = [path for run in lacking if (path := _of_another_training(run))]
    there = f"; of other trainings there are {', '.join(map(str, earlier))}" if earlier else ""
    raise UserError(f"{paths}: expected a trained LoRA, found none{there}; train it with: {train_command}")


def _of_another_training(run: Run) -> Path | None:
    """Where a LoRA lies that was moved aside or has other steps; the latest, of the same name if any is."""
    folders = [run.folder, *run.folder.parent.glob(f"{escape(run.name)}_old*")]
    found = [path for folder in folders for path in folder.glob("*.safetensors")]
    wanted = run.weights_path().name
    return max(found, key=lambda path: (path.name == wanted, path.stat().st_mtime), default=None)


def check_semantic_lora(config: Config) -> None:
    """Raise `UserError` unless semantic_lora_path names a LoRA file."""
    path = Path(config.semantic_lora_path)
    if not path.is_file():
        found = f"nothing at {path}{beside(path)}" if config.semantic_lora_path else "none given"
        raise UserError(
            "semantic_lora_path: expected a LoRA file, the edit to apply, as train_image_script.py trains; "
            f"found {found}"
        )
    _check_one_reads([[Path(config.semantic_lora_path)]])


def _check_one_reads(of_runs: Sequence[Sequence[Path]]) -> None:
    """Raise the first run's `UserError` if every run has a LoRA file that cannot be read."""
    from utils.lora.files import read_lora

    faults = []
    for paths in of_runs:
        try:
            for path in paths:
                read_lora(path)
            return
        except UserError as error:
            faults.append(error)
    if faults:
        raise faults[0]


def checks_of(runs: Sequence[Run]) -> list[Callable[[], object]]:
    """What a dry run checks of what runs are given: LoRAs that the config names, and prompts.

    A run's own LoRA is none of it: an earlier command makes it.
    """
    named = [run for run in runs if run.config.use_trained_lora_path and not isinstance(run, RealRun)]
    return [partial(check_loras, named, ""), *(partial(choose_prompts, run, [0]) for run in runs)]


def choose_seeds(config: Config) -> list[int]:
    """`count_gen` seeds: from start_seed_gen on, or different ones at random if use_random_seed."""
    if config.use_random_seed:
        return random.sample(range(2**31), config.count_gen)
    return list(range(config.start_seed_gen, config.start_seed_gen + config.count_gen))


def choose_prompts(run: Run, seeds: Sequence[int]) -> list[str]:
    """One prompt a seed: the run's own, or those of its prompts file in turn, the first with the first seed.

    Raises:
        UserError: if the prompts file is missing or no list of prompts.
    """
    if not run.config.use_prompts_file:
        return [run.prompt] * len(seeds)
    prompts = load_prompts(find_yaml(run.prompts_path.parent, run.prompts_path.name, "prompts_file"))
    return [prompts[index % len(prompts)] for index in range(len(seeds))]
