"""Edit photographs: sweep a trained edit's scale on each, a captioned grid a photograph.

python gen_image_real_script.py --c=train_image_real
python gen_image_real_script.py --c=train_image_real inversion=flowedit scales=-1,0,1 semantic_lora_path=...
"""

from collections.abc import Sequence
from pathlib import Path

import _path  # noqa: F401

from utils.config.runs import RealRun, expand_real_runs
from utils.errors import run_cli
from utils.generation.prompts_and_seeds import check_loras, check_semantic_lora, choose_prompts, choose_seeds
from utils.jobs.prepare import list_runs, load_base, prepare, run_all
from utils.lora.calibration import with_scales
from utils.machine import check_writable
from utils.training.methods import PHOTO_METHODS


def main(argv: Sequence[str] | None = None) -> int:
    """Edit; the exit status as in `run_all`."""
    study = prepare(argv, __doc__ or "", PHOTO_METHODS)
    runs = expand_real_runs(study.config)
    if study.dry_run:
        list_runs(runs, lambda run: {"photo": run.photograph, "images": run.seeds_folder})
        return 0
    check_semantic_lora(study.config)
    runs = [with_scales(run, [Path(study.config.semantic_lora_path)]) for run in runs]
    if study.config.inversion == "lora":
        check_loras(runs, study.command("train_image_real_script.py"))
    seeds = choose_seeds(study.config)
    prompts = {run.name: choose_prompts(run, seeds) for run in runs}
    # here, so that the checks above come at once
    from utils.data.photos import load_photo
    from utils.generation.gallery import generate_photo_run

    photos = {run.name: load_photo(run.photograph, run.config.resolution) for run in runs}
    for run in runs:
        check_writable(run.seeds_folder)
    flux, embeds = load_base(study, [prompt for of_run in prompts.values() for prompt in of_run])

    def edit_one(run: RealRun) -> Path:
        return generate_photo_run(run, flux, photos[run.name], seeds, prompts[run.name], embeds)

    return run_all(runs, edit_one, f"each photograph's grid is SEED.png in there, here {seeds[0]}.png")


if __name__ == "__main__":
    run_cli(main)
