"""One self-contained web page of results: `write_report` lays out text, tables, image grids and plots.

Images are inlined, nothing is fetched (the page's own policy forbids it), and the only script is that of the
sliders, which the policy knows by its hash; without script all their pictures are shown. It follows the
reader's light or dark setting, and on a phone what is too wide scrolls sideways inside the page.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from utils.files import write_atomically
from utils.report.figures import DARK_INK, DARK_MUTED, DARK_PAPER, INK, MUTED, PAPER, Grid, Plot, plot_bytes

LOSSLESS_UP_TO = 256  # pixels; small tiles (pixel art among them) stay exact, photographs are compressed
LARGEST_TILE = 512
FEW = 60
"""Pictures of a page up to which they are that large; of more, half as large and compressed."""
MOST = 240
"""Pictures of a page's sliders, which keeps it under some 8 MB; `fitting` says how many rows that are."""


@dataclass(frozen=True)
class Text:
    """A paragraph of plain text."""

    text: str


@dataclass(frozen=True)
class Table:
    """A table of ready-made cells; the first column names the row, the others are numbers, or words."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    words: bool = False

    def __post_init__(self) -> None:
        """Refuse rows that would not line up with the header."""
        if any(len(row) != len(self.header) for row in self.rows):
            found = [len(row) for row in self.rows]
            raise ValueError(f"expected {len(self.header)} cells in every row, found {found}")


@dataclass(frozen=True)
class Slider:
    """Large pictures of which a slider shows those of one column: a grid whose columns are positions.

    Attributes:
        grid: a picture a row, which all move together; its columns are labelled, and say what of.
        before, after: pictures to their left and right that stay, one a row, by what they are, such as
            {"original": [...]}.
        first: the column that is shown first.
    """

    grid: Grid
    before: Mapping[str, Sequence[Image.Image]] = field(default_factory=dict)
    after: Mapping[str, Sequence[Image.Image]] = field(default_factory=dict)
    first: int = 0

    def __post_init__(self) -> None:
        """Refuse columns without labels, and pictures beside them that are not one a row."""
        labels, rows = len(self.grid.column_labels), len(self.grid.rows)
        if not 0 <= self.first < labels:
            raise ValueError(f"expected a first column of {labels} labelled ones, found {self.first}")
        for name, pictures in (*self.before.items(), *self.after.items()):
            if len(pictures) != rows:
                raise ValueError(f"expected {rows} pictures of {name}, one a row, found {len(pictures)}")

    @property
    def count(self) -> int:
        """Pictures in it."""
        return len(self.grid.rows) * (len(self.grid.rows[0]) + len(self.before) + len(self.after))


def slider_of_scales(
    grid: Grid,
    before: Mapping[str, Sequence[Image.Image]] | None = None,
    after: Mapping[str, Sequence[Image.Image]] | None = None,
) -> Slider:
    """A slider whose columns are scales, which begins at the one nearest to 1, the edit as it was learned."""
    distances = [abs(float(label) - 1) for label in grid.column_labels]
    return Slider(grid, before or {}, after or {}, distances.index(min(distances)))


def fitting(columns: int) -> int:
    """How many rows of so many pictures a page's sliders have room for, at least one."""
    return max(1, MOST // columns)


Block = Text | Table | Grid | Plot | Slider


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: Sequence[Block]


# Only inlined images, this page's own style and the one script: a report never calls anywhere.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {script}"
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
    sliders = [block for section in sections for block in section.blocks if isinstance(block, Slider)]
    templates = _templates(sum(slider.count for slider in sliders) > FEW)
    script = templates.get_template("slider.js").render() if sliders else ""
    shown = templates.get_template("report.html.j2").render(
        title=title,
        command=command,
        sections=sections,
        introduction=introduction,
        policy=POLICY.format(script=_source_of(script)),
        colours=COLOURS,
        script=script,
    )
    write_atomically(path, shown.encode())


def _source_of(script: str) -> str:
    """What a Content-Security-Policy calls a script that stands in the page."""
    if not script:
        return "'none'"
    return f"'sha256-{base64.b64encode(sha256(script.encode()).digest()).decode('ascii')}'"


def _templates(many: bool) -> Environment:
    """The templates, a file a kind of block; all text is escaped. Of `many` pictures sliders' are smaller."""
    templates = Environment(
        loader=PackageLoader("utils.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    picture = partial(_tile, largest=LARGEST_TILE // 2, lossless_up_to=LOSSLESS_UP_TO // 2) if many else _tile
    templates.filters |= {"tile": _tile, "picture": picture, "plot": _plot}
    return templates


def _tile(image: Image.Image, largest: int = LARGEST_TILE, lossless_up_to: int = LOSSLESS_UP_TO) -> str:
    """An image, inlined, no larger than `largest` pixels."""
    tile = image.convert("RGB")
    tile.thumbnail((largest, largest), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    tile.save(buffer, "WEBP", lossless=max(tile.size) <= lossless_up_to, quality=90)
    return _data_uri("image/webp", buffer.getvalue())


def _plot(plot: Plot, dark: bool = False) -> str:
    """A plot, inlined, for one of the reader's settings."""
    return _data_uri("image/svg+xml", plot_bytes(plot, "svg", dark))


def _data_uri(media_type: str, data: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"
