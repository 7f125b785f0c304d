"""Learn edits from image pairs: train every run of a study (datasets x versions x noise_scales).

python train_image_script.py --c=train_image
python train_image_script.py --c=train_image train_iteration=100 datasets=[smile] --dry-run
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import _path  # noqa: F401

from utils.config.runs import Run
from utils.errors import run_cli
from utils.jobs.launch import launch
from utils.jobs.prepare import check_hub, list_runs, load_runs_pairs, prepare
from utils.jobs.train import pairs_workshop
from utils.training.claims import inputs_of
from utils.training.methods import PAIR_METHODS


def main(argv: Sequence[str] | None = None) -> int:
    """Train; the exit status as in `run_all`."""
    study = prepare(argv, __doc__ or "", PAIR_METHODS, training=True)
    check_hub(study.runs)
    if study.dry_run:
        list_runs(study.runs, _paths)
        return 0
    pairs = load_runs_pairs(study.runs)
    inputs = {run.name: inputs_of(run) for run in study.runs}
    closing = f"next: {study.command('gen_image_script.py')}"
    return launch(study.runs, partial(pairs_workshop, study, pairs, inputs), closing)


def _paths(run: Run) -> dict[str, Path]:
    return {
        "source": run.source_folder,
        "target": run.target_folder,
        "weights": run.weights_path(),
        "reference": run.reference_path(),
    }


if __name__ == "__main__":
    run_cli(main)
