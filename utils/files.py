"""Files: images found in folders; files written whole or not at all. Nothing heavy is imported here."""

import errno
import os
import platform
import re
import unicodedata
from contextlib import suppress
from pathlib import Path

from utils.errors import UserError, nearest
from utils.names import is_clean

# The formats that are read, by Pillow's name. No other is opened, whatever the suffix: some start a program.
FORMATS: dict[str, tuple[str, ...]] = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo"),
    "WEBP": (".webp",),
    "AVIF": (".avif", ".avifs"),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    "TGA": (".tga", ".icb", ".vda", ".vst"),
    "PPM": (".pbm", ".pgm", ".ppm", ".pnm"),
    "PCX": (".pcx",),
    "SGI": (".sgi", ".rgb", ".rgba", ".bw"),
    "QOI": (".qoi",),
    "DDS": (".dds",),
    "ICO": (".ico",),
    "HEIF": (".heic", ".heif", ".hif"),  # by the extra heic
}
SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)

# What lies beside images and is none: captions, notes, what other trainers and file managers leave.
COMPANIONS = (
    *(
        ".txt",
        ".caption",
        ".md",
        ".json",
        ".jsonl",
        ".yaml",
        ".yml",
        ".toml",
        ".csv",
        ".xml",
        ".xmp",
        ".html",
    ),
    *(".npz", ".npy", ".pt", ".safetensors", ".db", ".ini", ".log", ".py"),
)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file beside `path`, then put it in place: a reader never sees half a file, even after a crash.

    Raises:
        UserError: if there is no room or right to; what was there before is kept.
    """
    spare = _spare(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with spare.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        spare.replace(path)
    except BaseException as error:
        with suppress(OSError):  # the first fault is the one to tell
            spare.unlink()
        if not isinstance(error, OSError):
            raise
        raise UserError(
            f"{path}: expected room and rights to write {len(data)} bytes, found: {error.strerror or error}; "
            "what was there before is kept"
        ) from error
    if os.name == "posix":
        _sync_folder(path.parent)


def append_line(path: Path, line: str) -> None:
    """Add a line to a text file, on the disk when this returns.

    Raises:
        UserError: if there is no room or right to; what part of the line was written is taken back.
    """
    length = path.stat().st_size if path.exists() else 0
    try:
        with path.open("ab") as stream:
            stream.write(f"{line}\n".encode())
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        with suppress(OSError):  # the first fault is the one to tell
            os.truncate(path, length)
        raise UserError(
            f"{path}: expected room and rights to write a line, found: {error.strerror or error}"
        ) from error


_MACHINE = re.sub(r"\W+", "-", platform.node())[:40]


def _spare(path: Path) -> Path:
    """Where a file is written before it is put in place; no other process on any machine has the same."""
    ending = f".{_MACHINE}.{os.getpid()}.tmp"
    room = 255 - len(ending) - 1  # bytes of a name, on most file systems
    return path.with_name(f".{os.fsdecode(os.fsencode(path.name)[:room])}{ending}")


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


def remove_unfinished(folder: Path, own: bool = True) -> None:
    """Remove what killed processes were about to write in a folder and those below it.

    Args:
        folder: need not be there.
        own: whether the folder is this process's alone; if not, only what processes of this machine left that
            are no more.
    """
    for path in folder.rglob(".*.tmp"):
        if own or _abandoned(path):
            path.unlink(missing_ok=True)


def _abandoned(spare: Path) -> bool:
    """Whether a spare file's process was on this machine and is no more."""
    *_, machine, process, _ = spare.name.rsplit(".", 3)
    if os.name != "posix" or machine != _MACHINE or not process.isdecimal() or int(process) == os.getpid():
        return False  # on Windows, what asks whether a process lives ends it
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:  # it is another user's
        return False
    return False


def free_name(path: Path) -> Path:
    """`path`, or with a number behind its stem where that is taken."""
    free, number = path, 1
    while free.exists():
        number += 1
        free = path.with_name(f"{path.stem}{number}{path.suffix}")
    return free


def move_aside(path: Path) -> Path:
    """Rename a file or folder to the name that `aside_of` gives; returns where it is now."""
    return path.rename(aside_of(path))


def aside_of(path: Path) -> Path:
    """NAME_old1, or the next number that is free, for a folder; of a file before its suffix."""
    stem, suffix = (path.stem, path.suffix) if path.is_file() else (path.name, "")
    number = 1
    while (aside := path.with_name(f"{stem}_old{number}{suffix}")).exists():
        number += 1
    return aside


def one_form(name: str) -> str:
    """A name in the one Unicode form (NFC) in which equal names compare equal; file systems keep either."""
    return unicodedata.normalize("NFC", name)


def in_folder(folder: Path, name: str) -> Path:
    """The file or folder `name` of a folder, in whichever Unicode form it lies there; as given if in none."""
    path = folder / name
    if name.isascii() or path.exists() or not folder.is_dir():
        return path
    return next((other for other in folder.iterdir() if one_form(other.name) == one_form(name)), path)


def is_utf8(text: str) -> bool:
    """Whether a text can be written down; what Python makes of file names that are not UTF-8 can't."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


def find_images(folder: Path) -> dict[str, Path]:
    """Map stem, in NFC, to path for the images of a folder, in natural order.

    Hidden files, folders and `COMPANIONS` are passed over; any other file is meant to be an image.

    Raises `UserError` on a missing folder (naming the datasets beside it), on one without images, on files of
    which none is read or whose names are not UTF-8, and on a stem found twice.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: expected a folder of images, found none{_datasets_beside(folder)}")
    seen = [path for path in folder.iterdir() if path.name[0] != "."]
    files = [path for path in seen if path.suffix.lower() in SUFFIXES]
    passed_over = (*SUFFIXES, *COMPANIONS)
    strange = [path.name for path in seen if path.suffix.lower() not in passed_over and path.is_file()]
    if strange:
        raise UserError(
            f"{folder}: expected images ({' '.join(SUFFIXES)}), found {', '.join(sorted(strange))}; "
            "save as one of these, or move elsewhere"
        )
    if unnamed := sorted(path.name for path in files if not is_utf8(path.name)):
        raise UserError(f"{folder}: expected names in UTF-8, found {', '.join(unnamed)}; rename them")
    found: dict[str, Path] = {}
    for path in sorted(files, key=lambda path: (_natural(one_form(path.stem)), path.name)):
        stem = one_form(path.stem)
        if stem in found:
            raise UserError(f"{folder}: expected one image a stem, found {found[stem].name} and {path.name}")
        found[stem] = path
    if not found:
        raise UserError(f"{folder}: expected images ({' '.join(SUFFIXES)}), found none")
    if unsafe := [path.name for path in found.values() if not is_clean(path.name)]:
        raise UserError(f"{folder}: expected names without control characters, found {unsafe[0]!r}")
    return found


def _natural(stem: str) -> list[tuple[int, str]]:
    """Sort key that reads runs of digits as numbers."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", stem)]


def _datasets_beside(folder: Path) -> str:
    """Name the datasets that do have a folder of this name: datasets_folder/DATASET/folder."""
    datasets = folder.parent.parent
    there = sorted(path.parent.name for path in datasets.glob(f"*/{folder.name}") if path.is_dir())
    if not there:
        return f"; {datasets} has no dataset with a folder {folder.name!r}"
    return f"{nearest(folder.parent.name, there)}; datasets in {datasets}: {', '.join(there)}"
