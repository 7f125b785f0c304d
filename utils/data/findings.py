"""What is found while files are looked at: faults, all told at once at the end, and notes that go on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from utils.errors import UserError

LISTED = 5
"""Names in a line before the rest are counted."""


@dataclass
class Findings:
    """Faults and notes, a line each, in the order in which they were found."""

    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def settle(self) -> None:
        """Raise `UserError` with all faults, if there are any."""
        if self.faults:
            raise UserError("; ".join(self.faults))


def some_of(names: Sequence[object]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(str(name) for name in names[:LISTED]) + more


def counted(number: int, thing: str) -> str:
    """1 image, 2 images."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
