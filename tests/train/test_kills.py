"""tests/train/killing.py of a fresh seed: a training stopped anywhere ends as one that never was."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import TRAIN
from tests.train.fuzzing.cases import fresh_seed


@pytest.mark.parametrize("kills", [12, pytest.param(100, marks=pytest.mark.slow)])
def test_killed_anywhere_it_ends_the_same(kills: int, capsys: pytest.CaptureFixture[str]) -> None:
    """By the command, in a process whose forks share nothing with other tests."""
    seed = fresh_seed()
    done = subprocess.run(
        [sys.executable, "-m", "tests.train.killing", f"--kills={kills}", f"--seed={seed}"],
        cwd=TRAIN.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"FUZZ_SEED={seed}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    with capsys.disabled():
        print(f"\n{done.stdout.strip()}")
