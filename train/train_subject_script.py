"""Learn subjects and styles from captioned images: train every run of a config (datasets x versions).

python train_subject_script.py --c=train_subject
python train_subject_script.py --c=train_subject "datasets=[anna,ben]" prior=images --dry-run

A dataset is a folder of images with captions (.txt, .caption, metadata.jsonl), or sd-scripts' NAME.toml.
"""

from collections.abc import Sequence

from utils.errors import run_cli
from utils.jobs.train import train_command
from utils.training.captioned import CaptionedImages
from utils.training.methods import methods_from


def main(argv: Sequence[str] | None = None) -> int:
    """Train; the exit status as in `run_all`."""
    return train_command(argv, __doc__ or "", methods_from(CaptionedImages), "gen_image_script.py")


if __name__ == "__main__":
    run_cli(main)
