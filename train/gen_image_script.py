"""Generate with trained edits: sweep scales and skips for every run of a config, a captioned grid a seed.

python gen_image_script.py --c=train_image
python gen_image_script.py --c=train_image scales=-1,0,1 "skips=[7,14]" count_gen=8 prompt="photo of a woman"
"""

from collections.abc import Sequence

from utils.errors import run_cli
from utils.jobs.generate import generate_runs
from utils.jobs.prepare import prepare
from utils.training.methods import methods_from
from utils.training.sources import ImagePairs


def main(argv: Sequence[str] | None = None) -> int:
    """Generate; the exit status as in `run_all`."""
    experiment = prepare(argv, __doc__ or "", methods_from(ImagePairs))
    following = "edit_table" if experiment.config.judge == "probe" else "slider"
    return generate_runs(experiment, "train_image_script.py", f"eval_scripts/{following}.py")


if __name__ == "__main__":
    run_cli(main)
