"""Image sliders, a baseline: one adapter denoises the target at scale +1 and the source at -1.

Rectified flow (Concept Sliders, arXiv 2311.12092).

python train_image_sliders.py --c=train_image_sliders

The same as train_image_script.py with `python_name: train_image_sliders`.
"""

from collections.abc import Sequence

from train_image_script import main as train

from utils.errors import run_cli
from utils.jobs.cli import with_method


def main(argv: Sequence[str] | None = None) -> int:
    """Train; the exit status as in `run_all`."""
    return train(with_method(argv, "train_image_sliders"))


if __name__ == "__main__":
    run_cli(main)
