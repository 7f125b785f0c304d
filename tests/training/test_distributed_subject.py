"""Captioned images of five aspect ratios, learned by one process and by two."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.training.mini_subjects import dataset
from tests.training.processes import Launch, largest_difference, log_lines

SUBJECT = ("python_name=train_subject", "datasets=[anna]", "trigger=ohwx", "shuffle_caption=1", "flip=1")


def test_two_processes_learn_of_five_aspect_ratios_what_one_does_of_twice_the_batch(
    site: Path, launch: Launch
) -> None:
    """By epochs, with the prior of images, which the main process generates."""
    dataset(site / "datasets")
    own = (*SUBJECT, "prior=images", "class_word=person", "prior_count=3", "train_epochs=2")
    weights, folders = [], []
    for count, batch_size in ((1, 4), (2, 2)):
        statuses, outputs = launch(count, *own, f"batch_size={batch_size}", script="train_subject_script")
        assert statuses == [0] * count, outputs
        folders.append((site / "output").rename(site / f"of{count}"))
        (path,) = folders[-1].glob("models/image/anna/*_v1/*_10epoch.safetensors")
        weights.append(load_file(path))
    assert largest_difference(*weights) < 1e-6
    made = [{path.name: path.read_bytes() for path in folder.rglob("class_images/*")} for folder in folders]
    assert made[0] == made[1]
    for one, two in zip(*map(log_lines, folders), strict=True):
        assert [one[name] for name in ("subject", "prior")] == pytest.approx(
            [two[name] for name in ("subject", "prior")], rel=1e-5
        )
