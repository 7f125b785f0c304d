"""Every file in train/ and slider_text/ is a command: it works from its folder and from the repository."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import TRAIN, Script
from utils.config.load import read_config

REPOSITORY = TRAIN.parent
FOLDERS = ("train", "train/eval_scripts", "slider_text")
COMMANDS = sorted(
    path.relative_to(REPOSITORY) for folder in FOLDERS for path in (REPOSITORY / folder).glob("*.py")
)


def call(command: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [sys.executable, command, *arguments], cwd=cwd, env=environment, capture_output=True, text=True
    )


def test_every_file_says_what_it_is_for() -> None:
    with ThreadPoolExecutor(2) as both:
        outcomes = both.map(lambda path: call(str(path), "--help", cwd=REPOSITORY), COMMANDS)
    for path, done in zip(COMMANDS, outcomes, strict=True):
        assert done.returncode == 0, f"{path}: {done.stderr}"
        assert "usage" in done.stdout, path


@pytest.mark.parametrize("method", ["train_image_fm", "train_subject", "train_image_real", "slider_text"])
def test_a_methods_own_file_trains_it(method: str) -> None:
    folder = "slider_text" if method == "slider_text" else "train"
    config = "train_image" if method == "train_image_fm" else method
    arguments = (f"{folder}/{method}.py", f"--c={config}", "--dry-run")
    from_repository = call(*arguments, cwd=REPOSITORY)
    assert from_repository.returncode == 0, from_repository.stderr
    assert f"_v{method}_" in from_repository.stdout
    assert f"in {REPOSITORY / folder}, which paths are relative to" in from_repository.stdout
    from_its_folder = call(f"{method}.py", *arguments[1:], cwd=REPOSITORY / folder)
    assert from_its_folder.stdout == from_repository.stdout.split("\n", 1)[1]


def test_a_plan_is_found_from_the_repository() -> None:
    arguments = ("train/study_script.py", "--c=study", "--preset=small", "--dry-run")
    done = call(*arguments, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert f"in {TRAIN}, which paths are relative to" in done.stdout
    assert call("study_script.py", *arguments[1:], cwd=TRAIN).stdout == done.stdout.split("\n", 1)[1]


def test_a_loras_path_is_relative_to_train_from_the_repository() -> None:
    done = call("train/eval_scripts/calibrate.py", "output/none.safetensors", cwd=REPOSITORY)
    assert (done.returncode, f"in {TRAIN}, which paths" in done.stdout) == (2, True)
    assert "error: output/none.safetensors: " in done.stderr


def test_a_command_that_is_told_works_where_it_is_told() -> None:
    arguments = ("gen_image_script.py", "--c=train_image", "train_iteration=3")
    done = call(f"train/{arguments[0]}", *arguments[1:], cwd=REPOSITORY)
    assert "python train/train_image_script.py --c=train_image" in done.stderr
    assert "python train_image_script.py --c=train_image" in call(*arguments, cwd=TRAIN).stderr


def test_a_methods_own_file_is_its_method_whatever_the_yaml_says(site: Path, script: Script) -> None:
    status, out, err = script("train_image_fm", "--c=mini", "datasets=age", "train_iteration=1")
    assert status == 0, err
    (config,) = Path("output/models").rglob("config.yaml")
    assert read_config(config).python_name == "train_image_fm"
    assert "python_name=train_image_fm" in out.splitlines()[-1]
