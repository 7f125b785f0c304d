"""Pictures of results: labelled grids of images, line plots, GIFs.

Grids and plots are plain data (`Grid`, `Plot`); this module draws them into image files, and
`utils/report/page.py` lays the same data out as a web page. matplotlib is imported where it draws: training
imports this module, and draws as a rule nothing.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont, ImageOps

from utils.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, MUTED, PAPER, EMPTY = "#1c1c1e", "#5f6368", "#ffffff", "#f1f1f3"
DARK_INK, DARK_MUTED, DARK_PAPER = "#ececef", "#a2a5ab", "#1c1d20"
# Okabe & Ito's palette without its black and yellow: told apart by colour-blind readers, and legible on
# white and on near-black. Markers repeat the distinction for print; past six lines, dashes tell them apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "s", "^", "D", "v", "P")
LINES = ("-", "--", ":")

MARGIN, GAP, LINE = 48, 10, 1.4
TITLE, LABEL, CAPTION = 32, 24, 21


@dataclass(frozen=True)
class Grid:
    """Images in rows and columns with their labels. None leaves a cell empty, e.g. for a run that failed."""

    rows: Sequence[Sequence[Image.Image | None]]
    column_labels: Sequence[str] = ()
    row_labels: Sequence[str] = ()
    column_axis: str = ""
    """What the column labels are, e.g. "slider scale"."""
    title: str = ""
    caption: str = ""

    def __post_init__(self) -> None:
        """Refuse ragged rows and labels that do not match, which would put a wrong name to a picture."""
        widths = {len(row) for row in self.rows}
        if len(widths) != 1 or 0 in widths:
            raise ValueError(
                f"expected rows of one length, at least one image each, found lengths {sorted(widths)}"
            )
        for name, labels, count in (
            ("column", self.column_labels, len(self.rows[0])),
            ("row", self.row_labels, len(self.rows)),
        ):
            if labels and len(labels) != count:
                raise ValueError(f"expected {count} {name} labels, found {len(labels)}: {list(labels)}")


def load_font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib; Pillow's own font has no accents, Greek or minus sign."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def wrap_text(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """Break text into lines of at most `width` pixels: at spaces, or inside a word (a path) that is wider."""
    lines: list[str] = []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split():
            if line and font.getlength(f"{line} {word}") > width:
                lines.append(line)
                line = ""
            line = f"{line} {word}" if line else word
            while font.getlength(line) > width and len(line) > 1:
                fits = next(
                    n for n in range(len(line) - 1, 0, -1) if n == 1 or font.getlength(line[:n]) <= width
                )
                lines.append(line[:fits])
                line = line[fits:]
        lines.append(line)
    return lines


def draw_grid(grid: Grid, tile: int = 256) -> Image.Image:
    """Draw a grid on white: title, column axis and labels above, row labels to the left, caption below.

    All text is wrapped to the room it has and the canvas grows with it, so nothing is ever cut off.

    Args:
        grid: what to draw.
        tile: pixels of the longer side of images, which are brought to it, up or down, in their own aspect
            ratio; cells are as wide and as high as these are at most.
    """
    wide, high = _cell(grid, tile)
    title_font, label_font, caption_font = load_font(TITLE, bold=True), load_font(LABEL), load_font(CAPTION)
    row_texts = [wrap_text(label, label_font, 1.2 * tile) for label in grid.row_labels]
    gutter = max((label_font.getlength(line) for text in row_texts for line in text), default=0)
    left = MARGIN + (round(gutter) + 24 if gutter else 0)
    columns = len(grid.rows[0])
    right = left + columns * wide + (columns - 1) * GAP

    title = wrap_text(grid.title, title_font, right - MARGIN)
    axis = wrap_text(grid.column_axis, caption_font, right - left)
    column_texts = [wrap_text(label, label_font, wide) for label in grid.column_labels]
    label_lines = max(map(len, column_texts), default=0)
    caption = wrap_text(grid.caption, caption_font, right - MARGIN)

    # Every block is as high as its lines, followed by some air if it is there at all.
    axis_top = MARGIN + _height(title, TITLE, 22)
    labels_top = axis_top + _height(axis, CAPTION, 6)
    top = labels_top + _height([""] * label_lines, LABEL, 12)
    bottom = top + len(grid.rows) * (high + GAP) - GAP
    canvas = Image.new(
        "RGB", (right + MARGIN, bottom + _height(caption, CAPTION, 0, before=24) + MARGIN), PAPER
    )
    draw = ImageDraw.Draw(canvas)

    _write(draw, title, MARGIN, MARGIN, title_font, TITLE, INK, "la")
    _write(draw, axis, (left + right) / 2, axis_top, caption_font, CAPTION, MUTED, "ma")
    for column, text in enumerate(column_texts):
        y = labels_top + (label_lines - len(text)) * LABEL * LINE  # sits on the images
        _write(draw, text, left + column * (wide + GAP) + wide / 2, y, label_font, LABEL, INK, "ma")
    for row, images in enumerate(grid.rows):
        y = top + row * (high + GAP)
        if row_texts:
            middle = y + (high - len(row_texts[row]) * LABEL * LINE) / 2
            _write(draw, row_texts[row], MARGIN, middle, label_font, LABEL, INK, "la")
        for column, image in enumerate(images):
            _place(canvas, draw, image, left + column * (wide + GAP), y, (wide, high))
    _write(draw, caption, MARGIN, bottom + 24, caption_font, CAPTION, MUTED, "la")
    return canvas


def _height(lines: Sequence[str], size: int, after: int, before: int = 0) -> int:
    return round(len(lines) * size * LINE) + after + before if lines else 0


def _write(
    draw: ImageDraw.ImageDraw,
    lines: Sequence[str],
    x: float,
    y: float,
    font: ImageFont.FreeTypeFont,
    size: int,
    colour: str,
    anchor: str,
) -> None:
    for i, line in enumerate(lines):
        draw.text((x, y + i * size * LINE + size * (LINE - 1) / 2), line, colour, font, anchor)


def _cell(grid: Grid, tile: int) -> tuple[int, int]:
    """Width and height of a grid's cells: the greatest of the images, each brought to `tile`."""
    sizes = [image.size for row in grid.rows for image in row if image is not None]
    wide = max((round(tile * width / max(width, height)) for width, height in sizes), default=tile)
    high = max((round(tile * height / max(width, height)) for width, height in sizes), default=tile)
    return max(1, wide), max(1, high)


