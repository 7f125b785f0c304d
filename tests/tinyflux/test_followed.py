"""Whether prompts are followed, counted on a probe that reads what it is told."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from tinyflux import followed
from tinyflux.captions import EDIT_ADJECTIVES, EDIT_PHRASES, HUES, SKIN, caption_words
from tinyflux.followed import (
    PROMPTS,
    UNNAMED,
    edits_followed,
    every_word,
    generate,
    is_present,
    words_followed,
)
from tinyflux.people import EDITS, STYLES
from tinyflux.probe import READINGS
from utils.config.schema import Config
from utils.models.base import load_base_model


@pytest.fixture
def config() -> Config:
    return Config(resolution=128, num_inference_steps=2, max_sequence_length=32, guidance_scale=3.5)


@pytest.fixture
def wishes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], int]]:
    """Prompts and first seeds asked for; each image's mean is the number of words in its prompt."""
    asked: list[tuple[list[str], int]] = []

    def fake(base, prompts: list[str], first_seed: int, config: Config) -> Tensor:
        asked.append((prompts, first_seed))
        lengths = torch.tensor([float(len(prompt.split())) for prompt in prompts])
        return (lengths / 20)[:, None, None, None].expand(-1, 3, 128, 128)

    monkeypatch.setattr(followed, "generate", fake)
    return asked


def test_every_wording_of_captions_stands_in_a_prompt_of_known_words() -> None:
    words, known = list(every_word()), set(caption_words())
    assert all(set(word.prompt.split()) <= known for word in words)
    assert len({word.prompt for word in words}) == len(words)
    wordings = {word.wording for word in words}
    for table in (EDIT_PHRASES, EDIT_ADJECTIVES):
        assert wordings >= {wording for several in table.values() for wording in several}
    assert sum(word.attribute == "background" for word in words) == sum(map(len, HUES))
    assert sum(word.attribute == "skin" for word in words) == sum(map(len, SKIN))


def test_a_word_is_followed_within_a_third_of_its_middle() -> None:
    teal = next(word for word in every_word() if (word.attribute, word.wording) == ("background", "teal"))
    assert teal.prompt == "a photo of a person on a teal background"
    middle = 4.5 / 7
    readings = torch.tensor([middle, middle - 0.33, middle + 0.33, middle - 0.34, middle + 0.34])
    assert teal.followed({"background": readings}).tolist() == [True, True, True, False, False]
    woman = next(word for word in every_word() if word.wording == "woman")
    assert woman.followed({"male": torch.tensor([0.0, 0.3, 0.4, 1.0])}).tolist() == [True, True, False, False]


def test_a_row_a_word_with_seeds_of_its_own(wishes, config: Config) -> None:
    class Told:
        def read(self, images: Tensor) -> dict[str, Tensor]:
            return dict.fromkeys(READINGS, torch.tensor([1.0, 1.0, 0.0]))

    rows = {row[1]: row for row in words_followed(None, Told(), 3, config)}
    assert len(rows) == len(list(every_word())) == len(wishes)
    assert rows['"a photo of a man"'] == ["male", '"a photo of a man"', "1", "0.67", "67%"]
    assert rows['"a photo of a woman"'][2:] == ["0", "0.67", "33%"]
    assert rows['"a photo of an old person"'][2:] == ["0.62 to 1.00", "0.67", "67%"]
    firsts = sorted(first for _, first in wishes)
    assert min(b - a for a, b in pairwise(firsts)) >= 3


def test_presence_is_counted_by_the_captions_thresholds() -> None:
    values = torch.tensor([0.2, 0.47, 0.52, 0.6, 0.7])
    expected = {"glasses": 3, "age": 1, "smile": 2, "big_eyes": 4, "chubby": 4, "sketch": 3}
    assert {name: round(5 * is_present({name: values}, name)) for name in expected} == expected


def test_each_edit_has_a_prompt_that_names_it_alone() -> None:
    assert set(PROMPTS) == {*EDITS, *STYLES}
    words = set(caption_words())
    for name, prompt in PROMPTS.items():
        assert set(prompt.split()) <= words
        named = {edit for edit, phrases in EDIT_PHRASES.items() if any(p in prompt for p in phrases)}
        assert named == ({name} & set(EDIT_PHRASES))
    assert not any(p in UNNAMED for phrases in EDIT_PHRASES.values() for p in phrases)
    assert "old" in PROMPTS["age"].split()
    assert "sketch" in PROMPTS["sketch"].split()
    assert "pixel art" in PROMPTS["pixel_art"]


def test_agreement_is_of_what_is_named(wishes, config: Config) -> None:
    """A probe that finds everything in prompts of more than five words, and nothing in the bare prompt."""

    class Long:
        def read(self, images: Tensor) -> dict[str, Tensor]:
            return dict.fromkeys(READINGS, (images.mean(dim=(1, 2, 3)) > 5.5 / 20).float())

    rows = {row[0]: row for row in edits_followed(None, Long(), 3, config)}
    assert set(rows) == {*EDITS, *STYLES}
    assert wishes[0] == ([UNNAMED] * 12, 0)
    assert sorted(prompts[0] for prompts, _ in wishes[1:]) == sorted(PROMPTS.values())
    seeds = [range(first, first + len(prompts)) for prompts, first in wishes]
    assert len({seed for own in seeds for seed in own}) == sum(len(own) for own in seeds)
    for name, (_, prompt, named, bare, world) in rows.items():
        assert prompt == f'"{PROMPTS[name]}"'
        assert named == ("100%" if len(PROMPTS[name].split()) > 5 else "0%")
        assert bare == "0%"
        assert world.endswith("%")
    assert abs(int(rows["smile"][4].rstrip("%")) - 45) <= 2
    assert abs(int(rows["beard"][4].rstrip("%")) - 22) <= 2


def test_an_image_a_prompt_and_seeds_count_up(mini_recipe, config: Config) -> None:
    base = load_base_model(str(mini_recipe[2]), torch.device("cpu"), torch.float32)
    two = generate(base, ["a man", "a woman"], 7, config)
    assert two.shape == (2, 3, 128, 128)
    torch.testing.assert_close(two[1:], generate(base, ["a woman"], 8, config), atol=1e-4, rtol=0)
    assert not torch.allclose(two[0], two[1], atol=1e-2)
