"""The table of learned subjects, on a miniature FLUX and a probe that sees brightness."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.conftest import TRAIN, Script
from tests.training.mini_subjects import dataset
from utils.measure.subjects import SubjectProbe

OWN = ("python_name=train_subject", "trigger=ohwx", "class_word=person", "timesteps=uniform", "lr=0.05")
PROMPTS = "a photo of [trigger] [class]\n# none\na [trigger] [class] in red --w 48 --d 3 --n ugly\n"


def level(images: Tensor) -> Tensor:
    return images.mean(dim=(1, 2, 3)) / 2 + 0.5


PROBE = SubjectProbe(
    error=lambda images, references: (level(images) - level(references).mean()).abs(),
    change=lambda images, before: (level(images) - level(before)).abs(),
    followed=lambda images, prompt: torch.ones(len(images)) if "red" in prompt else None,
    described=lambda references: "a cat",
    features=lambda images: images.mean(dim=(2, 3)),
    name="who error",
)


@pytest.fixture
def table(site: Path, script: Script, monkeypatch: pytest.MonkeyPatch) -> Script:
    """The script on datasets/anna, of which a LoRA is trained with and one without a prior."""
    dataset(site / "datasets", [(32, 32)] * 3)
    (site / "own.txt").write_text(PROMPTS)
    for prior in ("none", "base"):
        keys = (f"prior={prior}", f"config_name={prior}")
        assert script("train_subject_script", "--c=mini", "datasets=anna", *OWN, *keys)[0] == 0
    monkeypatch.syspath_prepend(str(TRAIN / "eval_scripts"))
    monkeypatch.setattr("tinyflux.who.face_subject_probe", lambda: PROBE)
    own = ("--prompts=own.txt", "--images=2", "judge=probe")
    return lambda *arguments: script("subject", "--c=mini", "datasets=anna", *OWN, *own, *arguments)


def test_every_variant_is_a_row_beside_the_description_in_words(table: Script) -> None:
    variants = [f"prior={prior} config_name={prior}" for prior in ("none", "base")]
    status, out, err = table(*(part for keys in variants for part in ("--with", keys)))
    assert status == 0, err
    with Path("output/eval/subjects/subject.csv").open() as file:
        records = list(csv.DictReader(line for line in file if not line.startswith("#")))
    found = {(row["run"], row["measure"]): row for row in records if row["mean"]}
    names = ["anna in words", *(f"anna {keys}" for keys in variants)]
    for name in names:
        assert found[name, "who error"]["count"] == "4.0"  # two prompts, two images each
        assert found[name, "prompt followed"]["count"] == "2.0"
    assert (names[0], "drift of the class") not in found
    drifts = [float(found[name, "drift of the class"]["mean"]) for name in names[1:]]
    assert min(drifts) > 0
    assert drifts[0] != drifts[1]
    assert all((name, "diversity") in found for name in names[1:])
    assert all(row["note"] for row in records if not row["mean"])  # a network without weights says so
    assert Path("output/eval/subjects/subject.md").read_text().splitlines()[0] in out


def test_a_lora_that_is_missing_is_told_before_anything_is_loaded(table: Script, loads: list) -> None:
    loads.clear()
    status, _, err = table("--with", "config_name=other")
    assert (status, loads) == (2, [])
    assert "train_subject_script.py" in err
    status, out, _ = table("--dry-run")
    assert (status, loads) == (0, [])
    assert "output/eval/subjects" in out
