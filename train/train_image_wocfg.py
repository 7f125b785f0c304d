"""PairEdit without the guidance term: the semantic adapter learns to reconstruct the target image.

Content-preserving schedule; the semantic target is the target image's own velocity (arXiv 2506.07992,
ablation).

python train_image_wocfg.py --c=train_image_wocfg

The same as train_image_script.py with `python_name: train_image_wocfg`.
"""

from collections.abc import Sequence

from train_image_script import main as train

from utils.errors import run_cli
from utils.jobs.cli import with_method


def main(argv: Sequence[str] | None = None) -> int:
    """Train; the exit status as in `run_all`."""
    return train(with_method(argv, "train_image_wocfg"))


if __name__ == "__main__":
    run_cli(main)
