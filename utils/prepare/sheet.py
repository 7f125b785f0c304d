"""A picture of what became of photographs."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from utils.data.caption_files import METADATA
from utils.errors import UserError
from utils.files import in_folder
from utils.prepare.lines import Line, read_lines
from utils.prepare.options import Options
from utils.prepare.plan import MASKS
from utils.report.figures import Grid, draw_grid

MOST, TILE = 16, 320
"""Rows; pixels of a cell."""


def check_sheet(path: Path, options: Options) -> None:
    """Raise `UserError` for a picture that would lie among the dataset's images."""
    if path.resolve().is_relative_to(options.target.resolve()):
        raise UserError(f"--sheet: expected a file outside of {options.target}, found {path}")
    if path.suffix != ".png":
        raise UserError(f"--sheet: expected a .png, found {path}")


def draw_sheet(options: Options) -> Image.Image | None:
    """A row for each image whose source is there, the first 16: source, image, mask; its words beside it."""
    lines = [
        line
        for line in read_lines(options.target / METADATA).values()
        if Path(line.record.get("from", "")).is_file() and in_folder(options.target, line.name).is_file()
    ]
    if not lines:
        return None
    shown = lines[:MOST]
    rows = [_row(options, line) for line in shown]
    labels = ["photograph", "image", "mask"]
    if all(row[2] is None for row in rows):
        rows, labels = [row[:2] for row in rows], labels[:2]
    caption = f"{len(shown)} of {len(lines)} images" if len(shown) < len(lines) else ""
    return draw_grid(Grid(rows, labels, [_words(line) for line in shown], caption=caption), TILE)


def _row(options: Options, line: Line) -> list[Image.Image | None]:
    """Source, image and mask, if there is one."""
    from utils.data.pixels import read_rgb  # torch comes with it

    mask = in_folder(options.target / MASKS, line.name)
    source, image = Path(line.record["from"]), in_folder(options.target, line.name)
    return [read_rgb(source), read_rgb(image), read_rgb(mask) if mask.is_file() else None]


def _words(line: Line) -> str:
    return (
        "\n".join(part for part in (line.value("text"), ", ".join(line.value("tags"))) if part) or line.name
    )
