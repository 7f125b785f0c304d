"""utils/report/page.py: the page holds everything, fetches nothing, and is well formed."""

import base64
import io
import re
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from utils.report.figures import Grid, Plot, Series
from utils.report.page import (
    FEW,
    MOST,
    Section,
    Slider,
    Table,
    Text,
    fitting,
    slider_of_scales,
    write_report,
)

COMMAND = "python eval_scripts/edit_table.py --c=train_image 'prompt=a <b> & c'"
VOID = {"meta", "link", "img", "source", "input"}


class Page(HTMLParser):
    """Elements in order, the text of the page, and whether every element is closed where it should be."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def page(tmp_path: Path) -> str:
    noise = Image.effect_noise((20, 20), 80).convert("RGB")
    grid = Grid([[noise, None]], ["0", "1"], ["seed 7"], "slider scale", "Faces", "As generated.")
    plot = Plot([Series("glasses", [0, 1], [0, 1])], "slider scale", "reading", "Readings", "Mean of 64.")
    table = Table(["edit", "moved"], [["glasses", "96% <90%>"]], "At scale 1.")
    path = tmp_path / "report.html"
    write_report(
        path, "Edits & more", COMMAND, [Section("All", [Text("5 < 6"), table, grid, plot])], "Intro."
    )
    return path.read_text(encoding="utf-8")


def test_everything_stands_on_the_page(page: str) -> None:
    text = Page(page).text
    for part in (COMMAND, "Edits & more", "Intro.", "5 < 6", "96% <90%>", "At scale 1.", "Mean of 64."):
        assert part in text
    for part in ("Faces", "As generated.", "slider scale", "seed 7"):
        assert part in text


def test_nothing_is_fetched_and_nothing_runs(page: str) -> None:
    elements = Page(page).elements
    addresses = [
        attrs[key] or "" for _, attrs in elements for key in ("src", "srcset", "href") if key in attrs
    ]
    assert len(addresses) == 4  # icon, tile, and the plot in light and dark
    assert all(address.startswith("data:") for address in addresses)
    assert not {"script", "iframe", "form"} & {tag for tag, _ in elements}
    assert "url(" not in page
    assert "default-src 'none'" in page


def test_light_dark_and_phone_are_provided_for(page: str) -> None:
    elements = Page(page).elements
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in elements
    assert "@media (prefers-color-scheme: dark)" in page
    dark = [attrs for tag, attrs in elements if tag == "source"]
    assert [attrs["media"] for attrs in dark] == ["(prefers-color-scheme: dark)"]
    wide = [attrs for _, attrs in elements if attrs.get("class") == "scroll"]
    assert len(wide) == 3  # table, grid, plot


def test_every_picture_says_what_it_shows(page: str) -> None:
    elements = Page(page).elements
    assert [attrs["alt"] for tag, attrs in elements if tag == "img"] == ["seed 7, slider scale 0", "Readings"]
    assert [attrs["aria-label"] for _, attrs in elements if attrs.get("class") == "none"] == ["not available"]


def test_small_tiles_are_inlined_without_loss(tmp_path: Path) -> None:
    tile = Image.effect_noise((32, 32), 90).convert("RGB")
    write_report(tmp_path / "r.html", "t", "c", [Section("s", [Grid([[tile]])])])
    (data,) = re.findall(r"image/webp;base64,([^\"]+)", (tmp_path / "r.html").read_text(encoding="utf-8"))
    assert Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB").tobytes() == tile.tobytes()


def test_a_slider_runs_the_one_script_that_the_policy_knows(tmp_path: Path) -> None:
    faces = [[Image.effect_noise((20, 20), spread).convert("RGB") for spread in (10, 40, 90)]]
    grid = Grid(faces, ["-1", "0", "0.8"], ["seed <7>"], "slider scale")
    slider = slider_of_scales(grid, {"was": faces[0][:1]})
    write_report(tmp_path / "r.html", "t", "c", [Section("s", [slider])])
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    elements = Page(page).elements
    (pull,) = [attrs for tag, attrs in elements if tag == "input" and attrs["type"] == "range"]
    assert (pull["min"], pull["max"], pull["value"], pull["aria-valuetext"]) == ("0", "2", "2", "0.8")
    assert pull["data-labels"] == '["-1", "0", "0.8"]'
    alts = [attrs["alt"] for tag, attrs in elements if tag == "img"]
    assert alts == ["seed <7>, was", *(f"seed <7>, slider scale {scale}" for scale in ("-1", "0", "0.8"))]


def test_a_page_of_many_pictures_stays_small(tmp_path: Path) -> None:
    assert fitting(6) * 6 <= MOST
    assert fitting(1000) == 1
    row = [Image.effect_noise((192, 192), 60).convert("RGB")] * 61
    sizes = []
    for count in (FEW, FEW + 1):
        slider = slider_of_scales(Grid([row[:count]], list(map(str, range(count)))))
        write_report(tmp_path / "r.html", "t", "c", [Section("s", [slider])])
        sizes.append((tmp_path / "r.html").stat().st_size)
    assert sizes[1] < sizes[0]  # one more, and smaller


def test_a_slider_that_does_not_line_up_is_refused() -> None:
    face = Image.new("RGB", (8, 8))
    with pytest.raises(ValueError, match="expected a first column of 1 labelled ones, found 1"):
        Slider(Grid([[face]], ["0"]), first=1)
    with pytest.raises(ValueError, match="expected 1 pictures of was, one a row, found 2"):
        Slider(Grid([[face]], ["0"]), {"was": [face, face]})


def test_rows_that_do_not_line_up_are_refused() -> None:
    with pytest.raises(ValueError, match="expected 2 cells in every row, found \\[1\\]"):
        Table(["edit", "moved"], [["glasses"]])
