"""Tables of ready-made cells: Markdown, LaTeX, CSV and JSON, all by pandas."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from utils.files import write_atomically


@dataclass(frozen=True)
class Numbers:
    """A table of ready-made cells, and what is to be said below it."""

    header: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)

    @property
    def frame(self) -> pd.DataFrame:
        """The table; raises ValueError for a row that is not as long as the header."""
        if any(len(row) != len(self.header) for row in self.rows):
            lengths = [len(row) for row in self.rows]
            raise ValueError(f"expected {len(self.header)} cells in every row, found {lengths}")
        return pd.DataFrame(self.rows, columns=self.header, dtype=str)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A Markdown table: the first `left` columns to the left, the others to the right, padded to line up.

    Raises:
        ValueError: a row that is not as long as the header.
    """
    plain = [[_in_one_line(cell) for cell in line] for line in (header, *rows)]
    sides = ["left"] * left + ["right"] * (len(header) - left)
    frame = Numbers(plain[0], plain[1:]).frame
    return f"{frame.to_markdown(index=False, colalign=sides, disable_numparse=True)}\n"


def latex_table(numbers: Numbers, caption: str, label: str) -> str:
    """A table for LaTeX's booktabs package, all text escaped; first column to the left, others right.

    Args:
        numbers: the cells.
        caption: plain text, to stand above.
        label: to refer to it by, of letters, digits, `:` and `-`.
    """
    style = numbers.frame.style.hide(axis="index")
    style = style.format(escape="latex").format_index(escape="latex", axis="columns")
    # a row that begins with [ would be taken for an argument of the line break before it
    latex = style.to_latex(
        hrules=True,
        column_format="l" + "r" * (len(numbers.header) - 1),
        caption=_escaped(caption),
        label=label,
        position="tb",
        position_float="centering",
    )
    return latex.replace("\n[", "\n{[}")


def slug(text: str) -> str:
    """A text as part of a label: its letters and digits, joined by hyphens."""
    return "-".join(re.findall(r"[a-z0-9]+", text.lower()))


def _escaped(text: str) -> str:
    """Plain text for LaTeX, as pandas escapes cells."""
    styled = pd.DataFrame([text]).style.hide(axis="index").hide(axis="columns").format(escape="latex")
    return styled.to_latex().splitlines()[1].removesuffix(r" \\").rstrip("\\ ")


def write_records(
    records: Sequence[Mapping[str, Any]], path: Path, columns: Sequence[str], **about: Any
) -> None:
    """Write rows to path.csv and, below what there is to say `about` them, to path.json."""
    table = pd.DataFrame(list(records), columns=list(columns)).to_csv(index=False)
    write_atomically(path.with_suffix(".csv"), table.encode())
    write_json({**about, "rows": list(records)}, path.with_suffix(".json"))


def write_json(content: Any, path: Path) -> None:
    """Write JSON that every reader takes: what is not finite is null."""
    write_atomically(path, (json.dumps(_strict(content), indent=1, allow_nan=False) + "\n").encode())


def _strict(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _strict(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(entry) for entry in value]
    return None if isinstance(value, float) and not -float("inf") < value < float("inf") else value


def _in_one_line(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")
