"""Generate with trained edits: sweep scales and skips for every run of a config, a captioned grid a seed.

python gen_image_script.py --c=train_image
python gen_image_script.py --c=train_image scales=-1,0,1 "skips=[7,14]" count_gen=8 prompt="photo of a woman"
"""

from collections.abc import Sequence

from utils.errors import run_cli
from utils.jobs.generate import generate_runs
from utils.jobs.prepare import prepare
from utils.training.captioned import CaptionedImages
from utils.training.methods import method_of, methods_from
from utils.training.sources import ImagePairs


def main(argv: Sequence[str] | None = None) -> int:
    """Generate; the exit status as in `run_all`."""
    experiment = prepare(argv, __doc__ or "", methods_from(ImagePairs, CaptionedImages))
    source = method_of(experiment.config.python_name).source
    following = "edit_table" if experiment.config.judge == "probe" else "slider"
    measured_by = f"eval_scripts/{following}.py" if source is ImagePairs else ""
    return generate_runs(experiment, source.trained_by, measured_by)


if __name__ == "__main__":
    run_cli(main)
