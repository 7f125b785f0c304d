"""Who is in a picture, by the probe, on renders whose truth is known."""

from __future__ import annotations

import pytest
import torch

from tinyflux.subjects import PEOPLE, STYLE, WHO, all_captioned, caption_of, people_of, pictures_of
from tinyflux.who import describe, face_subject_probe, words_of
from utils.measure.subjects import SubjectProbe


@pytest.fixture(scope="module")
def probe() -> SubjectProbe:
    return face_subject_probe()


def test_a_subjects_pictures_are_of_one_person_and_unlike_each_other() -> None:
    for name in PEOPLE:
        people = people_of(name)
        same = [key for key, value in people.items() if len(value.unique()) == 1]
        assert set(WHO) - {"long_hair"} <= set(same)
        assert "hair_style" in same
        assert not {"turn", "clothes", "background", "smile"} & set(same)


def test_the_probe_tells_a_subject_from_the_others(probe: SubjectProbe) -> None:
    pictures = {name: pictures_of(name, people_of(name)) * 2 - 1 for name in PEOPLE}
    for name, own in pictures.items():
        assert probe.error(own, own).mean() < 0.03
        for other in pictures.keys() - {name}:
            assert probe.error(pictures[other], own).mean() > 0.15
    first, second = pictures["anna"], pictures["ben"]
    assert torch.equal(probe.change(first, first), torch.zeros(len(first)))
    assert probe.change(first, second).min() > 0.1


def test_what_a_prompt_asks_for_is_looked_for(probe: SubjectProbe) -> None:
    found = words_of("a photo of ohwx person, smiling, in a red shirt, on a purple background")
    assert {(word.attribute, word.wording) for word in found} == {
        ("smile", "smiling"),
        ("clothes", "red"),
        ("background", "purple"),
    }
    assert words_of("a photo of ohwx person") == []
    people = people_of("anna")
    images = pictures_of("anna", people) * 2 - 1
    for i, (_, _, caption) in enumerate(list(all_captioned())[:5]):
        assert probe.followed(images[i : i + 1], caption).item() == 1
    assert probe.followed(images, "a photo of ohwx person, with glasses").sum() == 0
    assert probe.followed(images, "a photo of ohwx person") is None


def test_somebody_is_described_in_known_words() -> None:
    person = {"male": 1.0, "age": 0.9, "chubby": 0.1, "long_hair": 0.0, "hair_tone": 0.1, "skin": 0.9}
    person |= {"eye_colour": 0.9, "beard": 1.0, "elf_ears": 0.0, "big_eyes": 0.0}
    assert describe(person) == (
        "old man, with dark skin, with short black hair, with blue eyes, with a beard"
    )


def test_captions_say_what_varies_and_name_the_subject() -> None:
    captions = {path.as_posix(): caption for path, _, caption in all_captioned()}
    assert len(captions) == 5 * (len(PEOPLE) + 1)
    assert all("[trigger]" in caption for caption in captions.values())
    assert captions["blueprint/1.png"].startswith("a [trigger] drawing of a ")
    assert caption_of(STYLE, people_of(STYLE, 1)) == captions["blueprint/1.png"]
