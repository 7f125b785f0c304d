"""Reading prompt files, and the shipped ones: in words that the face world's captions use."""

import re
from pathlib import Path

import pytest

from tinyflux.captions import captions
from tinyflux.people import sample_people
from tinyflux.seeds import TRAIN
from utils.data.prompts import KNOWN_WORDS, SliderPrompt, load_prompts, load_slider_prompts, unknown_words
from utils.errors import UserError

PROMPTS = sorted((Path(__file__).resolve().parents[2] / "train" / "prompts").glob("*.yaml"))


def words(prompt: str) -> set[str]:
    return set(prompt.replace(",", " ").split())


@pytest.mark.parametrize("path", PROMPTS, ids=lambda path: path.stem)
def test_prompts_are_distinct_and_in_known_words(path: Path) -> None:
    prompts = [" ".join(re.sub(r"\[\w+\]", "", prompt).split()) for prompt in load_prompts(path)]
    assert len(set(prompts)) == len(prompts) >= 10
    known = set().union(*map(words, captions(sample_people(TRAIN[:1000]), seed=0)))
    assert set().union(*map(words, prompts)) <= known


def test_the_default_prompts_file_is_there() -> None:
    assert "prompts-person" in {path.stem for path in PROMPTS}


def test_prompts(tmp_path: Path) -> None:
    path = tmp_path / "prompts.yaml"
    path.write_text("- a man\n- a woman, smiling\n")
    assert load_prompts(path) == ["a man", "a woman, smiling"]
    for content in ("", "a: b\n", "[]", "- [a]\n"):
        path.write_text(content)
        with pytest.raises(UserError, match=r"prompts\.yaml: expected a YAML list of prompts"):
            load_prompts(path)
    with pytest.raises(UserError, match=r"none\.yaml: expected a readable file"):
        load_prompts(tmp_path / "none.yaml")


ENTRY = """
- target: person
  positive: old person
  unconditional: young person
  neutral: person
  action: enhance
  guidance_scale: 2
  resolution: 128
  batch_size: 1
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "age.yaml"


def test_slider_prompts(path: Path) -> None:
    path.write_text(ENTRY + ENTRY.replace("enhance", "erase"))
    first, second = load_slider_prompts(path)
    assert first == SliderPrompt("person", "old person", "young person", "person", "enhance", 2, 128, 1)
    assert (first.eta, second.eta) == (2, -2)


def test_attributes_begin_all_four_prompts(path: Path) -> None:
    path.write_text(ENTRY + "  attributes: [female, male]\n")
    female, male = load_slider_prompts(path)
    assert female.texts == ("female person", "female old person", "female young person", "female person")
    assert male.texts == ("male person", "male old person", "male young person", "male person")
    path.write_text(ENTRY + "  attributes: []\n")
    assert len(load_slider_prompts(path)) == 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  neutral: person\n", "", "found none of neutral"),
        ("neutral:", "nuetral:", "unknown field 'nuetral' (did you mean 'neutral'?)"),
        ("enhance", "enlarge", "action: expected one of enhance, erase, found 'enlarge'"),
        ("guidance_scale: 2", "guidance_scale: much", "guidance_scale: expected a number, found 'much'"),
        ("guidance_scale: 2", "guidance_scale: -2", "guidance_scale: expected more than 0"),
        ("resolution: 128", "resolution: -16", 'resolution: expected 1 to 8192, or "base", found -16'),
        ("batch_size: 1", "batch_size: 1.0", "batch_size: expected a whole number, found 1.0"),
        ("batch_size: 1", "batch_size: true", "batch_size: expected a whole number"),
        ("positive: old person", "positive: [old]", "positive: expected a text"),
        ("batch_size: 1", "batch_size: 1\n  attributes: old", "attributes: expected a list of texts"),
    ],
)
def test_faults_in_slider_prompts_are_named(path: Path, old: str, new: str, message: str) -> None:
    path.write_text(ENTRY + ENTRY.replace(old, new))
    with pytest.raises(UserError) as caught:
        load_slider_prompts(path)
    assert str(caught.value).startswith(f"{path}: entry 2: ")
    assert message in str(caught.value)


@pytest.mark.parametrize("content", ["", "a: b", "[]", "- word"])
def test_a_file_without_entries_is_refused(path: Path, content: str) -> None:
    path.write_text(content)
    with pytest.raises(UserError, match=r"age\.yaml: "):
        load_slider_prompts(path)


def test_words_that_a_base_was_never_told_are_found_in_any_case(tmp_path: Path) -> None:
    prompts = ["A Photo of a zebra, smiling", "", "zebra in spectacles; déjà-vu"]
    assert unknown_words(str(tmp_path), prompts) == []  # a base that does not say what it knows
    (tmp_path / KNOWN_WORDS).write_text("a\nphoto\nof\nin\nsmiling\n")
    assert unknown_words(str(tmp_path), prompts) == ["zebra", "spectacles", "déjà", "vu"]
    assert unknown_words("some/hub-id", prompts) == []
