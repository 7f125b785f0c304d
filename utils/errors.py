"""Faults that lie in what the user gave, and the one place where they become an exit status.

Library code raises `UserError` with a single line that names the file or key, what was expected and what was
found. Scripts hand their `main` to `run_cli`, which prints that line and leaves with status 2. Every other
exception is a fault of ours and keeps its traceback.
"""

import atexit
import difflib
import errno
import os
import select
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn, TextIO

LONGEST = 2000
"""Characters of a message: a terminal's page; what goes on longer is cut in its middle."""


class UserError(Exception):
    """A fault in what the user gave. The message is one line: the file or key, expected, found."""

    def __init__(self, message: str) -> None:
        """Keep `message` in one line that a terminal shows as it is, whatever was found."""
        super().__init__(shown(message))


def shown(text: str) -> str:
    """A text in one line of at most `LONGEST` characters, control characters as their escapes."""
    line = " ".join(_ends(text).splitlines())
    return _ends("".join(char if char.isprintable() else repr(char)[1:-1] for char in line))


def _ends(text: str) -> str:
    """A text without its middle, if it is too long."""
    if len(text) <= LONGEST:
        return text
    half = LONGEST // 2 - 20
    return f"{text[:half]} [... {len(text) - 2 * half} more ...] {text[-half:]}"


def run_cli(main: Callable[[], int | None]) -> NoReturn:
    """Run a script's `main` and exit the process.

    The exit status is main's own (None = 0), 2 with "error: <message>" on stderr after a `UserError` or what
    the system refused (a full disk, rights, a name too long), 130 (128 + SIGINT, as shells have it) after
    Ctrl-C, and 141 (128 + SIGPIPE), without a word, where whoever read the output has gone, as `head` does.
    Any other exception keeps its traceback.
    """
    statuses = _end_at_once() if main.__module__ == "__main__" else []  # the process's own command
    try:
        status = _status_of(main)
        sys.stdout.flush()
    except UserError as error:
        status = 2
        print(f"error: {error}", file=sys.stderr)
    except KeyboardInterrupt as interrupt:
        status = 130
        print(": ".join(["interrupted", *map(str, interrupt.args)]), file=sys.stderr)
    except OSError as error:
        if reader_gone():
            status = _leave_pipe()
        elif error.errno in (errno.ENOSPC, errno.EDQUOT):
            status = 2
            print(f"error: {full_disk(error)}", file=sys.stderr)
        elif error.errno is not None:
            status = 2
            print(f"error: {shown(_refused(error))}", file=sys.stderr)
        else:  # a library's own, of no system call
            raise
    if isinstance(status, int):
        statuses.append(status)
    sys.exit(status)


def _end_at_once() -> list[int]:
    """Let the process end without Python's taking itself down, which takes a second where torch is there.

    Registered before any library is there, so that it comes last of all that is done at exit.

    Returns:
        Where the exit status goes; without one, as after a traceback, everything goes its usual way.
    """
    statuses: list[int] = []

    def end() -> None:
        if statuses:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(statuses[0])

    atexit.register(end)
    return statuses


def _status_of(main: Callable[[], int | None]) -> int | str:
    """What main gives, or leaves with, as argparse does after --help."""
    try:
        return main() or 0
    except SystemExit as left:
        return left.code or 0


def reader_gone() -> bool:
    """Whether standard output or error is a pipe that nobody reads any more."""
    return any(map(_unread, (sys.stdout, sys.stderr)))


def _unread(stream: TextIO) -> bool:
    try:
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLOUT)
    except (AttributeError, ValueError, OSError):  # on Windows, and of a stream in memory
        return False
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _leave_pipe() -> int:
    """Let nothing more be written where nobody reads; gives the exit status."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in filter(_unread, (sys.stdout, sys.stderr)):
        os.dup2(nowhere, stream.fileno())
    return 141


def full_disk(error: OSError) -> str:
    """Which folder has no room left, in one line: the file's, or whichever is full."""
    if error.filename:
        where = str(Path(os.fsdecode(error.filename)).parent)
    else:
        folders = {str(Path.cwd()), os.environ.get("TMPDIR", "/tmp"), str(Path.home())}
        full = sorted(folder for folder in folders if os.path.isdir(folder) and not _room(folder))
        where = ", ".join(full) or "standard output, or a folder that is written to"
    return f"{where}: expected room to write, found: {os.strerror(error.errno or errno.ENOSPC)}"


def _room(folder: str) -> bool:
    return shutil.disk_usage(folder).free >= 2**20


def _refused(error: OSError) -> str:
    """What the system refused, in words."""
    where = error.filename2 or error.filename
    return ": ".join(str(part) for part in (where, error.strerror or error) if part)


def nearest(word: str, options: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the option most like `word`, or "" when none comes near."""
    matches = difflib.get_close_matches(word, list(options), n=1, cutoff=0.6)
    return f" (did you mean {matches[0]!r}?)" if matches else ""
