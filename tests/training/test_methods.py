"""The registry of methods, and the table that the README has of it."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from utils.training import methods

README = Path(__file__).resolve().parents[2] / "README.md"


def test_the_readme_has_the_table_that_the_module_prints(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(methods.__file__, run_name="__main__")
    table = capsys.readouterr().out
    assert len(table.splitlines()) == 2 + len(methods.METHODS)
    assert table in README.read_text(encoding="utf-8")


def test_the_table_says_what_a_method_knows() -> None:
    knows = {
        line.split("`")[1]: line.split("|")[-2].strip() for line in methods.methods_table().splitlines()[2:]
    }
    assert knows == {
        "train_image": "eta, beta",
        "train_image_wocontent": "eta, beta",
        "train_image_wocfg": "beta",
        "train_image_fm": "eta",
        "train_image_sliders": "",
        "train_image_anchored": "eta",
        "train_image_bipolar": "eta",
        "train_subject": "",
        "train_image_real": "",
        "slider_text": "",
    }
