"""Trainings and images as they lie on disk, none of them made, and a library in which code has changed."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from utils import code_hash
from utils.config.runs import Run, expand_runs
from utils.config.schema import Config
from utils.generation.made_with import claim_images
from utils.training.claims import claimed, note_saved

OBJECTIVES = "utils/flow/objectives.py"


@contextmanager
def library(folder: Path, file: str = OBJECTIVES, old: str = "", new: str = "") -> Iterator[None]:
    """Inside, the library is a copy in which one text stands for another."""
    here, there = code_hash._FOLDER, folder / "library"
    if not there.exists():
        shutil.copytree(here / "utils", there / "utils", ignore=shutil.ignore_patterns("__pycache__"))
    text = (here / file).read_text(encoding="utf-8")
    assert old in text
    (there / file).write_text(text.replace(old, new) if old else text + new, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(code_hash, "_FOLDER", there)
        forget()
        yield
    (there / file).write_text(text, encoding="utf-8")
    forget()


def forget() -> None:
    for cached in (code_hash._reached, code_hash._module):
        cached.cache_clear()


def make_run(folder: Path, **changes: object) -> Run:
    """A run in a folder, of few settings."""
    own = {"datasets": ["age"], "output_folder": f"{folder}/out", "output_folder_gen": f"{folder}/gen"}
    return expand_runs(replace(Config(**own), **changes))[0]


def write_lora(path: Path, value: float = 1.0) -> Path:
    """A file that can be read as a LoRA's, without torch."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"transformer.x.lora_A.weight": np.full((2, 3), value, np.float32)}, path)
    return path


def train(run: Run, inputs: str = "a") -> bool:
    """What a training leaves behind, if there is anything to do; whether there was."""
    with claimed(run, inputs) as todo:
        if todo:
            write_lora(run.weights_path())
            with zipfile.ZipFile(run.reference_path(), "w") as archive:
                archive.writestr("data.pkl", "weights")
            note_saved(run, run.config.train_iteration)
            run.record_path.write_text("{}")
        return todo


def retrain(run: Run) -> None:
    """Another LoRA in place of the one before, saved as one is."""
    write_lora(run.weights_path(), 2.0)
    note_saved(run, run.config.train_iteration)


def draw(run: Run, scale: float = 0.0) -> Path:
    """An image of a run, as generation writes it, nothing drawn."""
    claim_images(run)
    path = run.image_path(1, run.config.skips[0], scale)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"an image")
    return path
