"""Where a comparison's report goes: over one of no more than its own cells, never over a fuller one."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from hashlib import sha256
from pathlib import Path
from zlib import crc32

from utils.files import aside_of, write_atomically
from utils.study.cells import CellResult

CELLS = "cells.json"
"""Beside a report, its cells: {name: hash of what its figures were made with}."""
_FILES = ("report.html", "table.*", "figures.*", "results.*", "curves*.*", CELLS)


def report_folder(out: Path, planned: Collection[str]) -> Path:
    """Where a report of planned cells goes: `out`, or a folder in it if the report there has others."""
    if set(_cells_of(out)) <= set(planned):
        return out
    return out / f"part_{crc32(' '.join(sorted(planned)).encode()):08x}"


def make_room(folder: Path, results: Sequence[CellResult]) -> None:
    """Have a folder for a report; one there is moved aside unless all its cells are in this one as they were.

    Args:
        folder: as of `report_folder`.
        results: what the report will be of.
    """
    now = {result.cell: _hash(result) for result in results}
    there = [path for pattern in _FILES for path in folder.glob(pattern)]
    known = (folder / CELLS).is_file() and _cells_of(folder).items() <= now.items()
    if there and not known:
        earlier = aside_of(folder / "report")
        earlier.mkdir()
        for path in there:
            path.rename(earlier / path.name)
        print(f"{folder}: a report of other figures was there; moved to {earlier}", flush=True)
    write_atomically(folder / CELLS, (json.dumps(now, indent=1) + "\n").encode())


def _cells_of(folder: Path) -> dict[str, str]:
    """The cells of the report in a folder; none where that was not kept."""
    try:
        return dict(json.loads((folder / CELLS).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return {}


def _hash(result: CellResult) -> str:
    return sha256(json.dumps(result.made_with, sort_keys=True).encode()).hexdigest()[:16]
