"""Files written whole or not at all."""

import errno
import os
from contextlib import suppress
from pathlib import Path

from utils.errors import UserError


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file beside `path`, then put it in place: a reader never sees half a file, even after a crash.

    Raises:
        UserError: if there is no room or right to; what was there before is kept.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):  # the first fault is the one to tell
            temporary.unlink()
        if not isinstance(error, OSError):
            raise
        raise UserError(
            f"{path}: expected room and rights to write {len(data)} bytes, found: {error.strerror or error}; "
            "what was there before is kept"
        ) from error
    if os.name == "posix":
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename in a folder last."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # what some network file systems say to any folder
            raise UserError(
                f"{folder}: expected a folder that can be synced, found: {error.strerror}"
            ) from error
    finally:
        os.close(descriptor)


def remove_unfinished(folder: Path) -> None:
    """Remove what a killed process was about to write; nobody else may be writing there."""
    for path in folder.glob(".*.tmp"):
        path.unlink()
