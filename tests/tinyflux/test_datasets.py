"""The pairs in train/datasets/: one attribute apart, people diverse, files what the command renders."""

import itertools
from pathlib import Path

import pytest
import torch

from tinyflux import seeds
from tinyflux.captions import present
from tinyflux.datasets import FOLDER, NEUTRAL, PEOPLE, REAL_PEOPLE, all_files, pair_people, write_datasets
from tinyflux.faces import to_pixels, to_uint8
from tinyflux.people import EDITS, STYLES, sample_people
from tinyflux.render import render
from utils.data.pairs import load_pairs
from utils.data.pixels import load_image
from utils.files import find_images

FILES = {path.as_posix(): person for path, person in all_files()}
NAMES = [*PEOPLE, *(f"{name}_single" for name in PEOPLE)]


def test_every_edit_and_style_has_three_pairs_and_a_single_one() -> None:
    assert set(PEOPLE) == {*EDITS, *STYLES}
    assert all(len(people) == 3 for people in PEOPLE.values())
    for name in NAMES:
        source = [path for path in FILES if path.startswith(f"{name}/source/")]
        assert len(source) == (1 if name.endswith("_single") else 3)
        assert all(path.replace("/source/", "/target/") in FILES for path in source)
    assert len(REAL_PEOPLE) == 8


@pytest.mark.parametrize("name", PEOPLE)
def test_source_and_target_differ_in_the_one_attribute(name: str) -> None:
    source, target = pair_people(name)
    assert [other for other in source if not torch.equal(source[other], target[other])] == [name]
    assert not present(source, name).any()
    assert torch.equal(target[name], torch.ones(3))
    assert not any(present(source, other).any() for other in NEUTRAL)


@pytest.mark.parametrize("name", PEOPLE)
def test_nothing_but_the_edit_is_common_to_a_datasets_people(name: str) -> None:
    people, _ = pair_people(name)
    assert people["skin"].max() - people["skin"].min() > 0.3
    assert len(people["hair_style"].unique()) == 3
    assert len(people["male"].unique()) == (1 if name == "beard" else 2)


def test_a_single_pair_is_the_first_of_its_dataset() -> None:
    for name in PEOPLE:
        single, three = pair_people(f"{name}_single")[1], pair_people(name)[1]
        assert all(torch.equal(single[attribute], three[attribute][:1]) for attribute in three)


def test_nobody_is_in_two_ranges_of_seeds() -> None:
    ranges = [seeds.TRAIN, seeds.HELD_OUT, seeds.DATASETS, seeds.REAL, seeds.DISJOINT, seeds.SUBJECTS]
    for one, other in itertools.combinations(ranges, 2):
        assert one.stop <= other.start or other.stop <= one.start
    used = {path: int(Path(path).stem) for path in FILES}
    assert all(seed in (seeds.REAL if "real" in path else seeds.DATASETS) for path, seed in used.items())
    assert not any(present(sample_people(list(seeds.REAL[i : i + 1])), "sketch") for i in REAL_PEOPLE)


def test_the_command_writes_pairs_that_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = [(path, person) for path, person in all_files() if path.parts[0] == "smile"]
    monkeypatch.setattr("tinyflux.datasets.all_files", lambda: iter(few))
    monkeypatch.setattr("tinyflux.datasets.all_captioned", lambda: iter(()))
    assert write_datasets(tmp_path) == 6
    pairs = load_pairs(tmp_path / "smile" / "source", tmp_path / "smile" / "target", resolution=128)
    expected = to_pixels(to_uint8(render(pair_people("smile")[1])))
    assert [pair.stem for pair in pairs] == [str(seeds.DATASETS[i]) for i in sorted(PEOPLE["smile"])]
    by_stem = {pair.stem: pair.target for pair in pairs}
    for i, image in zip(PEOPLE["smile"], expected, strict=True):
        assert (by_stem[str(seeds.DATASETS[i])] - image).abs().mean() < 1e-3


def test_the_committed_files_are_what_the_command_renders() -> None:
    there = {path.relative_to(FOLDER).as_posix() for path in FOLDER.glob("*/*/*.png")}
    assert there == set(FILES)
    for path, person in FILES.items():
        difference = load_image(FOLDER / path, resolution=128) - to_pixels(to_uint8(render(person)))[0]
        # another processor may round a pixel, or a block of pixel art, the other way
        assert difference.abs().mean() < 5e-4, path


def test_every_committed_dataset_is_found_as_pairs() -> None:
    for name in NAMES:
        assert len(load_pairs(FOLDER / name / "source", FOLDER / name / "target", resolution=128)) in (1, 3)
    assert len(find_images(FOLDER / "real_person" / "source")) == 8
