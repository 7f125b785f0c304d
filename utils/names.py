"""Names, paths and numbers as people write them.

Names are safe to make and to print; ~ and $NAME in paths are replaced, a LoRA is found by its run's folder;
numbers are decimal: 010 is ten, and 0x1F, 0o17, 1_000 and 1:30 are none.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from utils.errors import nearest

_CONTROLS = "\x00-\x1f\x7f-\x9f"
# What turns the direction of a line or ends it; a surrogate is a byte that is no UTF-8.
_TURNS = "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
CONTROL = re.compile(f"[{_CONTROLS}{_TURNS}]")
"""What no name has: a terminal obeys it, or shows another name than there is."""
LONGEST_NAME = 255
"""Bytes of a file's name, as file systems have it."""
LONGEST_PATH = 2000
"""Bytes of a path, with room for what is written below it."""
LORA_SUFFIXES = (".safetensors", ".pt")
_STEP = re.compile(r".*_(\d+)epoch")
_IN_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_NAME = re.compile(r"(?!\.{1,2}$)[^/\\]*[^/\\\s][^/\\]*")
_WHOLE = re.compile(r"[-+]?[0-9]+")
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.?(inf|nan)", re.IGNORECASE)
_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})", re.ASCII)


def read_whole(text: str) -> int:
    """A whole number of its digits; raises ValueError for anything else."""
    if not _WHOLE.fullmatch(text):
        raise ValueError("no whole number")
    return int(text)


def read_number(text: str) -> float:
    """A number as it is written, .inf and .nan, too; raises ValueError for anything else."""
    if _NOT_FINITE.fullmatch(text):
        return float(text.replace(".", ""))
    if not _NUMBER.fullmatch(text):
        raise ValueError("no number")
    return float(text)


def is_name(text: str) -> bool:
    """Whether a text may be a part of a path: it leads out of no folder, and has no control characters."""
    return _NAME.fullmatch(text) is not None and is_path(text)


def is_path(text: str) -> bool:
    """Whether a text may be a path: it holds something, no control characters, and is not too long."""
    if not text.strip() or not is_clean(text):
        return False
    longest = max(len(part.encode()) for part in re.split(r"[/\\]", text))
    return longest <= LONGEST_NAME and len(text.encode()) <= LONGEST_PATH


def is_path_or_none(text: str) -> bool:
    """Whether a text may be a path, or is empty."""
    return not text or is_path(text)


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
    expanded = expand_path(text)
    if not is_path(expanded):
        raise ValueError("it is empty, too long, or holds control characters")
    return Path(expanded)


def find_lora(path: Path) -> Path:
    """The LoRA file that a path means: itself, without its suffix, or by its run's folder, the last step's.

    Where there is none, `path` as it is; `beside` says what there is.
    """
    if path.is_dir():
        loras = sorted(path.glob("*.safetensors"))
        steps = {int(found.group(1)): lora for lora in loras if (found := _STEP.fullmatch(lora.stem))}
        return steps[max(steps)] if steps else loras[0] if len(loras) == 1 else path
    # os.path's: no name is too long to be asked for
    if os.path.exists(path) or not path.name:
        return path
    named = (path.with_name(path.name + suffix) for suffix in LORA_SUFFIXES)
    return next((file for file in named if os.path.isfile(file)), path)


def beside(path: Path) -> str:
    """What LoRAs there are in place of a path that is none; "" where nothing is near."""
    folder = path if path.is_dir() else path.parent
    names = sorted(file.name for suffix in LORA_SUFFIXES for file in folder.glob(f"*{suffix}"))
    if not path.is_dir():
        return nearest(path.name, names)
    return f"; it is a folder with {', '.join(names)}: name one" if names else "; it is a folder without any"
