"""utils/files.py: whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys

import pytest

from utils.errors import UserError
from utils.files import _spare, append_line, remove_unfinished, write_atomically


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "new" / "file"
    write_atomically(path, b"good")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        UserError, match=r"file: expected room and rights to write 4 bytes, found: No space"
    ) as no:
        write_atomically(path, b"half")
    assert "what was there before is kept" in str(no.value)
    monkeypatch.setattr(os, "fsync", lambda descriptor: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_atomically(path, b"half")
    assert path.read_bytes() == b"good"
    assert [other.name for other in path.parent.iterdir()] == ["file"]


def test_no_folder_can_be_made(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="expected room and rights to write 1 bytes, found: "):
        write_atomically(tmp_path / "file" / "inner" / "x", b"x")


def test_a_write_is_synced_in_its_folder_too(tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    write_atomically(tmp_path / "file", b"x")
    assert synced == [False, True]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO])
def test_a_folder_that_cannot_be_synced(tmp_path, monkeypatch, number):
    """EINVAL is a file system's way to say that it syncs no folders."""

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, "no")

    monkeypatch.setattr(os, "fsync", fsync)
    if number == errno.EINVAL:
        write_atomically(tmp_path / "file", b"x")
    else:
        with pytest.raises(UserError, match="expected a folder that can be synced, found: no"):
            write_atomically(tmp_path / "file", b"x")
    assert (tmp_path / "file").read_bytes() == b"x"


def test_what_a_killed_process_left_is_removed(tmp_path):
    write_atomically(tmp_path / "file", b"x")
    (tmp_path / ".file.123.tmp").write_bytes(b"half")
    (tmp_path / ".hidden").write_bytes(b"own")
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples/.a.png.host.123.tmp").write_bytes(b"half")
    remove_unfinished(tmp_path, own=False)  # of no process of this machine
    assert len(list(tmp_path.rglob(".*.tmp"))) == 2
    remove_unfinished(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "file", "samples"]
    assert not list((tmp_path / "samples").iterdir())


def test_in_a_shared_folder_only_dead_processes_files_are_removed(tmp_path, monkeypatch):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for process in (ended.pid, os.getpid(), os.getppid(), 10**30):
        monkeypatch.setattr(os, "getpid", lambda process=process: process)
        _spare(tmp_path / str(process)).write_bytes(b"half")
        monkeypatch.undo()
    remove_unfinished(tmp_path, own=False)
    left = {path.name.split(".")[1] for path in tmp_path.iterdir()}
    assert left == {str(os.getpid()), str(os.getppid())}


def test_the_longest_name_there_can_be(tmp_path):
    for name in ("x" * 255, "\u00e9" * 127):
        write_atomically(tmp_path / name, b"x")
        assert [path.name for path in tmp_path.iterdir()] == [name]
        (tmp_path / name).unlink()
    with pytest.raises(UserError, match="File name too long"):
        write_atomically(tmp_path / ("x" * 256), b"x")


def test_a_line_is_added_whole_or_not_at_all(tmp_path, monkeypatch):
    append_line(tmp_path / "log", "one")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="log: expected room and rights to write a line, found: No space"):
        append_line(tmp_path / "log", "two")
    assert (tmp_path / "log").read_text() == "one\n"
