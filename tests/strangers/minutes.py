"""The first minutes: what is installed, and the page that one looks at."""

import re
from pathlib import Path

from PIL import Image

from tests.strangers import case
from utils.machine import REPOSITORY
from utils.report.figures import Grid
from utils.report.page import Section, slider_of_scales, write_report


@case("what everybody installs has neither Ray nor quantization libraries")
def extras(folder: Path) -> None:
    pinned = re.findall(r"^([\w-]+)==", (REPOSITORY / "requirements.txt").read_text(), re.MULTILINE)
    assert "torch" in pinned
    assert not {"ray", "bitsandbytes", "torchao"} & set(pinned)


@case("a page of pictures has them before its numbers, under a slider at the scale nearest to 1")
def pictures_first(folder: Path) -> None:
    row = [Image.new("RGB", (8, 8))] * 4
    slider = slider_of_scales(Grid([row], ["-1", "0", "0.9", "2"], column_axis="slider scale"))
    write_report(folder / "page.html", "edit", "python x", [Section("Pictures", [slider])])
    page = (folder / "page.html").read_text(encoding="utf-8")
    assert page.index('type="range"') < page.index("<pre>")
    assert 'value="2" aria-valuetext="0.9"' in page
