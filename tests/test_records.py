"""utils/records.py: what a piece of work cost, written and read back."""

from __future__ import annotations

import json
import sys
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


@pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere the system knows the process's whole life only"
)
def test_the_peak_is_of_the_work_alone(tmp_path: Path) -> None:
    before = torch.ones(2**26)
    size = before.nbytes
    del before
    with recorded(tmp_path / "record.json", "training", 3, CPU):
        pass
    idle = read_record(tmp_path / "record.json").peak_bytes
    with recorded(tmp_path / "record.json", "training", 3, CPU):
        torch.ones(2**26)
    busy = read_record(tmp_path / "record.json").peak_bytes
    assert idle is not None
    assert busy is not None
    assert 0.9 * size < busy - idle < 1.1 * size


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
