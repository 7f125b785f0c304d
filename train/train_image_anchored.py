"""PairEdit with one adapter, pushed from the base's own velocity.

One adapter; what it is asked for holds the edit alone (utils/flow/objectives.py has the formula).

python train_image_anchored.py --c=train_image

The same as train_image_script.py with `python_name: train_image_anchored`.
"""

from collections.abc import Sequence

from train_image_script import main as train

from utils.errors import run_cli
from utils.jobs.cli import with_method


def main(argv: Sequence[str] | None = None) -> int:
    """Train; the exit status as in `run_all`."""
    return train(with_method(argv, "train_image_anchored"))


if __name__ == "__main__":
    run_cli(main)
