"""Compare the images at each slider scale, as a set, with a folder of images: FID and KID.

cd train
python eval_scripts/distribution.py --c=train_image --reference datasets/real_person/source

Each network whose weights are there gives both: Inception (FID as everybody means it), DINOv2, and where
judge is probe the face world's probe. Few images give distances that say little; the table says so.
  --reference FOLDER  the images to compare with
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tinyflux.judge import face_probe
from utils.arguments import Parser, path_option
from utils.errors import UserError, run_cli
from utils.files import find_images
from utils.jobs.measure import Subject, measure_images
from utils.jobs.measured_rows import Row


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; 0 as the exit status."""
    parser = Parser(add_help=False)
    parser.add_argument("--reference", type=lambda folder: find_images(path_option(folder)))
    argv = sys.argv[1:] if argv is None else argv
    options, rest = parser.parse_known_args(argv)
    if options.reference is None and not {"--help", "-h"} & set(rest):
        raise UserError("--reference: expected a folder of images to compare with, found none")

    def measured(subject: Subject) -> list[Row]:
        return rows_of(subject, options.reference)

    return measure_images(rest, "distribution", __doc__ or "", measured, face_probe, argv)


def rows_of(subject: Subject, reference: Mapping[str, Path]) -> list[Row]:
    """FID and KID by every network at every scale."""
    import torch

    from utils.data.pixels import load_cropped
    from utils.measure.distribution import caution, compare_sets
    from utils.measure.encoders import Unavailable

    count = min(len(reference), len(subject.series.names))
    if count < 2:
        raise UserError(
            f"{subject.run.name}: expected 2 images or more at each scale and in --reference, "
            f"found {len(subject.series.names)} and {len(reference)}"
        )
    wanted = torch.stack([load_cropped(path, subject.series.size) for path in reference.values()])
    note = caution(count)
    rows = []
    for network, features in _networks(subject).items():
        if isinstance(features, Unavailable):
            rows += [Row(subject.run.name, None, f"{name} {network}", features) for name in ("FID", "KID")]
            continue
        theirs = features(wanted)
        for scale, images in subject.series.images.items():
            for name, value in compare_sets(features(images), theirs).items():
                measured = torch.tensor([value])
                rows.append(Row(subject.run.name, scale, f"{name} {network}", measured, note))
    return rows


def _networks(subject: Subject) -> dict[str, Any]:
    """Images -> features (B, D) of every network, or why it is not available."""
    from utils.data.buckets import size_text
    from utils.machine import resolve_device
    from utils.measure.distribution import load_inception
    from utils.measure.encoders import Unavailable

    config, dinov2 = subject.run.config, subject.tools["dinov2"]
    device = resolve_device(config.device, lambda line: None)  # it was reported for the others
    networks: dict[str, Any] = {
        "Inception": load_inception(config.inception_weights, device),
        "DINOv2": dinov2 if isinstance(dinov2, Unavailable) else dinov2.features,
    }
    if (probe := subject.instruments.probe) is not None:
        size, own = size_text(subject.series.size), size_text((probe.resolution, probe.resolution))
        networks["probe"] = (
            probe.features
            if probe.fits(*subject.series.size)
            else Unavailable("probe", f"it reads images of {own}, these are of {size}", "generate that size")
        )
    return networks


if __name__ == "__main__":
    run_cli(main)
