"""PairEdit: a content adapter keeps the source image, a semantic adapter on top learns nothing but the edit.

Content-preserving schedule; the semantic target is velocity + eta * direction (arXiv 2506.07992).

python train_image.py --c=train_image

The same as train_image_script.py with `python_name: train_image`.
"""

from collections.abc import Sequence

from train_image_script import main as train

from utils.errors import run_cli
from utils.jobs.cli import with_method


def main(argv: Sequence[str] | None = None) -> int:
    """Train; the exit status as in `run_all`."""
    return train(with_method(argv, "train_image"))


if __name__ == "__main__":
    run_cli(main)
