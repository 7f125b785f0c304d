"""Names and paths as people write them: which are safe to make and to print; what ~ and $NAME are."""

from __future__ import annotations

import os
import re
from pathlib import Path

_CONTROLS = "\x00-\x1f\x7f-\x9f"
# What turns the direction of a line or ends it; a surrogate is a byte that is no UTF-8.
_TURNS = "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
CONTROL = re.compile(f"[{_CONTROLS}{_TURNS}]")
"""What no name has: a terminal obeys it, or shows another name than there is."""
_IN_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_NAME = re.compile(r"(?!\.{1,2}$)[^/\\]*[^/\\\s][^/\\]*")
_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})", re.ASCII)


def is_name(text: str) -> bool:
    """Whether a text may be a part of a path: it leads out of no folder, and has no control characters."""
    return _NAME.fullmatch(text) is not None and is_clean(text)


def is_path(text: str) -> bool:
    """Whether a text may be a path: it holds something, and no control characters."""
    return bool(text.strip()) and is_clean(text)


def is_clean(text: str) -> bool:
    """Whether a text has no control characters, line ends among them."""
    return CONTROL.search(text) is None


def check_text(text: str) -> None:
    """Raise ValueError, saying which, for a control character other than a tab or a line's end."""
    if found := _IN_TEXT.search(text):
        raise ValueError(f"it holds the control character {found.group()!r}")


def expand_path(text: str) -> str:
    """A path with ~, ~USER, $NAME and ${NAME} replaced.

    Raises:
        ValueError: for a variable that is not set and a user that is not known, in words: a folder of the
            name "~" or "$SCRATCH" is meant by nobody. "./~x" is one all the same.
    """

    def value(found: re.Match[str]) -> str:
        name = found.group(1) or found.group(2)
        if name not in os.environ:
            raise ValueError(f"the variable ${name} is not set")
        return os.environ[name]

    expanded = _VARIABLE.sub(value, text)
    home = os.path.expanduser(expanded)
    if home == expanded and expanded.startswith("~"):
        user = expanded.partition("/")[0]
        raise ValueError(f"there is no home folder {user}; ./{user} is a folder of that name here")
    return home


def as_path(text: str) -> Path:
    """A path as it was typed, expanded; raises ValueError, in words, for what is none."""
    if not is_path(text):
        raise ValueError("it is empty or holds control characters")
    return Path(expand_path(text))
