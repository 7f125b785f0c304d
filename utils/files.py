"""Files written whole or not at all."""

import os
from contextlib import suppress
from pathlib import Path

from utils.errors import UserError

_UNFINISHED = ".*.tmp"


def write_atomically(path: Path, data: bytes) -> None:
    """Put `data` at `path`, making its folder: a reader, or a power cut, never sees half a file.

    Raises:
        UserError: no room or no right to write; what was at `path` before is kept.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise UserError(
            f"{path}: expected room and rights to write {len(data)} bytes, found: {error.strerror or error}; "
            "what was there before is kept"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Remove what a killed process was about to write; nobody else may be writing there."""
    for path in folder.glob(_UNFINISHED):
        path.unlink()


def _sync_folder(folder: Path) -> None:
    """Have the new name survive a power cut; only POSIX opens folders."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
