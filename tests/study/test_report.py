"""utils/study/report.py: the files of a comparison's report, and its page with pictures and curves."""

from __future__ import annotations

import base64
import io
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.browser import CHROMIUM, look
from tests.report.test_page import Page
from tests.study.known_cells import LACKING, cell, plan
from tests.study.known_reports import COMMAND, NAMES, SEED, draw, three_methods, write
from utils.report.figures import Plot


def tiles(page: str) -> list[int]:
    """The colours of the page's tiles."""
    found = re.findall(r"image/webp;base64,([^\"]+)", page)
    return [
        Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB").getpixel((4, 4))[0] for data in found
    ]


def test_every_file_is_written(written: Path) -> None:
    plots = {f"curves{name}.{kind}" for name in ("", "_glasses", "_age") for kind in ("png", "svg")}
    names = {"report.html", "table.md", "table.tex", "results.csv", "figures.csv", *plots}
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
        "Pictures",
        "All datasets",
        "glasses",
        "age",
        "The methods as sliders",
        "Further measures at strength 75%",
        "Costs",
        "Cells that failed",
    ]
    text = Page(page).text
    assert "age_vmine_v2: out of memory <3 GiB>" in text[text.index("Cells that failed") :]
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
    assert page.count(': not available"') == 2 * 3 * 3 - 4  # datasets, methods, scales


def test_a_method_without_a_cell_keeps_its_row_of_pictures(tmp_path: Path, quick: dict[str, Plot]) -> None:
    results = [result for result in three_methods() if result.cell != "age_vidle_v1"]
    page = write(tmp_path, results).read_text(encoding="utf-8")
    assert page.count(': not available"') == 2 * 3 * 3


def test_without_pictures_to_show_there_is_no_section_of_them(tmp_path: Path, quick: dict[str, Plot]) -> None:
    of = plan(("glasses", "age"), seeds=2, shown=0)
    assert "Pictures" not in write(tmp_path, of=of).read_text(encoding="utf-8")


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
