"""utils/study/report.py: the Markdown, LaTeX and CSV of a comparison's report, read back."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import torch

from tests.study.known_cells import cell
from tests.study.known_reports import COMMAND, three_methods, write
from utils.report.figures import Plot
from utils.report.tables import Numbers, latex_table
from utils.study.report import scale_rows


def parsed(markdown: str) -> list[list[str]]:
    """The rows of the first Markdown table, header first and without the rule."""
    lines = [line for line in markdown.partition("\n\n##")[0].splitlines() if line.startswith("| ")]
    return [[entry.strip() for entry in line.strip("|").split(" | ")] for line in lines]


def test_the_markdown_has_the_extremes_at_both_ends(written: Path) -> None:
    markdown = (written / "table.md").read_text(encoding="utf-8")
    header, perfect, idle, mine = parsed(markdown)
    assert header == ["method", "cells", "25%", "50%", "75%", "100%", "reaches"]
    assert perfect == ["perfect_editor", "4/4", *["0.000 [0.000, 0.000]"] * 4, "200%"]
    assert idle == ["idle", "4/4", *["not reached"] * 4, "0%"]
    assert [entry.partition(" [")[0] for entry in mine] == [
        "mine", "3/4", "0.100", "0.200", "0.300", "0.400", "100%"
    ]  # fmt: skip
    assert markdown.count("| perfect_editor") == 3
    assert "## age" in markdown
    assert markdown.endswith(f"    {COMMAND}\n")


def test_the_page_and_the_markdown_have_the_same_cells(written: Path) -> None:
    page = (written / "report.html").read_text(encoding="utf-8")
    assert page.index('class="slider') < page.index('<table class="data"')  # pictures first
    table = page[page.index("<table") : page.index("</table>")]
    found = [re.findall("<t[hd][^>]*>([^<]*)</t[hd]>", line) for line in table.split("</tr>")]
    assert [line for line in found if line] == parsed((written / "table.md").read_text(encoding="utf-8"))


def test_the_latex_is_escaped_and_says_what_made_it(written: Path) -> None:
    latex = (written / "table.tex").read_text(encoding="utf-8")
    assert latex.startswith("% needs \\usepackage{booktabs} in the preamble\n")
    assert latex.count(f"% made by: {COMMAND}\n\\begin{{table}}[tb]\n\\centering\n\\caption{{Damage (") == 3
    assert latex.count("\\begin{tabular}{lrrrrrr}\n\\toprule\n") == 3
    assert re.findall(r"\\label{(.*)}", latex) == ["tab:all-datasets", "tab:glasses", "tab:age"]
    assert "method & cells & 25\\% & 50\\% & 75\\% & 100\\% & reaches \\\\\n\\midrule" in latex
    perfect = " & ".join(["0.000 [0.000, 0.000]"] * 4)
    assert f"perfect\\_editor & 4/4 & {perfect} & 200\\% \\\\" in latex
    assert "% mine: no result of age, training 2.\n" in latex
    shown = [line for line in latex.splitlines() if not line.startswith("%")]
    assert not re.search(r"(?<!\\)[%_#$]", "\n".join(shown))


def test_what_latex_reads_as_a_command_is_escaped() -> None:
    latex = latex_table(Numbers(["n"], [["a_b & 5% #1 $x"]]), "5% of a_b", "tab:n")
    (row,) = [line for line in latex.splitlines() if "#1" in line]
    assert row == r"a\_b \& 5\% \#1 \$x \\"
    assert "\\caption{5\\% of a\\_b}\n\\label{tab:n}\n" in latex
    assert "\n{[}0, 1]" in latex_table(Numbers(["n"], [["[0, 1]"]]), "", "")
    assert latex_table(Numbers(["a", "b"], [["1", "2"], ["3", "4"]]), "c", "tab:n").endswith(
        "\\begin{tabular}{lr}\n\\toprule\na & b \\\\\n\\midrule\n1 & 2 \\\\\n3 & 4 \\\\\n"
        "\\bottomrule\n\\end{tabular}\n\\end{table}\n"
    )


def test_the_csv_has_a_row_a_cell_and_scale(written: Path) -> None:
    with (written / "results.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 11 * 3
    own = [row for row in rows if (row["label"], row["dataset"], row["seed"]) == ("mine", "glasses", "2")]
    assert [[float(row[key]) for key in ("scale", "strength", "damage")] for row in own] == [
        [0, 0, 0], [1, 0.5, 0.2], [2, 1, 0.4]
    ]  # fmt: skip
    assert [row["leak"] for row in own] == ["", "0.25", "0.375"]
    assert {row["ArcFace"] for row in rows} == {""}


def test_measures_stand_at_their_own_scales_on_both_sides_of_zero() -> None:
    both = cell(scales=(-1, 0, 2), measures={"leak": torch.tensor([[3.0, 4.0]] * 2)})
    header, *rows = scale_rows([both])
    assert [(row[header.index("scale")], row[header.index("leak")]) for row in rows] == [
        ("-1", "3"), ("0", ""), ("2", "4")
    ]  # fmt: skip


def test_a_dataset_without_results_has_no_table(tmp_path: Path, quick: dict[str, Plot]) -> None:
    results = [result for result in three_methods() if result.dataset == "glasses"]
    page = write(tmp_path, results).read_text(encoding="utf-8")
    assert "<h2>age</h2>" not in page
    assert "<h2>glasses</h2>" in page
    assert parsed((tmp_path / "out/table.md").read_text(encoding="utf-8"))[1][1] == "2/4"
