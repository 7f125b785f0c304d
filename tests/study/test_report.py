"""utils/study/report.py: every file of a comparison's report, read back."""

from __future__ import annotations

import base64
import csv
import io
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.browser import CHROMIUM, look
from tests.report.test_page import Page
from tests.study.test_tables import LACKING, cell, plan
from utils.report.figures import Plot
from utils.report.tables import Numbers, latex_table
from utils.study.cells import CellResult, identity_seeds
from utils.study.plan import Plan
from utils.study.report import scale_rows, write_study

COMMAND = "python study_script.py --c=study 'datasets=[glasses,age]'"
FAILED = {"age_vmine_v2": "out of memory <3 GiB>"}
PLAN = plan(("glasses", "age"), seeds=2, identities=2, shown=1, first_identity=70, scales=[0.0, 1.0, 2.0])
SEED = identity_seeds(PLAN, "glasses", 1)[0]
NAMES = ["perfect_editor", "idle", "mine"]


def three_methods() -> list[CellResult]:
    """Every cell of PLAN but one: the perfect editor, one that does nothing, and one between."""
    measures = {"leak": torch.tensor([[0.125, 0.5], [0.375, 0.25]]), "ArcFace": LACKING}
    results = []
    for dataset in ("glasses", "age"):
        for seed in (1, 2):
            keys = {"dataset": dataset, "seed": seed, "measures": measures}
            results += [
                cell(NAMES[0], strength=[(0, 1, 2)] * 2, damage=[(0, 0, 0)] * 2, **keys),
                cell(NAMES[1], strength=[(0, 0, 0)] * 2, damage=[(0, 0, 0)] * 2, **keys),
                cell(NAMES[2], **keys),
            ]
    return [result for result in results if result.cell not in FAILED]


