"""A subject or a style out of captioned images, on the rectified flow, with a prior that keeps its class.

python train_subject.py --c=train_subject

The same as train_subject_script.py with `python_name: train_subject`.
"""

from collections.abc import Sequence

from train_subject_script import main as train

from utils.errors import run_cli
from utils.jobs.cli import with_method


def main(argv: Sequence[str] | None = None) -> int:
    """Train; the exit status as in `run_all`."""
    return train(with_method(argv, "train_subject"))


if __name__ == "__main__":
    run_cli(main)
