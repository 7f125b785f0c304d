"""The captioned images in train/datasets/: one person each, true captions, files as they are rendered."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tinyflux.captions import HUES, present, word_of
from tinyflux.datasets import FOLDER, write_datasets
from tinyflux.faces import to_pixels
from tinyflux.people import take
from tinyflux.subjects import (
    _VARIES,
    PEOPLE,
    PICTURES,
    STYLE,
    all_captioned,
    blueprint,
    caption_of,
    people_of,
)
from utils.data.captioned import read_captioned
from utils.data.pixels import load_image

NAMES = (*PEOPLE, STYLE)
FILES = {path.as_posix(): (pixels, caption) for path, pixels, caption in all_captioned()}


@pytest.mark.parametrize("name", PEOPLE)
def test_who_it_is_is_the_same_in_every_picture_and_the_rest_varies(name: str) -> None:
    people = people_of(name)
    varying = {key for key, values in people.items() if len(values.unique()) > 1}
    assert {"turn", "clothes", "background"} <= varying <= set(_VARIES)
    for other in (people_of(other) for other in PEOPLE if other != name):
        who = {*people} - {*_VARIES}
        assert sum(abs(float(people[key][0] - other[key][0])) > 0.05 for key in who) >= 4


@pytest.mark.parametrize("name", NAMES)
def test_a_caption_says_what_is_to_be_seen_and_nothing_of_who(name: str) -> None:
    people = people_of(name)
    for number in range(PICTURES):
        person = take(people, [number])
        caption = caption_of(name, person)
        assert "[trigger]" in caption
        if name == STYLE:
            assert ("woman" in caption) == (person["male"].item() <= 0.5)
        else:
            assert word_of(person["clothes"].item(), HUES)[0] in caption
            assert not {"man", "woman", "beard", "old", "young"} & {*caption.replace(",", "").split()}
        assert ("smiling" in caption) == bool(present(person, "smile"))


def test_the_style_is_chalk_on_blue() -> None:
    drawn = blueprint(torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert drawn.shape == (2, 3, 32, 32)
    assert ((drawn >= 0) & (drawn <= 1)).all()
    assert (drawn[:, 2] >= drawn[:, 0]).all()
    white = blueprint(torch.ones(1, 3, 32, 32))
    assert (white.amax(dim=(2, 3)) - white.amin(dim=(2, 3))).max() < 1e-6  # nothing to draw: paper alone


def test_the_committed_files_are_what_the_command_renders() -> None:
    there = {path.relative_to(FOLDER).as_posix() for name in NAMES for path in FOLDER.glob(f"{name}/*.png")}
    assert there == set(FILES)
    for path, (pixels, caption) in FILES.items():
        difference = load_image(FOLDER / path, resolution=128) - to_pixels(pixels[None])[0]
        assert difference.abs().mean() < 5e-4, path
        assert (FOLDER / path).with_suffix(".txt").read_text(encoding="utf-8") == f"{caption}\n"
    for name in NAMES:
        (dataset,) = read_captioned(FOLDER / name, {"resolution": [128]}, "ohwx").datasets
        assert len(dataset.images) == PICTURES


def test_the_command_writes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = [(path, *FILES[path.as_posix()]) for path in map(Path, FILES) if path.parts[0] == "anna"]
    monkeypatch.setattr("tinyflux.datasets.all_files", lambda: iter(()))
    monkeypatch.setattr("tinyflux.datasets.all_captioned", lambda: iter(few))
    assert write_datasets(tmp_path) == PICTURES
    (dataset,) = read_captioned(tmp_path / "anna", {"resolution": [128]}, "ohwx").datasets
    assert [image.caption for image in dataset.images] == [caption for _, _, caption in few]
