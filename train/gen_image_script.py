"""Generate with trained edits: sweep scales and skips for every run of a study, a captioned grid a seed.

python gen_image_script.py --c=train_image
python gen_image_script.py --c=train_image scales=-1,0,1 skips=[7,14] count_gen=8 prompt="photo of a woman"
"""

from collections.abc import Sequence

import _path  # noqa: F401
from train_image_script import METHODS

from utils.config import check_writable
from utils.errors import run_cli
from utils.runner import list_runs, load_base, prepare, run_all
from utils.shots import check_loras, choose_prompts, choose_seeds


def main(argv: Sequence[str] | None = None) -> int:
    """Generate; the exit status as in `run_all`."""
    study = prepare(argv, __doc__ or "", METHODS)
    if study.dry_run:
        list_runs(study.runs, lambda run: {"lora": run.lora_path, "images": run.seeds_folder})
        return 0
    check_loras(study.runs, study.command("train_image_script.py"))
    seeds = choose_seeds(study.config)
    prompts = {run.name: choose_prompts(run, seeds) for run in study.runs}
    for run in study.runs:
        check_writable(run.seeds_folder)
    flux, embeds = load_base(study, [prompt for of_run in prompts.values() for prompt in of_run])
    from generate_image import generate_run  # here, so that the checks above come at once

    print(f"seeds: {', '.join(map(str, seeds))}")
    return run_all(
        study.runs,
        lambda run: generate_run(run, flux, seeds, prompts[run.name], embeds),
        f"each seed's grid is SEED.png in there, beginning with {seeds[0]}.png",
    )


if __name__ == "__main__":
    run_cli(main)
