"""What generation needs of a run before any model is loaded: its LoRA file, its seeds and its prompts."""

import random
from collections.abc import Sequence
from pathlib import Path

from utils.config.runs import Run
from utils.config.schema import Config
from utils.data.prompts import load_prompts
from utils.errors import UserError


def check_loras(runs: Sequence[Run], train_command: str) -> None:
    """Raise `UserError` unless every run's LoRA file is there, naming those that are not.

    So it does if none can be read; where one of several cannot, its run fails, and the others go on.

    Args:
        runs: to be generated.
        train_command: the command that trains them, to say in the error.
    """
    missing = [path for run in runs for path in run.lora_paths if not path.is_file()]
    if not missing:
        _check_one_reads([run.lora_paths for run in runs])
        return
    paths = ", ".join(dict.fromkeys(map(str, missing)))
    if runs[0].config.use_trained_lora_path:
        raise UserError(f"trained_lora_path: expected a LoRA file, found none at {paths}")
    raise UserError(f"{paths}: expected a trained LoRA, found none; train it with: {train_command}")


def check_semantic_lora(config: Config) -> None:
    """Raise `UserError` unless semantic_lora_path names a LoRA file."""
    if not Path(config.semantic_lora_path).is_file():
        found = f"nothing at {config.semantic_lora_path}" if config.semantic_lora_path else "none given"
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


def choose_seeds(config: Config) -> list[int]:
    """`count_gen` seeds: from start_seed_gen on, or different ones at random if use_random_seed."""
    if config.use_random_seed:
        return random.sample(range(2**31), config.count_gen)
    return list(range(config.start_seed_gen, config.start_seed_gen + config.count_gen))


def choose_prompts(run: Run, seeds: Sequence[int]) -> list[str]:
    """One prompt a seed: the run's own, or one drawn from its prompts file, by the seed alone.

    Raises:
        UserError: if the prompts file is missing or no list of prompts.
    """
    if not run.config.use_prompts_file:
        return [run.prompt] * len(seeds)
    prompts = load_prompts(run.prompts_path)
    return [random.Random(seed).choice(prompts) for seed in seeds]
