"""Learn edits from image pairs: train every run of a study (datasets x versions x noise_scales).

python train_image_script.py --c=train_image
python train_image_script.py --c=train_image train_iteration=100 datasets=[smile] --dry-run
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import _path  # noqa: F401

from utils.config.runs import Run
from utils.errors import run_cli
from utils.jobs.launch import launch
from utils.jobs.prepare import Study, check_hub, claiming, list_runs, load_base, load_runs_pairs, prepare
from utils.training.claims import inputs_of

if TYPE_CHECKING:
    from utils.data.pairs import ImagePair

# python_name, which is a script beside this one with a train_run, and what it is
METHODS = {
    "train_image": "PairEdit: content and semantic adapters, content-preserving schedule",
    "train_image_wocontent": "ablation: no content adapter",
    "train_image_wocfg": "ablation: no guidance term, the target image's own velocity",
    "train_image_fm": "ablation: rectified flow in place of the content-preserving schedule",
    "train_image_sliders": "baseline: image sliders, the target at scale +1 and the source at -1",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Train; the exit status as in `run_all`."""
    study = prepare(argv, __doc__ or "", METHODS, training=True)
    check_hub(study.runs)
    if study.dry_run:
        list_runs(study.runs, _paths)
        return 0
    pairs = load_runs_pairs(study.runs)
    inputs = {run.name: inputs_of(run) for run in study.runs}
    closing = f"next: {study.command('gen_image_script.py')}"
    return launch(study.runs, partial(workshop, study, pairs, inputs), closing)


def workshop(
    study: Study, pairs: Mapping[str, Sequence[ImagePair]], inputs: Mapping[str, str], runs: Sequence[Run]
) -> Callable[[Run], Path]:
    """Load the base; gives what trains any of `runs`, on its dataset's pairs; `inputs` as of `claiming`."""
    flux, embeds = load_base(study, [""])
    method = import_module(study.config.python_name)

    def train_one(run: Run) -> None:
        method.train_run(run, flux, pairs[run.dataset], embeds[""])

    return claiming(train_one, inputs)


def _paths(run: Run) -> dict[str, Path]:
    return {
        "source": run.source_folder,
        "target": run.target_folder,
        "weights": run.weights_path(),
        "reference": run.reference_path(),
    }


if __name__ == "__main__":
    run_cli(main)
