"""PairEdit on the rectified flow in place of the content-preserving schedule.

Content and semantic adapters; the semantic target is velocity + eta * direction (arXiv 2506.07992, ablation).

python train_image_fm.py --c=train_image_fm

The same as train_image_script.py with `python_name: train_image_fm`.
"""

from collections.abc import Sequence

from train_image_script import main as train

from utils.errors import run_cli
from utils.jobs.cli import with_method


def main(argv: Sequence[str] | None = None) -> int:
    """Train; the exit status as in `run_all`."""
    return train(with_method(argv, "train_image_fm"))


if __name__ == "__main__":
    run_cli(main)
