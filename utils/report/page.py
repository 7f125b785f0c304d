"""One self-contained web page of results: `write_report` lays out text, tables, image grids and plots.

Images are inlined, nothing is fetched (the page's own policy forbids it), there is no script; it follows the
reader's light or dark setting, and on a phone what is too wide scrolls sideways inside the page.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from PIL import Image

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


STYLE = f"""
:root {{ color-scheme: light dark; --ink: {INK}; --muted: {MUTED}; --paper: {PAPER}; --rule: #e3e3e6;
  --panel: #f6f6f8; }}
@media (prefers-color-scheme: dark) {{ :root {{ --ink: {DARK_INK}; --muted: {DARK_MUTED};
  --paper: {DARK_PAPER}; --rule: #3a3b40; --panel: #26272b; }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0 auto; max-width: 68rem; padding: 3rem 1.25rem 5rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.6 system-ui, sans-serif; overflow-wrap: break-word; }}
h1 {{ font-size: 2rem; line-height: 1.2; margin: 0 0 .75rem; }}
h2 {{ font-size: 1.35rem; line-height: 1.3; margin: 3.5rem 0 1rem; }}
p {{ max-width: 42rem; margin: 0 0 1rem; }}
pre {{ margin: 1.5rem 0; padding: .9rem 1.1rem; border-radius: .5rem; background: var(--panel);
  white-space: pre-wrap; overflow-wrap: anywhere; font: .9rem/1.5 ui-monospace, monospace; }}
.made {{ color: var(--muted); margin: 2rem 0 -.9rem; font-size: .9rem; }}
figure {{ margin: 1.75rem 0; }}
figcaption {{ color: var(--muted); font-size: .9rem; max-width: 42rem; margin-top: .75rem; }}
figure h3 {{ font-size: 1rem; margin: 0 0 .75rem; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
.data th, .data td {{ padding: .45rem .65rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--rule); }}
.data th:first-child, .data td:first-child {{ text-align: left; padding-left: 0; }}
.data thead th {{ color: var(--muted); font-weight: 500; font-size: .9rem; }}
.data tbody th {{ font-weight: 600; }}
.grid th {{ font-weight: 500; font-size: .9rem; padding: .2rem .4rem; }}
.grid .axis {{ color: var(--muted); font-weight: 400; }}
.grid tbody th {{ text-align: left; padding: 0 1rem 0 0; min-width: 5.5rem; max-width: 11rem;
  overflow-wrap: anywhere; position: sticky; left: 0; background: var(--paper); }}
.grid td {{ padding: .15rem; }}
.grid img, .none {{ display: block; width: 8.5rem; aspect-ratio: 1; object-fit: contain;
  border-radius: .25rem; }}
.none {{ background: var(--panel); }}
.plot {{ display: block; width: 100%; min-width: 30rem; max-width: 46rem; height: auto; }}
@media (max-width: 40rem) {{ body {{ padding-top: 1.75rem; }} .grid img, .none {{ width: 6rem; }}
  .grid tbody th {{ max-width: 5.5rem; padding-right: .5rem; }} }}
"""

# Only inlined images and this page's own style: a report opened from anywhere never calls anywhere.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_report(
    path: Path, title: str, command: str, sections: Sequence[Section], introduction: str = ""
) -> None:
    """Write the page.

    Args:
        path: of the .html file; its folder exists.
        title: of the page.
        command: the command line that made these results, shown under the title.
        sections: what to show, in order.
        introduction: a paragraph under the title: what was measured, on what.
    """
    body = "\n".join(
        f"<section>\n<h2>{escape(section.title)}</h2>\n{''.join(map(_block, section.blocks))}</section>"
        for section in sections
    )
    page = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
{_block(Text(introduction)) if introduction else ""}
<p class="made">Made by</p>
<pre><code>{escape(command)}</code></pre>
{body}
</body>
</html>
"""
    path.write_text(page, encoding="utf-8")


def _block(block: Block) -> str:
    match block:
        case Text():
            return f"<p>{escape(block.text)}</p>\n"
        case Table():
            return _figure(_table(block), "", block.caption)
        case Grid():
            return _figure(_grid(block), block.title, block.caption)
        case Plot():
            return _figure(_plot(block), "", block.caption)


def _figure(content: str, title: str, caption: str) -> str:
    heading = f"<h3>{escape(title)}</h3>\n" if title else ""
    below = f"<figcaption>{escape(caption)}</figcaption>\n" if caption else ""
    return f"<figure>\n{heading}{content}{below}</figure>\n"


def _table(table: Table) -> str:
    rows = [(_th(row[0], "row"), *(f"<td>{escape(cell)}</td>" for cell in row[1:])) for row in table.rows]
    return _scrolling("data", [[_th(cell, "col") for cell in table.header]], rows)


def _grid(grid: Grid) -> str:
    height, width = len(grid.rows), len(grid.rows[0])
    columns = grid.column_labels or [f"column {i + 1}" for i in range(width)]
    names = grid.row_labels or [f"row {i + 1}" for i in range(height)]
    corner = ["<td></td>"] if grid.row_labels else []
    head = []
    if grid.column_axis:
        axis = f'<th class="axis" scope="colgroup" colspan="{width}">{escape(grid.column_axis)}</th>'
        head.append([*corner, axis])
    if grid.column_labels:
        head.append([*corner, *(_th(label, "col") for label in columns)])
    rows = [
        [
            *([_th(name, "row")] if grid.row_labels else []),
            *(
                f"<td>{_tile(image, f'{name}, {grid.column_axis} {column}')}</td>"
                for image, column in zip(images, columns, strict=True)
            ),
        ]
        for name, images in zip(names, grid.rows, strict=True)
    ]
    return _scrolling("grid", head, rows)


def _th(label: str, scope: str) -> str:
    return f'<th scope="{scope}">{escape(label)}</th>'


def _scrolling(kind: str, head: Sequence[Sequence[str]], body: Sequence[Sequence[str]]) -> str:
    """A table of finished cells that scrolls inside the page when it is wider (by keyboard too)."""
    above, below = ("".join(f"<tr>{''.join(row)}</tr>\n" for row in part) for part in (head, body))
    table = f'<table class="{kind}">\n<thead>{above}</thead>\n<tbody>\n{below}</tbody></table>'
    return f'<div class="scroll" tabindex="0">{table}</div>\n'


def _tile(image: Image.Image | None, alt: str) -> str:
    if image is None:
        return '<div class="none" role="img" aria-label="not available"></div>'
    tile = image.convert("RGB")
    tile.thumbnail((LARGEST_TILE, LARGEST_TILE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    tile.save(buffer, "WEBP", lossless=max(tile.size) <= LOSSLESS_UP_TO, quality=90)
    return f'<img alt="{escape(alt)}" src="{_data_uri("image/webp", buffer.getvalue())}">'


def _plot(plot: Plot) -> str:
    light, dark = (_data_uri("image/svg+xml", plot_bytes(plot, "svg", dark)) for dark in (False, True))
    alt = escape(plot.title or f"{plot.y_label} against {plot.x_label}")
    return (
        '<div class="scroll" tabindex="0"><picture>'
        f'<source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img class="plot" alt="{alt}" src="{light}"></picture></div>\n'
    )


def _data_uri(media_type: str, data: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"
