"""Learn photographs by heart, one inversion LoRA each (datasets x versions x image_ids).

python train_image_real_script.py --c=train_image_real
python train_image_real_script.py --c=train_image_real image_ids=[4000002] train_iteration=500 --dry-run

Only `inversion: lora` needs this; the other inversions need no training.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import _path  # noqa: F401

from utils.config.runs import expand_real_runs
from utils.errors import run_cli
from utils.jobs.launch import launch
from utils.jobs.prepare import check_hub, list_runs, prepare
from utils.jobs.train import photos_workshop
from utils.machine import check_writable
from utils.training.claims import inputs_of
from utils.training.methods import PHOTO_METHODS


def main(argv: Sequence[str] | None = None) -> int:
    """Train; the exit status as in `run_all`."""
    study = prepare(argv, __doc__ or "", PHOTO_METHODS, training=True)
    runs = expand_real_runs(study.config)
    check_hub(runs)
    if study.dry_run:
        list_runs(runs, lambda run: {"photo": run.photograph, "weights": run.weights_path()})
        return 0
    from utils.data.photos import load_photo  # here, so that the checks above come at once

    inputs = {run.name: inputs_of(run) for run in runs}
    photos = {run.name: load_photo(run.photograph, run.config.resolution) for run in runs}
    for run in runs:
        check_writable(run.folder)
    closing = f"next: {study.command('gen_image_real_script.py')} inversion=lora"
    return launch(runs, partial(photos_workshop, study, photos, inputs), closing)


if __name__ == "__main__":
    run_cli(main)
