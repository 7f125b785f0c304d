"""The command as it is typed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from PIL import Image

from tests.conftest import TRAIN, Script
from tests.prepare.conftest import PHOTOGRAPH


def test_a_photograph_becomes_a_dataset_and_a_picture(script: Script, site: Path) -> None:
    (site / "photos").mkdir()
    shutil.copy(PHOTOGRAPH, site / "photos")
    arguments = ("photos", "eve", "--crop=face", "--margin=0.3", "--background=person", "--fill=#00ff00")
    words = ("--captioner=fixed", "--prompt=a photo of a girl", "--replace=girl=[trigger],a photo=portrait")
    status, out, _ = script("prepare_script", *arguments, *words, "--sheet=output/eve.png")
    assert status == 0
    assert "astronaut.jpg: 169 x 169: portrait of a [trigger]" in out
    (line,) = map(json.loads, (site / "datasets/eve/metadata.jsonl").read_text().splitlines())
    assert (line["file_name"], line["text"], line["tags"]) == ("astronaut.png", "portrait of a [trigger]", [])
    assert line["prepared"]["image"] == "crop=face margin=0.3 background=person fill=#00ff00 largest=1536"
    image, mask = (
        Image.open(site / f"datasets/eve/{name}") for name in ("astronaut.png", "masks/astronaut.png")
    )
    assert image.size == mask.size
    assert image.getpixel((2, 2)) == (0, 255, 0)
    assert Image.open(site / "output/eve.png").width > 3 * 320


def test_a_drawn_portrait_is_captioned_by_the_probe(script: Script, site: Path) -> None:
    (site / "drawn").mkdir()
    shutil.copy(TRAIN / "datasets/glasses/target/3000010.png", site / "drawn")
    status, out, _ = script("prepare_script", "drawn", "glasses_people", "--captioner=probe")
    assert status == 0
    assert any(word in out for word in ("glasses", "spectacles"))


def test_what_can_not_be_is_refused_in_one_line(script: Script, site: Path) -> None:
    (site / "photos").mkdir()
    shutil.copy(PHOTOGRAPH, site / "photos")
    for arguments, message in (
        (("photos", "eve", "--sheet=datasets/eve/sheet.png"), "--sheet: expected a file outside of"),
        (("photo", "eve"), "photo: expected a folder of images, found none"),
        (("photos", "eve", "--crop=hand"), "--crop: expected one of face, person, found hand"),
    ):
        status, _, error = script("prepare_script", *arguments)
        assert status == 2
        assert message in error
    for wrong in ("--margin=-1", "--again=all", "--replace=girl", "--largest=0"):
        status, _, error = script("prepare_script", "photos", "eve", wrong)
        assert status == 2
        assert "expected" in error
