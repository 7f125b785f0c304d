"""What every step of a training sees of captioned images: epochs of shuffled batches, laid out beforehand.

An epoch shows each image as often as its repeats say. A batch holds images of one dataset and one size, and
whatever a bucket's last batch lacks is filled up from the same bucket. The captions are drawn with it, so
that all of them can be encoded before the transformer is there, and the same seed gives the same steps on
any number of processes and after any stop.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from utils.data.buckets import Size
from utils.data.caption_files import CaptionedImage
from utils.data.captioned import CaptionedDataset, CaptionedSubset
from utils.data.captions import draw_caption


@dataclass(frozen=True)
class Sample:
    """One image in one step: its caption as drawn, and whether it is mirrored."""

    image: CaptionedImage
    caption: str
    flipped: bool = False


@dataclass(frozen=True)
class Step:
    """The samples of a step, all at one size (width, height)."""

    size: Size
    samples: tuple[Sample, ...]


Sized = Callable[[CaptionedDataset, CaptionedImage], Size]
"""The size that a dataset's image is learned at."""


def plan_steps(
    datasets: Sequence[CaptionedDataset], size_of: Sized, steps: int, processes: int, seed: int, trigger: str
) -> list[Step]:
    """The first `steps` steps of a training.

    Args:
        datasets: their images, at least one, are subjects; those of the class are drawn elsewhere.
        size_of: gives the bucket of each image.
        steps: how many.
        processes: that train together; a step has the samples of all, batch_size each.
        seed: of order, captions and mirroring.
        trigger: see `draw_caption`.
    """
    random, plan, epoch = Random(seed), list[Step](), 0
    buckets = [_buckets(dataset, size_of) for dataset in datasets]
    while len(plan) < steps:
        epoch += 1
        of_epoch = [
            Step(size, tuple(_sample(*each, random, epoch, trigger) for each in batch))
            for dataset, of_size in zip(datasets, buckets, strict=True)
            for size, images in of_size.items()
            for batch in _batches(images, dataset.options.batch_size * processes, random)
        ]
        random.shuffle(of_epoch)
        plan += of_epoch
    return plan[:steps]


def steps_of_epoch(datasets: Sequence[CaptionedDataset], size_of: Sized, processes: int = 1) -> int:
    """How many steps show every image as often as its repeats say."""
    return sum(
        -(-len(images) // (dataset.options.batch_size * processes))
        for dataset in datasets
        for images in _buckets(dataset, size_of).values()
    )


_Member = tuple[CaptionedImage, CaptionedSubset]


def _buckets(dataset: CaptionedDataset, size_of: Sized) -> dict[Size, list[_Member]]:
    """The images of a dataset by size, each as often as its repeats say."""
    buckets: dict[Size, list[_Member]] = {}
    for subset in dataset.subsets:
        for image in subset.images:
            buckets.setdefault(size_of(dataset, image), []).extend([(image, subset)] * image.repeats)
    return {size: buckets[size] for size in sorted(buckets)}


def _batches(images: Sequence[_Member], size: int, random: Random) -> list[list[_Member]]:
    """All of a bucket in a new order, in batches of `size`, the last one filled up."""
    order = random.sample(images, len(images))
    while len(order) % size:
        order += random.sample(images, min(len(images), size - len(order) % size))
    return [order[first : first + size] for first in range(0, len(order), size)]


def _sample(
    image: CaptionedImage, subset: CaptionedSubset, random: Random, epoch: int, trigger: str
) -> Sample:
    caption = draw_caption(image.caption, image.tags, subset.rules, random, epoch, trigger)
    return Sample(image, caption, subset.flip_aug and random.random() < 0.5)


def holds(caption: str, words: str) -> bool:
    """Whether a caption has these words in it, whole, in whatever case: "man" is not in "woman"."""
    return re.search(_whole(words), caption, re.IGNORECASE) is not None


def without_words(caption: str, words: Sequence[str]) -> str:
    """A caption without the words that name the subject, its commas and spaces mended.

    "photo of ohwx man, smiling" without "ohwx" is "photo of man, smiling".
    """
    for word in filter(None, words):
        caption = re.sub(_whole(word), "", caption)
    parts = [" ".join(part.split()) for part in caption.split(",")]
    return ", ".join(part for part in parts if part)


def _whole(words: str) -> str:
    """A pattern of words that are no part of others."""
    return rf"(?<!\w){re.escape(words)}(?!\w)"
