"""Edit photographs: sweep a trained edit's scale on each, a captioned grid a photograph.

python gen_image_real_script.py --c=train_image_real
python gen_image_real_script.py --c=train_image_real inversion=flowedit scales=-1,0,1 semantic_lora_path=...
"""

from collections.abc import Sequence

from utils.errors import run_cli
from utils.jobs.generate import generate_photographs
from utils.jobs.prepare import prepare
from utils.training.methods import methods_from
from utils.training.sources import Photograph


def main(argv: Sequence[str] | None = None) -> int:
    """Edit; the exit status as in `run_all`."""
    experiment = prepare(argv, __doc__ or "", methods_from(Photograph))
    return generate_photographs(experiment, "train_image_real_script.py", "eval_scripts/preservation.py")


if __name__ == "__main__":
    run_cli(main)
