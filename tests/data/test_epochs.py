"""What each step sees of captioned images: every one as often as its repeats, batches of one size, a seed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.data.caption_files import CaptionedImage
from utils.data.captioned import CaptionedDataset, CaptionedSubset
from utils.data.captions import CaptionRules
from utils.data.dataset_options import DatasetOptions
from utils.data.epochs import Step, holds, plan_steps, steps_of_epoch, without_words

SIZES = ((64, 64), (96, 48), (48, 96))


def dataset(name: str, images: list[tuple[int, int]], batch_size: int, **rules) -> CaptionedDataset:
    """Images given as (size's number, repeats), which their names have."""
    own = tuple(
        CaptionedImage(Path(f"{name}/{number}_{size}.png"), f"tag{number}, red, blue, green", (), repeats)
        for number, (size, repeats) in enumerate(images)
    )
    subset = CaptionedSubset(name, own, CaptionRules(**rules), flip_aug=True)
    options = replace(DatasetOptions(resolution=(64,)), batch_size=batch_size)
    return CaptionedDataset(name, options, (subset,))


def size_of(_: CaptionedDataset, image: CaptionedImage) -> tuple[int, int]:
    return SIZES[int(image.path.stem.partition("_")[2])]


def counts(steps: list[Step]) -> Counter[Path]:
    return Counter(sample.image.path for step in steps for sample in step.samples)


images = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4)), min_size=1, max_size=6)


@given(st.lists(images, min_size=1, max_size=2), st.integers(1, 5), st.integers(1, 3), st.integers(0, 99))
def test_an_epoch_shows_each_image_as_often_as_its_repeats_in_full_batches_of_one_size(
    of_datasets: list[list[tuple[int, int]]], batch_size: int, processes: int, seed: int
) -> None:
    datasets = [dataset(f"d{number}", own, batch_size) for number, own in enumerate(of_datasets)]
    steps = steps_of_epoch(datasets, size_of, processes)
    plan = plan_steps(datasets, size_of, 2 * steps, processes, seed, "")
    assert plan[:steps] == plan_steps(datasets, size_of, steps, processes, seed, "")
    for epoch in (plan[:steps], plan[steps:]):
        seen = counts(epoch)
        filled = 0
        for each in datasets:
            buckets: dict[tuple[int, int], list[CaptionedImage]] = {}
            for image in each.images:
                buckets.setdefault(size_of(each, image), []).append(image)
            for own in buckets.values():
                total = sum(image.repeats for image in own)
                more = -total % (batch_size * processes)
                filled += more
                surplus = [seen[image.path] - image.repeats for image in own]
                assert min(surplus) >= 0
                assert sum(surplus) == more
        assert filled == sum(seen.values()) - sum(image.repeats for each in datasets for image in each.images)
    for step in plan:
        assert len(step.samples) == batch_size * processes
        assert {SIZES[int(sample.image.path.stem.partition("_")[2])] for sample in step.samples} == {
            step.size
        }
        assert len({sample.image.path.parent for sample in step.samples}) == 1


def test_one_process_of_twice_the_batch_has_the_plan_of_two() -> None:
    own = [(0, 3), (1, 2), (0, 1), (2, 5)]
    alone = plan_steps([dataset("d", own, 4, shuffle_caption=True)], size_of, 20, 1, 5, "tok")
    two = plan_steps([dataset("d", own, 2, shuffle_caption=True)], size_of, 20, 2, 5, "tok")
    assert alone == two


def test_the_seed_decides_order_captions_and_mirroring() -> None:
    def plan(seed: int) -> list[Step]:
        return plan_steps(
            [dataset("d", [(0, 4), (0, 4)], 2, shuffle_caption=True)], size_of, 20, 1, seed, "tok"
        )

    assert plan(1) == plan(1) != plan(2)
    samples = [sample for step in plan(1) for sample in step.samples]
    assert {sample.flipped for sample in samples} == {False, True}
    assert len({sample.caption for sample in samples}) > 4
    assert all(sample.caption.startswith("tok, ") for sample in samples)


def test_captions_left_out_in_every_nth_epoch_are_so_in_all_of_it() -> None:
    own = [dataset("d", [(0, 2), (0, 2)], 2, caption_dropout_every_n_epochs=3)]
    captions = [[sample.caption for sample in step.samples] for step in plan_steps(own, size_of, 6, 1, 0, "")]
    assert [all(each) for each in captions] == [True] * 4 + [False] * 2
    assert not any(captions[4] + captions[5])


@pytest.mark.parametrize(
    ("caption", "words", "left"),
    [
        ("a photo of ohwx person, smiling", ["ohwx"], "a photo of person, smiling"),
        ("ohwx, smiling", ["ohwx"], "smiling"),
        ("smiling, [trigger]", ["ohwx", "[trigger]"], "smiling"),
        ("ohwx", ["ohwx"], ""),
        ("ohwxes and ohwx's", ["ohwx"], "ohwxes and 's"),
        ("a <new1> dog", ["<new1>"], "a dog"),
        ("a man", [""], "a man"),
    ],
)
def test_a_caption_without_the_words_of_the_subject(caption: str, words: list[str], left: str) -> None:
    assert without_words(caption, words) == left


def test_a_word_is_held_whole() -> None:
    assert holds("a photo of a Man, smiling", "man")
    assert not holds("a woman", "man")
    assert holds("a pixel art cat", "pixel art")
