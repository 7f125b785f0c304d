"""Captions: they name what is there, rightly, in every wording there is, and nothing that is not."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tinyflux.captions import (
    EDIT_ADJECTIVES,
    EDIT_PHRASES,
    EYES,
    HAIR,
    HUES,
    MEN,
    NAMED_ABOVE,
    OLD,
    SKIN,
    STYLE_MEDIA,
    WOMEN,
    YOUNG,
    caption_words,
    captions,
    word_of,
)
from tinyflux.people import EDITS_CONTINUOUS, HAIR_STYLES, STYLES, sample_people, take
from tinyflux.seeds import HELD_OUT, TRAIN

PEOPLE = sample_people(HELD_OUT[:4000])
WORDINGS = {
    **{name: (*EDIT_PHRASES[name], *EDIT_ADJECTIVES.get(name, ())) for name in EDIT_PHRASES},
    "age": OLD,
    **STYLE_MEDIA,
}


@pytest.fixture(scope="module")
def described() -> list[tuple[dict[str, float], str]]:
    """People with their captions."""
    columns = {name: value.tolist() for name, value in PEOPLE.items()}
    return [
        ({name: columns[name][i] for name in columns}, text)
        for i, text in enumerate(captions(PEOPLE, seed=11))
    ]


def near(value: float, count: int) -> object:
    """A share, to within four standard errors."""
    return pytest.approx(value, abs=4 * (value * (1 - value) / count) ** 0.5)


def has(text: str, phrases: tuple[str, ...]) -> bool:
    return re.search(rf"\b(?:{'|'.join(phrases)})\b", text) is not None


@pytest.mark.parametrize("name", WORDINGS)
def test_an_edit_is_named_nine_times_in_ten_and_only_where_it_is(name: str, described) -> None:
    threshold = NAMED_ABOVE.get(name, 0.5)
    named = {True: [], False: []}
    for person, text in described:
        named[person[name] > threshold].append(has(text, WORDINGS[name]))
    assert not any(named[False])
    assert np.mean(named[True]) == near(0.9, len(named[True]))
    assert set(NAMED_ABOVE) == set(EDITS_CONTINUOUS)
    assert set(WORDINGS) >= {*STYLES}


def test_words_are_equally_wide() -> None:
    values = [0.0, 0.24, 0.26, 0.5, 0.74, 0.76, 1.0]
    assert [word_of(value, ("a", "b", "c", "d")) for value in values] == ["a", "a", "b", "c", "c", "d", "d"]


def test_every_wording_is_used(described) -> None:
    texts = " / ".join(text for _, text in described)
    for wordings in (*WORDINGS.values(), MEN, WOMEN, OLD, YOUNG):
        assert all(has(texts, (wording,)) for wording in wordings)


def test_sex_and_youth_are_named_rightly(described) -> None:
    for person, text in described:
        assert not has(text, WOMEN if person["male"] else MEN), text
        assert person["age"] < 0.3 or not has(text, YOUNG), text
    unsaid = [not has(text, (*MEN, *WOMEN)) for _, text in described]
    assert np.mean(unsaid) == near(0.15, len(unsaid))


def test_details_are_named_rightly(described) -> None:
    """The word before its noun is one for the part of the range that the value lies in."""
    details = {
        "skin": (r"(\w+) skin", SKIN),
        "hair_tone": (r"(\w+) hair", HAIR),
        "eye_colour": (r"(\w+) eyes", EYES),
        "clothes": (r"(\w+) shirt", HUES),
        "background": (r"(\w+) background", HUES),
    }
    for name, (pattern, scale) in details.items():
        words = {word for synonyms in scale for word in synonyms}
        found = [
            (person[name], word)
            for person, text in described
            for word in re.findall(pattern, text)
            if word in words
        ]
        assert len(found) > 1000
        assert {word for _, word in found} == words
        assert all(word in word_of(value, scale) for value, word in found)
    for person, text in described:
        for style in re.findall(rf"({'|'.join(HAIR_STYLES)}) (?:\w+ )?hair", text):
            assert style == HAIR_STYLES[int(person["hair_style"])], text


def test_captions_are_lower_case_english(described) -> None:
    for _, text in described:
        for article, word in re.findall(r"\b(an?) (\w+)", text):
            assert (article == "an") == (word[0] in "aeio"), text
        assert text == text.strip().lower()
        assert "  " not in text
        assert not re.search(r"\band(?: and|$)|,$", text)


def test_captions_depend_on_their_seed_alone() -> None:
    few = take(PEOPLE, slice(0, 50))
    assert captions(few, 1) == captions(few, 1)
    assert captions(few, 1) != captions(few, 2)
    assert len(captions(few, 1)) == 50


def test_every_word_of_a_caption_is_known_and_no_other() -> None:
    words = caption_words()
    assert words == sorted(set(words))
    texts = captions(sample_people(TRAIN[500_000:503_000]), 99)
    assert {word for text in texts for word in re.findall(r"[a-z]+", text)} == set(words)
