"""utils/records.py: what a piece of work cost, written and read back."""

from __future__ import annotations

import json
from pathlib import Path
from time import sleep

import pytest
import torch

from utils.errors import UserError
from utils.records import read_record, recorded

CPU = torch.device("cpu")


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    with recorded(tmp_path / "run/record.json", "training", 3, CPU):
        ballast = torch.ones(2**24)
        sleep(0.05)
    record = read_record(tmp_path / "run/record.json")
    assert (record.work, record.count, record.torch) == ("training", 3, torch.__version__)
    assert 0.05 <= record.seconds < 5
    assert record.per_second == pytest.approx(3 / record.seconds)
    assert record.peak_bytes is not None
    assert record.peak_bytes > ballast.nbytes
    assert record.device.startswith("CPU ")


def test_work_that_fails_leaves_no_record(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), recorded(tmp_path / "record.json", "training", 3, CPU):
        raise RuntimeError
    assert not (tmp_path / "record.json").exists()


@pytest.mark.parametrize("content", [None, "{", "[1]", json.dumps({"work": "training"})])
def test_what_is_no_record_is_told(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "record.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=r"record.json: expected a run's record, found "):
        read_record(path)
