"""Text sliders, a baseline: one adapter learns the direction between two prompts, without any image.

Rectified flow, on the base model's own half-made images (Concept Sliders, arXiv 2311.12092).

python slider_text.py --c=slider_text

The same as train_slider_text_script.py with `python_name: slider_text`.
"""

from collections.abc import Sequence

from train_slider_text_script import main as train

from utils.errors import run_cli
from utils.jobs.cli import with_method


def main(argv: Sequence[str] | None = None) -> int:
    """Train; the exit status as in `run_all`."""
    return train(with_method(argv, "slider_text"))


if __name__ == "__main__":
    run_cli(main)