def _place(
    canvas: Image.Image,
    draw: ImageDraw.ImageDraw,
    image: Image.Image | None,
    x: int,
    y: int,
    cell: tuple[int, int],
) -> None:
    if image is None:
        draw.rectangle((x, y, x + cell[0] - 1, y + cell[1] - 1), EMPTY)
        return
    fitted = ImageOps.contain(image.convert("RGB"), cell, Image.Resampling.LANCZOS)
    canvas.paste(fitted, (x + (cell[0] - fitted.width) // 2, y + (cell[1] - fitted.height) // 2))


@dataclass(frozen=True)
class Series:
    """One line of a plot; `low` and `high` draw a band around it. NaN leaves a gap."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None

    def __post_init__(self) -> None:
        """Refuse points that lack a coordinate, and a band with one edge."""
        lengths = {len(values) for values in (self.x, self.y, self.low, self.high) if values is not None}
        if lengths != {len(self.x)} or not self.x or (self.low is None) != (self.high is None):
            raise ValueError(f"expected x, y and both edges of the band alike in length, found {self}")


@dataclass(frozen=True)
class Plot:
    """Lines over one pair of axes."""

    series: Sequence[Series]
    x_label: str
    y_label: str
    title: str = ""
    caption: str = ""


def draw_plot(plot: Plot, dark: bool = False) -> Figure:
    """Draw a line plot, 7.2 x 4.5 inches, with the legend below if there is more than one line.

    Args:
        plot: what to draw; its caption is left to the page around it.
        dark: colours for a dark page instead of a white one.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    ink, muted, paper = (DARK_INK, DARK_MUTED, DARK_PAPER) if dark else (INK, MUTED, PAPER)
    figure = Figure(
        figsize=(7.2, 4.5), dpi=160, layout=ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.15), facecolor=paper
    )
    axes = figure.add_subplot(facecolor=paper)

    # The series, with their intervals.
    for i, series in enumerate(plot.series):
        cycle, i = divmod(i, len(COLOURS))
        colour, line = COLOURS[i], LINES[cycle % len(LINES)]
        axes.plot(series.x, series.y, line, color=colour, marker=MARKERS[i], label=series.label, lw=2, ms=5)
        if series.low is not None and series.high is not None:
            axes.fill_between(series.x, series.low, series.high, color=colour, alpha=0.18, linewidth=0)

    # Axes without frame; a legend where there is a choice.
    axes.set_xlabel(plot.x_label, color=ink, fontsize=11, labelpad=8)
    axes.set_ylabel(plot.y_label, color=ink, fontsize=11, labelpad=8)
    axes.set_title(plot.title, color=ink, fontsize=12, fontweight="bold", loc="left", pad=12)
    axes.tick_params(colors=muted, labelsize=10, length=0, pad=6)
    axes.grid(color=muted, alpha=0.25, linewidth=0.8)
    axes.spines[:].set_visible(False)
    if len(plot.series) > 1:
        columns = min(3, len(plot.series))
        figure.legend(
            loc="outside lower center",
            ncols=columns,
            frameon=False,
            labelcolor=ink,
            fontsize=10,
            handlelength=3,
        )
    return figure


def plot_bytes(plot: Plot, file_type: str, dark: bool = False) -> bytes:
    """Draw a plot as a "png", "svg" or "pdf" file; the same plot gives the same bytes every time."""
    import matplotlib

    buffer = io.BytesIO()
    date = {"svg": "Date", "pdf": "CreationDate"}.get(file_type)
    with matplotlib.rc_context({"svg.hashsalt": "pairedit"}):
        draw_plot(plot, dark).savefig(buffer, format=file_type, metadata={date: None} if date else None)
    return buffer.getvalue()


def save_plot(plot: Plot, path: Path, dark: bool = False) -> None:
    """Draw a plot into a file; its suffix (.png, .svg, .pdf) says of which type."""
    write_atomically(path, plot_bytes(plot, path.suffix.removeprefix("."), dark))


def save_image(image: Image.Image, path: Path) -> None:
    """Write a picture as PNG, whole or not at all; its folder is made."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    write_atomically(path, buffer.getvalue())


def save_gif(frames: Sequence[Image.Image], path: Path, milliseconds: int = 120, bounce: bool = True) -> None:
    """Write an endless animation, e.g. of a slider being pulled.

    Args:
        frames: at least two images of one size.
        path: of the GIF.
        milliseconds: each frame is shown; GIF counts in steps of 10.
        bounce: run back to the start instead of jumping to it.

    Raises:
        ValueError: fewer than two frames, or frames of several sizes.
    """
    sizes = {frame.size for frame in frames}
    if len(frames) < 2 or len(sizes) != 1:
        raise ValueError(
            f"expected at least two frames of one size, found {len(frames)} of sizes {sorted(sizes)}"
        )
    played = [*frames, *frames[-2:0:-1]] if bounce else list(frames)
    # A palette of its own for every frame; one for all would band the skin tones.
    quantized = [frame.convert("RGB").quantize(256, dither=Image.Dither.FLOYDSTEINBERG) for frame in played]
    buffer, later = io.BytesIO(), quantized[1:]
    quantized[0].save(buffer, "GIF", save_all=True, append_images=later, duration=milliseconds, loop=0)
    write_atomically(path, buffer.getvalue())
