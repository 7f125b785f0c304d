"""Learn edits from image pairs: train every run of a config (datasets x versions x noise_scales).

python train_image_script.py --c=train_image
python train_image_script.py --c=train_image train_iteration=100 "datasets=[smile]" --dry-run
"""

from collections.abc import Sequence

from tinyflux.judge import face_probe
from utils.errors import run_cli
from utils.jobs.train import train_command
from utils.training.methods import methods_from
from utils.training.sources import ImagePairs


def main(argv: Sequence[str] | None = None) -> int:
    """Train; the exit status as in `run_all`."""
    return train_command(argv, __doc__ or "", methods_from(ImagePairs), "gen_image_script.py", face_probe)


if __name__ == "__main__":
    run_cli(main)
