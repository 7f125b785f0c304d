"""Learn photographs by heart, one inversion LoRA each (datasets x versions x image_ids).

python train_image_real_script.py --c=train_image_real
python train_image_real_script.py --c=train_image_real "image_ids=[4000002]" train_iteration=500 --dry-run

Only `inversion: lora` needs this; the other inversions need no training.
"""

from collections.abc import Sequence

from utils.errors import run_cli
from utils.jobs.train import train_command
from utils.training.methods import methods_from
from utils.training.sources import Photograph


def main(argv: Sequence[str] | None = None) -> int:
    """Train; the exit status as in `run_all`."""
    following = "gen_image_real_script.py inversion=lora"
    return train_command(argv, __doc__ or "", methods_from(Photograph), following)


if __name__ == "__main__":
    run_cli(main)
