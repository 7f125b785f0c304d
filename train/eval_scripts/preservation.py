"""Measure what an edit leaves of the image at each scale: pixels, perception, identity, other attributes.

cd train
python eval_scripts/preservation.py --c=train_image
python eval_scripts/preservation.py --c=train_image --at 0=before --at 1=after --require
"""

from collections.abc import Sequence

from tinyflux.judge import face_probe
from utils.errors import run_cli
from utils.jobs.measure import Subject, measure_images
from utils.jobs.measured_rows import Row, rows_by_scale


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; 0 as the exit status."""
    return measure_images(argv, "preservation", __doc__ or "", rows_of, face_probe)


def rows_of(subject: Subject) -> list[Row]:
    """Every preservation measure at every scale."""
    from utils.measure.measures import preservation_measures

    return rows_by_scale(
        subject.run.name, subject.series, preservation_measures(subject.tools, subject.available_judge)
    )


if __name__ == "__main__":
    run_cli(main)
