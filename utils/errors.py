"""Faults that lie in what the user gave, and the one place where they become an exit status.

Library code raises `UserError` with a single line that names the file or key, what was expected and what was
found. Scripts hand their `main` to `run_cli`, which prints that line and leaves with status 2. Every other
exception is a fault of ours and keeps its traceback.
"""

import atexit
import difflib
import os
import sys
from collections.abc import Callable, Iterable
from typing import NoReturn


class UserError(Exception):
    """A fault in what the user gave. The message is one line: the file or key, expected, found."""

    def __init__(self, message: str) -> None:
        """Keep `message` in one line that a terminal shows as it is, whatever was found."""
        line = " ".join(message.splitlines())
        super().__init__("".join(char if char.isprintable() else repr(char)[1:-1] for char in line))


def run_cli(main: Callable[[], int | None]) -> NoReturn:
    """Run a script's `main` and exit the process.

    The exit status is main's own (None = 0), 2 with "error: <message>" on stderr after a `UserError`, and 130
    (128 + SIGINT, as shells have it) after Ctrl-C. Any other exception passes through with its traceback.
    """
    statuses = _end_at_once() if main.__module__ == "__main__" else []  # the process's own command
    try:
        status = main() or 0
    except UserError as error:
        status = 2
        print(f"error: {error}", file=sys.stderr)
    except KeyboardInterrupt as interrupt:
        status = 130
        print(": ".join(["interrupted", *map(str, interrupt.args)]), file=sys.stderr)
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


def nearest(word: str, options: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the option most like `word`, or "" when none comes near."""
    matches = difflib.get_close_matches(word, list(options), n=1, cutoff=0.6)
    return f" (did you mean {matches[0]!r}?)" if matches else ""
