"""Measure a slider as a slider: how even, how far, in order, and over which scales it can be used.

cd train
python eval_scripts/slider.py --c=train_image

delta_smooth, CR, CSM, SP, OS, the correlations and the usable range are defined in utils/measure/sliders.py.
The distance is the judge's, with judge=clip LPIPS alex; the score is the judge's strength.
  --limit X           damage from which on the image counts as broken (the judge's own)
  --original FOLDER   what the images at scale 0 should be, by name: the photographs, for edits of photographs
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyflux.judge import face_probe
from utils.arguments import Parser, number, path_option
from utils.errors import UserError, run_cli
from utils.files import find_images
from utils.jobs.measure import Subject, measure_images
from utils.jobs.measured_rows import Row

if TYPE_CHECKING:
    from torch import Tensor

    from utils.measure.encoders import Unavailable
    from utils.measure.measures import Measure

MEASURES = ("CR", "CSM", "SP", "OS", "Spearman", "Pearson", "saturates", "breaks")
"""What is measured of the judge's strength, in the order of the columns."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; 0 as the exit status."""
    parser = Parser(add_help=False)
    parser.add_argument("--limit", type=number)
    parser.add_argument("--original", type=lambda folder: find_images(path_option(folder)))
    argv = sys.argv[1:] if argv is None else argv
    options, rest = parser.parse_known_args(argv)

    def measured(subject: Subject) -> list[Row]:
        return rows_of(subject, options.limit, options.original)

    return measure_images(rest, "slider", __doc__ or "", measured, face_probe, argv)


def rows_of(subject: Subject, limit: float | None, original: Mapping[str, Path] | None) -> list[Row]:
    """Every slider metric of one run; `limit` None takes the judge's own."""
    from utils.measure.encoders import Unavailable
    from utils.measure.measures import distance_measure

    distance = distance_measure(subject.tools, subject.available_judge)
    values = _of_distances(subject, distance) | _of_strength(subject, distance, limit)
    if original is not None:
        values["error at 0"] = (
            distance
            if isinstance(distance, Unavailable)
            else distance(_originals(subject, original), subject.series.images[0.0])
        )
    return [Row(subject.run.name, None, name, value) for name, value in values.items()]


def _of_distances(subject: Subject, distance: Measure | Unavailable) -> dict[str, Any]:
    from utils.measure.encoders import Unavailable
    from utils.measure.measures import pairwise_distances
    from utils.measure.sliders import smoothness

    if isinstance(distance, Unavailable):
        return {"delta_smooth": distance}
    if len(subject.series.scales) < 3:
        return {"delta_smooth": None}
    distances = pairwise_distances(subject.series, distance, subject.available_judge)
    return {"delta_smooth": smoothness(distances)}


def _of_strength(subject: Subject, distance: Measure | Unavailable, limit: float | None) -> dict[str, Any]:
    import torch

    from utils.measure.encoders import Unavailable
    from utils.measure.sliders import correlations, free_sliders, usable_range

    judge, series = subject.judge, subject.series
    if isinstance(judge, Unavailable):
        return dict.fromkeys(MEASURES, judge)
    before, scales = series.images[0.0], torch.tensor(series.scales)
    strength = torch.stack([judge.strength(before, after) for after in series.images.values()], dim=1)

    # In order, even, far.
    spearman, pearson = correlations(scales, strength)
    values: dict[str, Any] = dict.fromkeys(MEASURES)
    values |= {"Spearman": spearman, "Pearson": pearson}
    if isinstance(distance, Unavailable):
        values |= dict.fromkeys(("CR", "CSM", "SP", "OS"), distance)
    else:
        others = [distance(before, after) for scale, after in series.images.items() if scale != 0]
        scores = free_sliders(strength, torch.stack(others, dim=1))
        parts = (scores.conceptual_range, scores.smoothness, scores.preservation, scores.overall)
        values |= dict(zip(("CR", "CSM", "SP", "OS"), parts, strict=True))

    # Over which scales it can be used.
    up = scales >= 0
    if up.sum() < 2:  # a slider that only goes down from 0
        return values
    damage = [judge.damage(before, after).mean() for scale, after in series.images.items() if scale >= 0]
    usable = usable_range(
        scales[up],
        strength[:, up].mean(dim=0),
        torch.stack(damage),
        judge.limit if limit is None else limit,
    )
    for name, scale in (("saturates", usable.saturates), ("breaks", usable.breaks)):
        values[name] = None if scale is None else torch.tensor([scale])
    return values


def _originals(subject: Subject, found: Mapping[str, Path]) -> Tensor:
    import torch

    from utils.data.pixels import load_cropped

    if lacking := [name for name in subject.series.names if name not in found]:
        raise UserError(f"--original: expected an image for every identity, found no {lacking[0]}")
    return torch.stack([load_cropped(found[name], subject.series.size) for name in subject.series.names])


if __name__ == "__main__":
    run_cli(main)
