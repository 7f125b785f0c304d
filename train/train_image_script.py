"""Learn edits from image pairs: train every run of a study (datasets x versions x noise_scales).

python train_image_script.py --c=train_image
python train_image_script.py --c=train_image train_iteration=100 datasets=[smile] --dry-run
"""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import _path  # noqa: F401

from utils.errors import run_cli
from utils.run_folders import inputs_of
from utils.runner import check_hub, list_runs, load_base, load_runs_pairs, prepare, train_all
from utils.runs import Run

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
    flux, embeds = load_base(study, [""])
    method = import_module(study.config.python_name)

    def train_one(run: Run) -> None:
        method.train_run(run, flux, pairs[run.dataset], embeds[""])

    return train_all(study.runs, train_one, f"next: {study.command('gen_image_script.py')}", inputs)


def _paths(run: Run) -> dict[str, Path]:
    return {
        "source": run.source_folder,
        "target": run.target_folder,
        "weights": run.weights_path(),
        "reference": run.reference_path(),
    }


if __name__ == "__main__":
    run_cli(main)
