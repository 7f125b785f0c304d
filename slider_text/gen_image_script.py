"""Generate with trained text sliders: sweep scales and skips for every run of a config, as train/ does.

python gen_image_script.py --c=slider_text
python gen_image_script.py --c=slider_text scales=-1,0,1 "skips=[7,14]" count_gen=8
"""

from collections.abc import Sequence

from utils.errors import run_cli
from utils.jobs.generate import generate_runs
from utils.jobs.prepare import prepare
from utils.training.methods import methods_from
from utils.training.slider_prompts import SliderPrompts


def main(argv: Sequence[str] | None = None) -> int:
    """Generate; the exit status as in `run_all`."""
    experiment = prepare(argv, __doc__ or "", methods_from(SliderPrompts))
    measuring = "../train/eval_scripts/preservation.py"
    return generate_runs(experiment, "train_slider_text_script.py", measuring=measuring)


if __name__ == "__main__":
    run_cli(main)
