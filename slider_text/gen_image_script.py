"""Generate with trained text sliders: sweep scales and skips for every run of a study, as train/ does.

python gen_image_script.py --c=slider_text
python gen_image_script.py --c=slider_text scales=-1,0,1 skips=[7,14] count_gen=8
"""

from collections.abc import Sequence

import _path  # noqa: F401

from utils.errors import run_cli
from utils.jobs.generate import generate_study
from utils.jobs.prepare import prepare_sliders
from utils.training.methods import TEXT_METHODS


def main(argv: Sequence[str] | None = None) -> int:
    """Generate; the exit status as in `run_all`."""
    study, _ = prepare_sliders(argv, __doc__ or "", TEXT_METHODS)
    return generate_study(study, "train_slider_text_script.py")


if __name__ == "__main__":
    run_cli(main)
