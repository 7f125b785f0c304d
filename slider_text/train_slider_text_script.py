"""Learn edits from words, without pairs: train every run of a config of text sliders.

python train_slider_text_script.py --c=slider_text
python train_slider_text_script.py --c=slider_text train_iteration=100 "datasets=[smile]" --dry-run

A dataset is a file of prompts, datasets_folder/DATASET.yaml; its guidance_scale is eta, the runs' cfg_eta.
"""

from collections.abc import Sequence

from utils.errors import run_cli
from utils.jobs.train import train_command
from utils.training.methods import methods_from
from utils.training.slider_prompts import SliderPrompts


def main(argv: Sequence[str] | None = None) -> int:
    """Train; the exit status as in `run_all`."""
    return train_command(argv, __doc__ or "", methods_from(SliderPrompts), "gen_image_script.py")


if __name__ == "__main__":
    run_cli(main)
