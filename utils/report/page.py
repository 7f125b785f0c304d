"""One self-contained web page of results: `write_report` lays out text, tables, image grids and plots.

Images are inlined, nothing is fetched (the page's own policy forbids it), there is no script; it follows the
reader's light or dark setting, and on a phone what is too wide scrolls sideways inside the page.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from utils.files import write_atomically
from utils.report.figures import DARK_INK, DARK_MUTED, DARK_PAPER, INK, MUTED, PAPER, Grid, Plot, plot_bytes

LOSSLESS_UP_TO = 256  # pixels; small tiles (pixel art among them) stay exact, photographs are compressed
LARGEST_TILE = 512


@dataclass(frozen=True)
class Text:
    """A paragraph of plain text."""

    text: str


@dataclass(frozen=True)
class Table:
    """A table of ready-made cells; the first column names the row."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""

    def __post_init__(self) -> None:
        """Refuse rows that would not line up with the header."""
        if any(len(row) != len(self.header) for row in self.rows):
            found = [len(row) for row in self.rows]
            raise ValueError(f"expected {len(self.header)} cells in every row, found {found}")


Block = Text | Table | Grid | Plot


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: Sequence[Block]


# Only inlined images and this page's own style: a report opened from anywhere never calls anywhere.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
COLOURS = {
    **{"ink": INK, "muted": MUTED, "paper": PAPER},
    **{"dark_ink": DARK_INK, "dark_muted": DARK_MUTED, "dark_paper": DARK_PAPER},
}


def write_report(
    path: Path, title: str, command: str, sections: Sequence[Section], introduction: str = ""
) -> None:
    """Write the page, by the templates in utils/report/templates/.

    Args:
        path: of the .html file; its folder exists.
        title: of the page.
        command: the command line that made these results, shown under the title.
        sections: what to show, in order.
        introduction: a paragraph under the title: what was measured, on what.
    """
    page = _templates().get_template("report.html.j2")
    shown = page.render(
        title=title,
        command=command,
        sections=sections,
        introduction=introduction,
        policy=POLICY,
        colours=COLOURS,
    )
    write_atomically(path, shown.encode())


def _templates() -> Environment:
    """The templates, a file a kind of block; all text is escaped."""
    templates = Environment(
        loader=PackageLoader("utils.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters |= {"tile": _tile, "plot": _plot}
    return templates


def _tile(image: Image.Image) -> str:
    """An image of a grid, inlined."""
    tile = image.convert("RGB")
    tile.thumbnail((LARGEST_TILE, LARGEST_TILE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    tile.save(buffer, "WEBP", lossless=max(tile.size) <= LOSSLESS_UP_TO, quality=90)
    return _data_uri("image/webp", buffer.getvalue())


def _plot(plot: Plot, dark: bool = False) -> str:
    """A plot, inlined, for one of the reader's settings."""
    return _data_uri("image/svg+xml", plot_bytes(plot, "svg", dark))


def _data_uri(media_type: str, data: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"
