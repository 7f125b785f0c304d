"""Tables of ready-made cells, as Markdown and as LaTeX."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Numbers:
    """A table of ready-made cells, and what is to be said below it."""

    header: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a Markdown table: first column to the left, the others to the right, padded to line up.

    Raises:
        ValueError: a row that is not as long as the header.
    """
    if any(len(row) != len(header) for row in rows):
        raise ValueError(f"expected {len(header)} cells in every row, found {[len(row) for row in rows]}")
    lines = [[cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in (header, *rows)]
    widths = [max(3, *(len(line[i]) for line in lines)) for i in range(len(header))]

    def written(line: list[str]) -> str:
        cells = [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]
        return f"| {' | '.join(cells)} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([written(lines[0]), f"| {' | '.join(rule)} |", *map(written, lines[1:])]) + "\n"


def latex_table(numbers: Numbers) -> str:
    r"""A tabular for LaTeX's booktabs package, all text escaped; first column to the left, others right."""
    lines = [f"{' & '.join(map(escape_latex, row))} \\\\" for row in (numbers.header, *numbers.rows)]
    columns = "l" + "r" * (len(numbers.header) - 1)
    body = [r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"]
    return "\n".join([f"\\begin{{tabular}}{{{columns}}}", *body, "\\end{tabular}\n"])


def escape_latex(text: str) -> str:
    r"""Text that LaTeX sets as it is; [ is braced, for \\ takes one after it as its argument."""
    special: dict[str, str | int | None] = {char: f"\\{char}" for char in "&%$#_{}"}
    special |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "[": "{[}"}
    return text.translate(str.maketrans(special))
