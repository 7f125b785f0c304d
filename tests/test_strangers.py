"""Every case of tests/strangers is right."""

from pathlib import Path

import pytest

from tests.strangers import load_cases

CASES = load_cases()


@pytest.mark.parametrize("name", CASES)
def test_case(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    CASES[name](tmp_path)
