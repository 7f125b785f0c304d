"""Learn one photograph by heart, so that the base model draws it from any noise: a start for editing it.

Rectified flow on the photograph alone; the adapter is "inversion" (arXiv 2506.07992, real images).

python train_image_real.py --c=train_image_real

The same as train_image_real_script.py with `python_name: train_image_real`.
"""

from collections.abc import Sequence

from train_image_real_script import main as train

from utils.errors import run_cli
from utils.jobs.cli import with_method


def main(argv: Sequence[str] | None = None) -> int:
    """Train; the exit status as in `run_all`."""
    return train(with_method(argv, "train_image_real"))


if __name__ == "__main__":
    run_cli(main)
