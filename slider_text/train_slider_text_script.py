"""Learn edits from words, without pairs: train every run of a study of text sliders.

python train_slider_text_script.py --c=slider_text
python train_slider_text_script.py --c=slider_text train_iteration=100 datasets=[smile] --dry-run

A dataset is a file of prompts, datasets_folder/DATASET.yaml; its guidance_scale is eta, the runs' cfg_eta.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import _path  # noqa: F401

from utils.config.runs import Run
from utils.errors import run_cli
from utils.jobs.launch import launch
from utils.jobs.prepare import check_hub, list_runs, prepare_sliders
from utils.jobs.train import prompts_workshop
from utils.machine import check_writable
from utils.training.claims import inputs_of
from utils.training.methods import TEXT_METHODS


def main(argv: Sequence[str] | None = None) -> int:
    """Train; the exit status as in `run_all`."""
    study, prompts = prepare_sliders(argv, __doc__ or "", TEXT_METHODS, training=True)
    check_hub(study.runs)
    if study.dry_run:
        list_runs(study.runs, _paths)
        return 0
    inputs = {run.name: inputs_of(run, prompts[run.dataset]) for run in study.runs}
    for run in study.runs:
        check_writable(run.folder)
    closing = f"next: {study.command('gen_image_script.py')}"
    return launch(study.runs, partial(prompts_workshop, study, prompts, inputs), closing)


def _paths(run: Run) -> dict[str, Path]:
    return {
        "prompts": Path(run.config.datasets_folder) / f"{run.dataset}.yaml",
        "weights": run.weights_path(),
        "reference": run.reference_path(),
    }


if __name__ == "__main__":
    run_cli(main)
