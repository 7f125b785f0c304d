"""Lists of prompts as trainers write them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from utils.data.sample_prompts import SamplePrompt, load_sample_prompts
from utils.errors import UserError


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_line_a_prompt_with_sd_scripts_options(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.txt",
        "# comment\n\na cat, well-lit --w 640 --h 480 --d 7 --s 20\n"
        "a dog --n ugly, blurry --l 3.5\nplain -- text\n",
    )
    assert load_sample_prompts(path) == [
        SamplePrompt("a cat, well-lit", 640, 480, 7, 20),
        SamplePrompt("a dog", idle=("n", "l")),
        SamplePrompt("plain -- text"),
    ]


def test_yaml_and_json_say_the_same(tmp_path: Path) -> None:
    yaml = write(tmp_path / "a.yaml", "- a cat\n- a dog\n")
    own = {"width": 64, "sample_steps": 4, "negative_prompt": "x"}
    entries = [{"prompt": "a cat"}, {"prompt": "a dog", **own}]
    found = load_sample_prompts(write(tmp_path / "a.json", json.dumps(entries)))
    assert [each.text for each in found] == [each.text for each in load_sample_prompts(yaml)]
    assert found[1] == SamplePrompt("a dog", width=64, steps=4, idle=("negative_prompt",))


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("a.csv", "a cat", r"in \.yaml, \.yml, \.txt, \.json, found '\.csv'"),
        ("a.txt", "# nothing\n", "expected at least one prompt, found none"),
        ("a.txt", "a cat --w wide\n", "line 1: w: expected a whole number, found 'wide'"),
        ("a.txt", "a cat\na dog --widht 3\n", "line 2: unknown option 'widht'"),
        ("a.json", "{", "expected JSON"),
        ("a.json", '{"prompt": "a cat"}', "expected a list of objects"),
        ("a.json", '[{"text": "a cat"}]', "entry 1: expected a prompt, found None"),
        ("a.json", '[{"prompt": "a cat", "widht": 4}]', "unknown option 'widht' .did you mean 'width'"),
    ],
)
def test_what_is_wrong_is_one_line_that_says_where(tmp_path: Path, name: str, text: str, wanted: str) -> None:
    with pytest.raises(UserError, match=wanted):
        load_sample_prompts(write(tmp_path / name, text))


def test_no_file_and_no_text(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected a list of prompts"):
        load_sample_prompts(tmp_path / "a.txt")
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="expected a list of prompts"):
        load_sample_prompts(tmp_path / "b.txt")
