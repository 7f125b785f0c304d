"""Measure how far an edit has got at each slider scale, on images from gen_image_script.py or any others.

cd train
python eval_scripts/edit_strength.py --c=train_image
python eval_scripts/edit_strength.py --c=train_image --at 0=before --at 1=after --text "a person with glasses"

moved: the judge's strength, 1 = the pairs' own change. CLIP direction is text-free: the angle between what
the pairs change in CLIP's space and what the edit does.
  --text TEXT         also CLIP's score of the edited images under this text
"""

import sys
from collections.abc import Sequence

from tinyflux.judge import face_probe
from utils.arguments import Parser
from utils.errors import run_cli
from utils.jobs.measure import Subject, measure_images
from utils.jobs.measured_rows import Row, rows_by_scale


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; 0 as the exit status."""
    parser = Parser(add_help=False)
    parser.add_argument("--text", default="")
    argv = sys.argv[1:] if argv is None else argv
    options, rest = parser.parse_known_args(argv)

    def rows_of(subject: Subject) -> list[Row]:
        from utils.measure.measures import strength_measures

        measures = strength_measures(subject.tools, subject.pairs, options.text, subject.available_judge)
        return rows_by_scale(subject.run.name, subject.series, measures)

    return measure_images(rest, "edit_strength", __doc__ or "", rows_of, face_probe, argv)


if __name__ == "__main__":
    run_cli(main)
