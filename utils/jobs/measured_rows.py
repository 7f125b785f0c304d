"""What measuring commands measured, a row each: into CSV and JSON, and as a table to be shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from utils.generation.gallery_reader import ImageSeries
    from utils.measure.encoders import Unavailable
    from utils.measure.measures import Measures
    from utils.report.tables import Numbers

COLUMNS = ["run", "scale", "measure", "mean", "low", "high", "count", "finite", "note"]
"""Of the files of measures."""


@dataclass(frozen=True)
class Row:
    """One measure of one run: at a scale, or of the whole slider (scale None)."""

    run: str
    scale: float | None
    measure: str
    values: Tensor | Unavailable | None
    """(B,), or (1,) for what is measured over all identities; None where it has no value."""
    note: str = ""
    """What to know before believing it."""


def rows_by_scale(run: str, series: ImageSeries, measures: Measures) -> list[Row]:
    """A row for every measure of the images at every scale against those at scale 0."""
    from utils.measure.measures import evaluate

    return [
        Row(run, scale, name, values)
        for scale, by_name in evaluate(series, measures).items()
        for name, values in by_name.items()
    ]


def write_rows(
    rows: Sequence[Row],
    path: Path,
    command: str,
    require: bool = False,
    doubts: Mapping[str, Sequence[str]] | None = None,
) -> Numbers:
    """Write path.csv and path.json.

    Args:
        rows: what was measured.
        path: of the files, without suffix.
        command: that made them.
        require: whether it is an error if any measure is not available.
        doubts: what is to be known of a run's images before any figure is believed, by its name.

    Returns:
        The table to be shown: a row a run and scale, a column a measure that is available for any of them;
        the others, and why they are not, stand in its notes.

    Raises:
        UserError: with `require`, if any measure is not available; the files are written all the same.
    """
    from utils.measure.encoders import Unavailable
    from utils.measure.metrics import bootstrap_mean
    from utils.report.tables import Numbers, write_records

    absent = list(dict.fromkeys(str(row.values) for row in rows if isinstance(row.values, Unavailable)))
    doubts = doubts or {}
    notes = [note for note in dict.fromkeys(row.note for row in rows) if note]
    notes += [doubt for of_run in doubts.values() for doubt in of_run]

    # A record of each row for the files, a cell of it for the table.
    cells: dict[tuple[str, str], dict[str, str]] = {}
    records: list[dict[str, Any]] = []
    for row in rows:
        scale = "" if row.scale is None else f"{row.scale:g}"
        record: dict[str, Any] = {"run": row.run, "scale": scale, "measure": row.measure}
        record["note"] = "; ".join(filter(None, [row.note, *doubts.get(row.run, [])]))
        if row.values is None:
            cell = "none"
        elif isinstance(row.values, Unavailable):
            cell, record["note"] = "not available", str(row.values)
        else:
            finite = row.values.isfinite()
            record |= {"count": len(finite), "finite": int(finite.sum()), "mean": row.values.mean().item()}
            cell = f"{record['mean']:.3f}"
            if finite.all():
                interval = bootstrap_mean(row.values)
                cell, record["low"], record["high"] = f"{interval:.3f}", interval.low, interval.high
        cells.setdefault((row.run, scale), {})[row.measure] = cell
        records.append(record)

    # The files are written whatever is missing.
    write_records(records, path, COLUMNS, command=command)
    if require and absent:
        raise UserError("; ".join(absent))

    measures = list(dict.fromkeys(row.measure for row in rows))
    had = dict.fromkeys(row.measure for row in rows if not isinstance(row.values, Unavailable))
    left_out = [measure for measure in measures if measure not in had]
    if left_out:
        notes.append(f"left out, as not available: {', '.join(left_out)}")
    shown = [[*key, *(of_row.get(measure, "") for measure in had)] for key, of_row in cells.items()]
    return Numbers(["run", "scale", *had], shown, [*notes, *absent])
