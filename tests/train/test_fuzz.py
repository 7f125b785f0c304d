"""tests/train/fuzzing of a fresh seed: whatever is given, no traceback and nothing wrong in silence."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import TRAIN
from tests.train.fuzzing.cases import fresh_seed

CASES = 1200


def fuzz(cases: int, capsys: pytest.CaptureFixture[str]) -> None:
    """As the command does, in a process whose children share nothing with other tests."""
    seed = fresh_seed()
    done = subprocess.run(
        [sys.executable, "-m", "tests.train.fuzzing", f"--cases={cases}", f"--seed={seed}"],
        cwd=TRAIN.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    with capsys.disabled():
        print(f"\nfuzzed: FUZZ_SEED={seed}: {' '.join(done.stdout.strip().splitlines()[-2].split())}")
    assert done.returncode == 0, f"FUZZ_SEED={seed}\n{done.stdout[-6000:]}{done.stderr[-3000:]}"


def test_whatever_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    fuzz(CASES, capsys)


@pytest.mark.slow
def test_whatever_is_given_five_thousand_times(capsys: pytest.CaptureFixture[str]) -> None:
    fuzz(5000, capsys)
