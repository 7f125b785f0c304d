"""utils/machine.py: devices, the model's path and folders to write to."""

from pathlib import Path

import pytest
import torch

from utils.errors import UserError
from utils.machine import check_writable, resolve_device, resolve_model_path


@pytest.mark.parametrize("device", ["0", "cuda", "cuda:3"])
def test_a_cuda_device_without_cuda_says_so_and_is_the_cpu(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    lines: list[str] = []
    assert resolve_device(device, lines.append) == torch.device("cpu")
    assert lines == [f"device {device}: this machine has no CUDA; using the CPU"]


def test_devices_with_and_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto", lines.append) == resolve_device("cpu", lines.append) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for device, index in (("auto", 0), ("cuda", 0), ("0", 0), ("1", 1), ("cuda:1", 1)):
        assert resolve_device(device, lines.append) == torch.device("cuda", index)
    assert resolve_device("cpu", lines.append) == torch.device("cpu")
    with pytest.raises(UserError, match="device: expected a CUDA index from 0 to 1, found 2"):
        resolve_device("2", lines.append)
    assert not lines


def test_the_model_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, repository = tmp_path / "here", tmp_path / "repository"
    for folder in (here, repository):
        (folder / "tiny/weights").mkdir(parents=True)
        (folder / "tiny/weights/model_index.json").write_text("{}")
    monkeypatch.chdir(here)
    monkeypatch.setattr("utils.machine.REPOSITORY", repository)
    assert resolve_model_path("tiny/weights") == "tiny/weights"
    assert resolve_model_path(str(repository / "tiny/weights")) == str(repository / "tiny/weights")
    (here / "tiny").rename(here / "elsewhere")
    assert resolve_model_path("tiny/weights") == str(repository / "tiny/weights")
    assert resolve_model_path("owner/FLUX.1-name") == "owner/FLUX.1-name"
    for missing in ("tiny/other", "weights", "./a/b", "/no/such", "a/b/c", "../x/y", ""):
        with pytest.raises(UserError, match="pretrained_model_name_or_path: expected"):
            resolve_model_path(missing)
    with pytest.raises(UserError, match=r"model_index\.json, found tiny|found elsewhere without one"):
        resolve_model_path("elsewhere")


def test_an_unwritable_folder(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "folder")
    assert not list((tmp_path / "new" / "folder").iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/sub: expected a folder to write to, found Not a directory"):
        check_writable(tmp_path / "file" / "sub")
    with pytest.raises(UserError, match="file: expected a folder to write to"):
        check_writable(tmp_path / "file")
