"""The prompt files: lists of prompts in words that the face world's captions use."""

from pathlib import Path

import pytest

from tinyflux.people import captions, sample_people
from tinyflux.seeds import TRAIN
from utils.config import load_prompts

PROMPTS = sorted((Path(__file__).resolve().parent.parent / "train" / "prompts").glob("*.yaml"))


def words(prompt: str) -> set[str]:
    return set(prompt.replace(",", " ").split())


@pytest.mark.parametrize("path", PROMPTS, ids=lambda path: path.stem)
def test_prompts_are_distinct_and_in_known_words(path: Path) -> None:
    prompts = load_prompts(path)
    assert len(set(prompts)) == len(prompts) >= 10
    known = set().union(*map(words, captions(sample_people(TRAIN[:1000]), seed=0)))
    assert set().union(*map(words, prompts)) <= known


def test_the_default_prompts_file_is_there() -> None:
    assert "prompts-person" in {path.stem for path in PROMPTS}
