"""What an epoch of captioned datasets is, before anything is encoded: images by size, batches, steps.

dataset.toml: [[datasets]] 1: 6 images, 60 in an epoch, batches of 4
  512 x 512: 4 images, 40 in an epoch, 10 batches
  448 x 576: 2 images, 20 in an epoch, 5 batches
15 steps an epoch; 100 steps are 6.7 epochs
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from utils.data.captioned import Captioned, CaptionedDataset
from utils.data.findings import Findings, counted
from utils.errors import UserError

Size = tuple[int, int]
"""(width, height) in pixels."""
SizeOf = Callable[[int, int, object], Size]
"""Width and height of an image, and what names it in errors -> the size it is learned at."""


@dataclass(frozen=True)
class BucketCount:
    """The images of one size.

    Attributes:
        size: that they are learned at.
        images: files.
        draws: images x repeats, what an epoch shows of them.
        reg_draws: how many of these are regularization images.
        batches: draws / batch size, rounded up: a bucket's last batch is filled up.
    """

    size: Size
    images: int
    draws: int
    reg_draws: int
    batches: int


@dataclass(frozen=True)
class DatasetCount:
    """A dataset's buckets, ascending by width."""

    place: str
    batch_size: int
    buckets: tuple[BucketCount, ...]

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return sum(bucket.batches for bucket in self.buckets)


def count_epoch(
    captioned: Captioned, size_of: Callable[[CaptionedDataset], SizeOf]
) -> tuple[DatasetCount, ...]:
    """Sort the images of all datasets into buckets by their sizes, of which the files' heads tell.

    Args:
        captioned: see `read_captioned`.
        size_of: for a dataset, by its options, what gives its images their size.

    Raises:
        UserError: every image that can't be read and every one that no bucket takes, all in one.
    """
    findings = Findings()
    counts = tuple(_count(dataset, size_of(dataset), findings) for dataset in captioned.datasets)
    findings.settle()
    return counts


def _count(dataset: CaptionedDataset, size_of: SizeOf, findings: Findings) -> DatasetCount:
    from utils.data.decoding import read_size  # here, as Pillow takes a while

    draws: dict[Size, list[tuple[int, bool]]] = {}
    for image in dataset.images:
        try:
            size = size_of(*read_size(image.path), image.path)
        except UserError as error:
            findings.faults.append(str(error))
        else:
            draws.setdefault(size, []).append((image.repeats, image.is_reg))

    batch_size = dataset.options.batch_size
    buckets = []
    for size, drawn in sorted(draws.items()):
        total = sum(repeats for repeats, _ in drawn)
        of_class = sum(repeats for repeats, is_reg in drawn if is_reg)
        buckets.append(BucketCount(size, len(drawn), total, of_class, -(-total // batch_size)))
    return DatasetCount(dataset.place, batch_size, tuple(buckets))


def in_words(counts: Sequence[DatasetCount], steps: int = 0) -> list[str]:
    """Lines for a dry run; `steps`: of the training, 0: not settled."""
    lines = []
    for count in counts:
        images, draws = (sum(getattr(each, name) for each in count.buckets) for name in ("images", "draws"))
        of_class = sum(bucket.reg_draws for bucket in count.buckets)
        reg = f", {of_class} of them regularization images" if of_class else ""
        lines.append(
            f"{count.place}: {counted(images, 'image')}, {draws} in an epoch{reg}, "
            f"batches of {count.batch_size}"
        )
        lines += [
            f"  {bucket.size[0]} x {bucket.size[1]}: {counted(bucket.images, 'image')}, "
            f"{bucket.draws} in an epoch, {bucket.batches} batch{'' if bucket.batches == 1 else 'es'}"
            for bucket in count.buckets
        ]
    each = sum(count.steps for count in counts)
    epochs = f"; {counted(steps, 'step')} are {steps / each:.1f} epochs" if steps else ""
    return [*lines, f"{counted(each, 'step')} an epoch{epochs}"]
