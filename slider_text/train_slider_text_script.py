"""Learn edits from words, without pairs: train every run of a study of text sliders.

python train_slider_text_script.py --c=slider_text
python train_slider_text_script.py --c=slider_text train_iteration=100 datasets=[smile] --dry-run

A dataset is a file of prompts, datasets_folder/DATASET.yaml; its guidance_scale is eta, the runs' cfg_eta.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path

import _path  # noqa: F401

from utils.config.load import check_writable
from utils.config.runs import Run
from utils.data.prompts import SliderPrompt
from utils.errors import run_cli
from utils.jobs.launch import launch
from utils.jobs.prepare import Study, check_hub, claiming, list_runs, load_base, prepare_sliders
from utils.training.claims import inputs_of

# python_name, which is a script beside this one with a train_run, and what it is
METHODS = {"slider_text": "text sliders: the base model's own direction between two prompts"}


def main(argv: Sequence[str] | None = None) -> int:
    """Train; the exit status as in `run_all`."""
    study, prompts = prepare_sliders(argv, __doc__ or "", METHODS, training=True)
    check_hub(study.runs)
    if study.dry_run:
        list_runs(study.runs, _paths)
        return 0
    inputs = {run.name: inputs_of(run, prompts[run.dataset]) for run in study.runs}
    for run in study.runs:
        check_writable(run.folder)
    closing = f"next: {study.command('gen_image_script.py')}"
    return launch(study.runs, partial(workshop, study, prompts, inputs), closing)


def workshop(
    study: Study,
    prompts: Mapping[str, Sequence[SliderPrompt]],
    inputs: Mapping[str, str],
    runs: Sequence[Run],
) -> Callable[[Run], Path]:
    """Load the base; gives what trains any of `runs`, on its dataset's prompts; `inputs` as of `claiming`."""
    texts = [text for run in runs for prompt in prompts[run.dataset] for text in prompt.texts]
    flux, embeds = load_base(study, texts)
    method = import_module(study.config.python_name)

    def train_one(run: Run) -> None:
        method.train_run(run, flux, prompts[run.dataset], embeds)

    return claiming(train_one, inputs)


def _paths(run: Run) -> dict[str, Path]:
    return {
        "prompts": Path(run.config.datasets_folder) / f"{run.dataset}.yaml",
        "weights": run.weights_path(),
        "reference": run.reference_path(),
    }


if __name__ == "__main__":
    run_cli(main)