def write(
    folder: Path,
    results: list[CellResult] | None = None,
    failed: Mapping[str, str] = FAILED,
    of: Plan = PLAN,
) -> Path:
    """The report of `results` into folder/out, pictures being in folder/cells/CELL."""
    results = three_methods() if results is None else results
    return write_study(
        results,
        failed,
        of,
        folder / "out",
        COMMAND,
        "probe",
        lambda result: folder / "cells" / result.cell,
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the whole report of `three_methods`, with one picture."""
    folder = tmp_path_factory.mktemp("study")
    draw(folder, f"glasses_vmine_v1/images/{SEED}/skip14_scale1.00.png", 90)
    return write(folder).parent


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> dict[str, Plot]:
    """Nothing is drawn, which takes long; gives the plots by the name of their file."""
    plots: dict[str, Plot] = {}
    monkeypatch.setattr("utils.report.page.plot_bytes", lambda *_: b"")
    monkeypatch.setattr("utils.study.report.save_plot", lambda plot, path: plots.__setitem__(path.name, plot))
    return plots


def draw(folder: Path, name: str, colour: int) -> None:
    """A picture that `measure_cell` could have kept."""
    path = folder / "cells" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (colour, 0, 0)).save(path)


def tiles(page: str) -> list[int]:
    """The colours of the page's tiles."""
    found = re.findall(r"image/webp;base64,([^\"]+)", page)
    return [
        Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB").getpixel((4, 4))[0] for data in found
    ]


def parsed(markdown: str) -> list[list[str]]:
    """The rows of the first Markdown table, header first and without the rule."""
    lines = [line for line in markdown.partition("\n\n##")[0].splitlines() if line.startswith("| ")]
    return [[entry.strip() for entry in line.strip("|").split(" | ")] for line in lines]


def test_every_file_is_written(written: Path) -> None:
    plots = {f"curves{name}.{kind}" for name in ("", "_glasses", "_age") for kind in ("png", "svg")}
    names = {"report.html", "table.md", "table.tex", "results.csv", *plots}
    assert {file.name for file in written.iterdir()} == names
    assert Image.open(written / "curves_age.png").width > 1000
    assert "<svg" in (written / "curves.svg").read_text(encoding="utf-8")


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here; `make browser` installs it where apt-get can")
@pytest.mark.parametrize(("width", "dark"), [(1200, False), (360, True)], ids=["desk", "phone, dark"])
def test_chromium_shows_the_page(written: Path, tmp_path: Path, width: int, dark: bool) -> None:
    page = shutil.copy(written / "report.html", tmp_path)
    seen = look(Path(page), width, dark)
    assert seen.console == []
    assert [shown for _, shown in seen.pictures] == [True] * 4  # three plots and the one picture
    assert seen.wide <= width
    assert seen.paper == ("rgb(28, 29, 32)" if dark else "rgb(255, 255, 255)")
    for part in (COMMAND, "Methods compared", *NAMES):
        assert part in seen.text


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here")
def test_what_is_wrong_with_a_page_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(
        '<img alt="lost" src="lost.png"><p style="width: 900px">wide</p><script>missing()</script>'
    )
    seen = look(page, 360)
    assert any("missing is not defined" in line for line in seen.console)
    assert seen.pictures == [("lost", False)]
    assert seen.wide > 900


def test_the_same_results_give_the_same_files(tmp_path: Path, written: Path) -> None:
    draw(tmp_path, f"glasses_vmine_v1/images/{SEED}/skip14_scale1.00.png", 90)
    assert write(tmp_path) == tmp_path / "out/report.html"
    for file in written.iterdir():
        assert file.read_bytes() == (tmp_path / "out" / file.name).read_bytes(), file.name


def test_the_page_holds_everything_and_fetches_nothing(written: Path) -> None:
    page = (written / "report.html").read_text(encoding="utf-8")
    elements = Page(page).elements
    addresses = [
        attrs[key] or "" for _, attrs in elements for key in ("src", "srcset", "href") if key in attrs
    ]
    assert len(addresses) == 1 + 1 + 2 * 3  # icon, the picture, three plots in light and dark
    assert all(address.startswith("data:") for address in addresses)
    assert not re.search("https?:", page)


def test_sections_stand_in_order_with_the_failed_cells_last(written: Path) -> None:
    page = (written / "report.html").read_text(encoding="utf-8")
    assert re.findall("<h2>(.*)</h2>", page) == [
        "All datasets",
        "glasses",
        "age",
        "The methods as sliders",
        "Further measures at strength 75%",
        "Costs",
        "Pictures",
        "Cells that failed",
    ]
    text = Page(page).text
    assert text.rstrip().endswith("age_vmine_v2: out of memory <3 GiB>")
    assert "mine: no result of age, training 2." in text
    assert f"ArcFace: {LACKING}" in text
    assert COMMAND in text


def test_the_introduction_says_what_was_compared(written: Path) -> None:
    text = " ".join(Page((written / "report.html").read_text(encoding="utf-8")).text.split())
    for part in (
        "11 cells measured, 1 failed: 3 methods, 2 trainings of each on each of 2 datasets (glasses, age)",
        "2 generated identities a training at 3 slider scales",
        "as the judge has it: leak into other attributes",
    ):
        assert part in text


def test_without_failures_there_is_no_section_of_them(tmp_path: Path, quick: dict[str, Plot]) -> None:
    assert "Cells that failed" not in write(tmp_path, failed={}).read_text(encoding="utf-8")


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
    table = page[page.index("<table") : page.index("</table>")]
    found = [re.findall("<t[hd][^>]*>([^<]*)</t[hd]>", line) for line in table.split("</tr>")]
    assert [line for line in found if line] == parsed((written / "table.md").read_text(encoding="utf-8"))


def test_the_latex_is_escaped_and_says_what_made_it(written: Path) -> None:
    latex = (written / "table.tex").read_text(encoding="utf-8")
    assert latex.count(f"% made by: {COMMAND}\n\\begin{{tabular}}{{lrrrrrr}}\n\\toprule\n") == 3
    assert "method & cells & 25\\% & 50\\% & 75\\% & 100\\% & reaches \\\\\n\\midrule" in latex
    perfect = " & ".join(["0.000 [0.000, 0.000]"] * 4)
    assert f"perfect\\_editor & 4/4 & {perfect} & 200\\% \\\\" in latex
    assert "% mine: no result of age, training 2.\n" in latex
    shown = [line for line in latex.splitlines() if not line.startswith("%")]
    assert not re.search(r"(?<!\\)[%_#$]", "\n".join(shown))


def test_what_latex_reads_as_a_command_is_escaped() -> None:
    (row,) = [line for line in latex_table(Numbers(["n"], [["a_b & 5% #1 $x"]])).splitlines() if "1" in line]
    assert row == r"a\_b \& 5\% \#1 \$x \\"
    assert "\n{[}0, 1]" in latex_table(Numbers(["n"], [["[0, 1]"]]))
    assert latex_table(Numbers(["a", "b"], [["1", "2"], ["3", "4"]])) == (
        "\\begin{tabular}{lr}\n\\toprule\na & b \\\\\n\\midrule\n1 & 2 \\\\\n3 & 4 \\\\\n"
        "\\bottomrule\n\\end{tabular}\n"
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


def test_pictures_are_the_first_trainings_same_identity_by_method_and_scale(
    tmp_path: Path, quick: dict[str, Plot]
) -> None:
    for colour, scale in enumerate(("0.00", "1.00", "2.00")):
        draw(tmp_path, f"glasses_vperfect_editor_v1/images/{SEED}/skip14_scale{scale}.png", 40 + 40 * colour)
    draw(tmp_path, f"glasses_vmine_v1/images/{SEED}/skip14_scale1.00.png", 200)
    draw(tmp_path, f"glasses_vmine_v1/images/{SEED + 1}/skip14_scale1.00.png", 11)  # not among the shown
    draw(tmp_path, f"glasses_vmine_v1/images/{SEED}/skip20_scale2.00.png", 12)  # of other settings
    draw(tmp_path, f"glasses_vmine_v2/images/{SEED}/skip14_scale1.00.png", 13)  # of another training
    page = write(tmp_path).read_text(encoding="utf-8")
    assert tiles(page) == pytest.approx([40, 80, 120, 200], abs=2)
    alts = [attrs["alt"] for _, attrs in Page(page).elements if "alt" in attrs]
    shown = [(alt or "").replace("\n", " ") for alt in alts if "identity" in (alt or "")]
    assert shown == [
        *(f"perfect_editor identity {SEED}, slider scale {scale}" for scale in (0, 1, 2)),
        f"mine identity {SEED}, slider scale 1",
    ]
    assert page.count('aria-label="not available"') == 2 * 3 * 3 - 4  # datasets, methods, scales


def test_a_method_without_a_cell_keeps_its_row_of_pictures(tmp_path: Path, quick: dict[str, Plot]) -> None:
    results = [result for result in three_methods() if result.cell != "age_vidle_v1"]
    page = write(tmp_path, results).read_text(encoding="utf-8")
    assert page.count('aria-label="not available"') == 2 * 3 * 3


def test_without_pictures_to_show_there_is_no_section_of_them(tmp_path: Path, quick: dict[str, Plot]) -> None:
    of = plan(("glasses", "age"), seeds=2, shown=0)
    assert "Pictures" not in write(tmp_path, of=of).read_text(encoding="utf-8")


def test_a_dataset_without_results_has_no_table(tmp_path: Path, quick: dict[str, Plot]) -> None:
    results = [result for result in three_methods() if result.dataset == "glasses"]
    page = write(tmp_path, results).read_text(encoding="utf-8")
    assert "<h2>age</h2>" not in page
    assert "<h2>glasses</h2>" in page
    assert parsed((tmp_path / "out/table.md").read_text(encoding="utf-8"))[1][1] == "2/4"


def test_curves_start_at_zero_with_bands_for_a_few_methods(tmp_path: Path, quick: dict[str, Plot]) -> None:
    signed = [
        cell(
            f"method{index}",
            scales=(-1, 0, 1),
            strength=[(-9, 0, 0.4), (-9, 0, 0.6)],
            damage=[(9, 0, 0.1), (9, 0, 0.3)],
        )
        for index in range(5)
    ]
    write(tmp_path, signed[:4], of=plan())
    line = quick["curves.png"].series[3]
    assert (line.label, line.x, line.y) == ("method3", pytest.approx([0, 0.5]), pytest.approx([0, 0.2]))
    assert (line.low, line.high) == (pytest.approx([0, 0.1]), pytest.approx([0, 0.3]))
    assert quick["curves.png"].y_label == "leak into other attributes"
    write(tmp_path, signed, of=plan())
    assert len(quick["curves.svg"].series) == 5
    assert {Path(name).stem for name in quick} == {"curves"}  # one dataset is not drawn twice
    assert quick["curves.svg"].series[0].low is None


def test_results_that_don_t_go_together_write_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="same scales"):
        write(tmp_path, [cell(), cell(seed=2, scales=(0, 1, 4))])
    assert not (tmp_path / "out").exists()
