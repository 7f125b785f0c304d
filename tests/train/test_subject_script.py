"""train_subject_script.py as it is typed, on a miniature FLUX: sd-scripts' walk-through, sweeps, faults."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import TRAIN, Script
from tests.training.mini_subjects import RATIOS, dataset, picture
from utils.config.load import read_config
from utils.models.base import Base

SD_SCRIPTS = TRAIN.parent / "tests/data/sd_scripts"
ARGUMENTS = ("--c=mini", "python_name=train_subject", "trigger=ohwx", "timesteps=uniform")


def test_subjects_are_trained_and_generated_with(site: Path, script: Script, loads: list[Base]) -> None:
    for name in ("anna", "ben"):
        dataset(site / "datasets", RATIOS[:2], name)
    own = (*ARGUMENTS, "datasets=[anna,ben]", "train_epochs=1", "batch_size=2", "prior=base", "config_name=x")
    status, out, err = script("train_subject_script", *own, "--dry-run")
    assert status == 0, err
    assert "datasets/anna: 2 images, 2 in an epoch, batches of 2" in out
    assert "48 x 16: 1 image, 1 in an epoch, 1 batch" in out
    assert "2 steps an epoch; 2 steps are 1.0 epochs" in out
    assert not (site / "output").exists()

    status, out, err = script("train_subject_script", *own)
    assert status == 0, err
    assert "2 of 2 runs done" in out
    assert len(loads) == 1
    following = out.splitlines()[-1].removeprefix("next: python ").split()
    assert following[0] == "gen_image_script.py"
    (card,) = (site / "output").glob("**/anna*/README.md")
    text = card.read_text(encoding="utf-8")
    assert "draws a subject or a style" in text
    assert "| `trigger` | ohwx |" in text

    shutil.rmtree(site / "datasets")  # what is drawn asks for the LoRA alone
    status, out, err = script("gen_image_script", *own, "count_gen=1")
    assert status == 0, err
    assert len(list((site / "output/eval").rglob("skip*_scale*.png"))) == 2 * 3
    assert "next: " not in out


def walk_through(site: Path) -> None:
    """datasets/walk.toml of the walk-through, its metadata, and its images of two aspect ratios."""
    folder = site / "datasets"
    shutil.copy(SD_SCRIPTS / "dataset.toml", folder / "walk.toml")
    shutil.copy(SD_SCRIPTS / "meta_lat.json", folder)
    named = json.loads((SD_SCRIPTS / "meta_lat.json").read_text(encoding="utf-8"))
    for number, name in enumerate(named):
        path = folder / "images" / (name if Path(name).suffix else f"{name}.png")
        picture(path, ((512, 512), (640, 400))[number % 2], seed=number)


def test_the_walk_through_of_sd_scripts_trains_as_it_is(site: Path, script: Script) -> None:
    walk_through(site)
    own = (*ARGUMENTS, "datasets=walk", "train_iteration=1")
    status, out, err = script("train_subject_script", *own, "--dry-run")
    assert status == 0, err
    assert "batches of 4" in out
    assert "512 x 512: " in out
    status, out, err = script("train_subject_script", *own)
    assert status == 0, err
    (log,) = (site / "output").glob("**/losses.jsonl")
    assert json.loads(log.read_text())["subject"] > 0


def test_metadata_that_names_missing_images_is_one_line_before_any_model(
    site: Path, script: Script, loads: list[Base]
) -> None:
    walk_through(site)
    (site / "datasets/images/portrait_01.png").unlink()
    status, _, err = script("train_subject_script", *ARGUMENTS, "datasets=walk")
    assert (status, len(err.splitlines()), loads) == (2, 1, [])
    assert "found 1 of them missing: " in err
    assert err.endswith(": portrait_01\n")


FAULTS = {
    "an image without caption": (
        lambda folder: (folder / "0.txt").unlink(),
        (),
        "expected a caption for each image (.txt or .caption), or class_tokens, found none for 1 image: 0.",
    ),
    "a caption without image": (
        lambda folder: (folder / "0.png").unlink(),
        (),
        "expected an image for each caption, found none for 0.txt",
    ),
    "an image that no bucket takes": (
        lambda folder: Image.new("RGB", (2000, 20)).save(folder / "0.png"),
        (),
        "0.png: expected an aspect ratio that a size takes",
    ),
    "a class word that no caption holds": (
        lambda folder: None,
        ("class_word=cat",),
        "class_word: expected a word",
    ),
    "a prior without trigger": (
        lambda folder: None,
        ("prior=base", "trigger="),
        "trigger: expected the word",
    ),
    "a trigger that captions ask for": (
        lambda folder: None,
        ("trigger=",),
        "expected a trigger word for [trigger]",
    ),
    "a rank that is another LoRA's": (
        lambda folder: None,
        ("init_lora=nowhere",),
        "init_lora: expected a LoRA file",
    ),
    "images of an unknown class": (
        lambda folder: None,
        ("prior=images",),
        "class_word: expected what the subject",
    ),
    "keys of other methods": (
        lambda folder: None,
        ("python_name=train_image", "prior_weight=2"),
        "python_name: expected one of train_subject, found 'train_image'",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_line_before_any_model(
    site: Path, script: Script, loads: list[Base], fault: str
) -> None:
    spoil, arguments, line = FAULTS[fault]
    spoil(dataset(site / "datasets", RATIOS[:2]))
    status, _, err = script("train_subject_script", *ARGUMENTS, "datasets=anna", *arguments)
    assert (status, len(err.splitlines()), loads) == (2, 1, []), err
    assert line in err


def test_keys_of_captions_under_a_method_that_learns_from_none_are_told(site: Path, script: Script) -> None:
    status, _, err = script("train_image_script", "--c=mini", "train_epochs=3", "timesteps=uniform")
    assert status == 2
    assert (
        "timesteps, train_epochs: expected as by default under train_image, which learns from no captions"
        in err
    )


def test_the_config_of_a_run_says_its_steps_and_epochs(site: Path, script: Script) -> None:
    dataset(site / "datasets", RATIOS[:1])
    own = (*ARGUMENTS, "datasets=anna", "train_epochs=2")
    assert script("train_subject_script", *own)[0] == 0
    (path,) = (site / "output").glob("**/config.yaml")
    config = read_config(path)
    assert (config.train_epochs, config.train_iteration) == (2, 2)
    status, out, _ = script("train_subject_script", *own)
    assert status == 0
    assert "trained before, left as it is" in out
