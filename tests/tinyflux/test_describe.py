"""Captions of drawn portraits name the edits that are there, and no others."""

from __future__ import annotations

import re

import pytest

from tinyflux.captions import EDIT_ADJECTIVES, EDIT_PHRASES, MEN, OLD, STYLE_MEDIA, WOMEN, present
from tinyflux.describe import describe
from tinyflux.people import sample_people
from tinyflux.render import render
from tinyflux.seeds import HELD_OUT
from utils.data.pixels import to_images

PEOPLE = sample_people(HELD_OUT[:40])
WORDINGS = {
    **{name: (*EDIT_PHRASES[name], *EDIT_ADJECTIVES.get(name, ())) for name in EDIT_PHRASES},
    **STYLE_MEDIA,
    "age": OLD,
}


@pytest.fixture(scope="module")
def described() -> list[str]:
    return [describe(image) for image in to_images(render(PEOPLE))]


def names(text: str, wordings: tuple[str, ...]) -> bool:
    return any(re.search(rf"\b{re.escape(wording)}\b", text) for wording in wordings)


@pytest.mark.parametrize("edit", WORDINGS)
def test_an_edit_is_named_where_it_is(described: list[str], edit: str) -> None:
    there = present(PEOPLE, edit).tolist()
    right = [names(text, WORDINGS[edit]) == is_there for text, is_there in zip(described, there, strict=True)]
    assert sum(right) >= 36, [  # a value near the bound may be read on its other side
        text for text, each in zip(described, right, strict=True) if not each
    ]


def test_men_are_called_men(described: list[str]) -> None:
    for text, male in zip(described, PEOPLE["male"].tolist(), strict=True):
        assert not names(text, WOMEN if male > 0.5 else MEN), text


def test_the_same_image_has_the_same_caption() -> None:
    (image,) = to_images(render(sample_people(HELD_OUT[:1])))
    assert describe(image) == describe(image.resize((128, 128)))
