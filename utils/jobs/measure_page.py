"""What measuring commands measured as a web page: the pictures first, with a slider, then the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from utils.data.pixels import to_images
from utils.jobs.measure import Subject
from utils.report.figures import Grid
from utils.report.page import Section, Slider, Table, Text, fitting, slider_of_scales, write_report
from utils.report.tables import Numbers

SHOWN = 6
"""Identities of a run whose pictures are shown."""


def write_measured(
    subjects: Sequence[Subject], numbers: Numbers, path: Path, command: str, title: str
) -> Path:
    """Write the page; returns its path.

    Args:
        subjects: the runs measured, of which those that a page has room for are shown.
        numbers: what was measured of them.
        path: of the page; its folder exists.
        command: that measured, to be stated.
        title: of the page.
    """
    columns = max(len(subject.series.scales) for subject in subjects)
    each = max(1, min(SHOWN, fitting(columns) // len(subjects)))
    pictures = [_slider(subject, each) for subject in subjects[: fitting(columns * each)]]
    below = [Text(note) for note in numbers.notes]
    sections = [
        Section("Pictures", pictures),
        Section("Numbers", [Table(numbers.header, numbers.rows), *below]),
    ]
    write_report(path, title, command, sections)
    return path


def _slider(subject: Subject, identities: int) -> Slider:
    series = subject.series
    columns = [to_images(images[:identities]) for images in series.images.values()]
    grid = Grid(
        rows=[list(row) for row in zip(*columns, strict=True)],
        column_labels=[f"{scale:g}" for scale in series.scales],
        row_labels=series.names[:identities],
        column_axis="slider scale",
        title=subject.run.name,
    )
    return slider_of_scales(grid)
