"""Parts of the names of a run's folders and files."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from zlib import crc32


def decimals(scale: float) -> str:
    """A slider scale with two decimals, or with as many as it has."""
    return f"{scale + 0.0:.2f}" if round(scale, 2) == scale else f"{scale}"  # + 0.0: -0.0 is 0.0


def place(paths: Sequence[Path]) -> str:
    """Tells files of one name apart: a CRC of where they lie, from the current folder if they are in it."""
    whole = [Path(os.path.abspath(path)) for path in paths]
    seen = [path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path for path in whole]
    return f"{crc32(b'|'.join(os.fsencode(path.as_posix()) for path in seen)):08x}"


def slug(text: str) -> str:
    """A text as part of a file name: letters and digits; a long one is cut, its CRC tells it apart."""
    plain = re.sub(r"\W+", "_", text).strip("_")
    return plain if len(plain) <= 60 else f"{plain[:50]}_{crc32(text.encode()):08x}"
