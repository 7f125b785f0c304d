"""Photographs made into datasets: nothing of anybody's is lost, and what is missing alone is done."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.strangers import case
from utils.data.captioned import read_captioned
from utils.data.pixels import read_rgb
from utils.errors import UserError
from utils.prepare.lines import read_lines
from utils.prepare.options import Options, Tool
from utils.prepare.run import Outcome, prepare_dataset

PEACH = (240, 190, 160)


def photographs(folder: Path, names: str = "a.jpg b.png", size: tuple[int, int] = (96, 72)) -> Options:
    """Photographs in folder/photos, and what makes a dataset of them."""
    (folder / "photos").mkdir(exist_ok=True)
    for name in names.split():
        Image.new("RGB", size, PEACH).save(folder / "photos" / name)
    return Options(folder / "photos", "mine", folder / "datasets", captioner="size")


class Captioners(dict[str, Tool[Callable[[Image.Image], str]]]):
    """One that says an image's size and how often it was called; `breaks_at` some call, Ctrl-C is pressed."""

    def __init__(self, breaks_at: int = 0) -> None:
        def said(image: Image.Image) -> str:
            self.calls += 1
            if self.calls == breaks_at:
                raise KeyboardInterrupt
            return f"{image.width} by {image.height}, no. {self.calls}"

        self.calls = 0
        super().__init__(size=Tool("sizes", lambda source, options: said))


def prepared(
    options: Options, captioners: Captioners | None = None, dry_run: bool = False
) -> tuple[Outcome, list[str]]:
    """What became of it, and what was said."""
    said: list[str] = []
    return prepare_dataset(options, captioners or Captioners(), dry_run, said.append), said


def refused(options: Options) -> str:
    try:
        prepared(options)
    except UserError as error:
        return str(error)
    raise AssertionError("nothing was refused")


def texts(options: Options) -> dict[str, str]:
    return {name: line.value("text") for name, line in read_lines(options.target / "metadata.jsonl").items()}


def edit(options: Options, name: str, **changes: Any) -> None:
    """Change a line as a text editor would."""
    file = options.target / "metadata.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows = [{**row, **changes} if row["file_name"] == name else row for row in rows]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


# --- what comes out ---


@case("what is prepared is read as a captioned dataset, its masks no images of it")
def is_read(folder: Path) -> None:
    options = photographs(folder)
    prepared(options)
    (options.target / "masks").mkdir()
    Image.new("L", (96, 72)).save(options.target / "masks" / "a.png")
    edit(options, "a.png", tags=["one", "two"])
    captioned = read_captioned(options.target, {"resolution": 64})
    found = [(image.path.name, image.caption, image.tags) for image in captioned.datasets[0].images]
    assert found == [("a.png", "96 by 72, no. 1", ("one", "two")), ("b.png", "96 by 72, no. 2", ())]


@case("photographs and what lies beside them are not touched")
def untouched(folder: Path) -> None:
    options = photographs(folder)
    (options.folder / "a.txt").write_text("mine")
    before = {path: path.read_bytes() for path in options.folder.iterdir()}
    prepared(options)
    assert {path: path.read_bytes() for path in options.folder.iterdir()} == before


@case("a photograph taken upright comes out upright, and no larger than asked for")
def upright(folder: Path) -> None:
    options = replace(photographs(folder, ""), largest=100)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (400, 200)).save(options.folder / "a.jpg", exif=exif)
    prepared(options)
    assert read_rgb(options.target / "a.png").size == (50, 100)


@case("what is too small is left out and said, and what is damaged, too, with status 1; the others go on")
def left_out(folder: Path) -> None:
    options = photographs(folder, "a.jpg")
    Image.new("RGB", (90, 20)).save(options.folder / "small.png")
    (options.folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut off")
    outcome, said = prepared(options)
    assert (outcome.images, outcome.left_out, outcome.unreadable, outcome.status) == (1, 1, 1, 1)
    assert any(line == "small.png: left out: 90 x 20, smaller than 64" for line in said)
    assert any("broken.jpg: left out: " in line and "expected a readable image" in line for line in said)
    assert list(texts(options)) == ["a.png"]


@case("a caption beside a photograph is taken over, and never made anew unless that is asked for")
def taken_over(folder: Path) -> None:
    options = photographs(folder)
    (options.folder / "a.txt").write_text("my own\nwords")
    prepared(options)
    assert texts(options) == {"a.png": "my own words", "b.png": "96 by 72, no. 1"}
    prepared(replace(options, again=("captions",)))
    assert texts(options)["a.png"] == "my own words"
    prepared(replace(options, again=("edited",)))
    assert texts(options)["a.png"] == "96 by 72, no. 1"


@case("a dataset prepared once more under another name keeps its captions and tags")
def once_more(folder: Path) -> None:
    options = photographs(folder)
    prepared(options)
    edit(options, "a.png", tags=["one"], text="")
    prepared(replace(options, folder=options.target, name="other", captioner=""))
    lines = read_lines(options.datasets / "other" / "metadata.jsonl").values()
    assert [(line.value("text"), line.value("tags")) for line in lines] == [
        ("", ["one"]),
        ("96 by 72, no. 2", []),
    ]


# --- again ---


@case("prepared again, nothing is done; a new photograph, a lost image and a lost caption are")
def again(folder: Path) -> None:
    options, captioners = photographs(folder), Captioners()
    prepared(options, captioners)
    times = {path: path.stat().st_mtime_ns for path in options.target.glob("*.png")}
    prepared(options, captioners)
    assert captioners.calls == 2
    assert {path: path.stat().st_mtime_ns for path in options.target.glob("*.png")} == times

    photographs(folder, "c.jpg")
    (options.target / "a.png").unlink()
    edit(options, "b.png", text="")
    prepared(options, captioners)
    numbers = {name: text[-1] for name, text in texts(options).items()}
    assert numbers == {"a.png": "1", "b.png": "3", "c.png": "4"}
    assert (options.target / "a.png").is_file()


@case("what somebody has changed stays, captions, tags and keys of their own, unless it is asked for")
def edited(folder: Path) -> None:
    options = photographs(folder)
    prepared(options)
    edit(options, "a.png", text="by hand", rating=5)
    _, said = prepared(replace(options, again=("images", "captions")))
    assert texts(options) == {"a.png": "by hand", "b.png": "96 by 72, no. 1"}
    assert read_lines(options.target / "metadata.jsonl")["a.png"].content["rating"] == 5
    assert "1 caption kept, made by somebody; --again=edited makes them anew" in said
    prepared(replace(options, again=("edited",)))
    assert texts(options)["a.png"].startswith("96 by 72")


@case("a photograph that has changed is prepared anew, its words too, but for those changed by hand")
def changed(folder: Path) -> None:
    options = photographs(folder)
    prepared(options)
    edit(options, "b.png", text="by hand")
    photographs(folder, "a.jpg b.png", size=(128, 72))
    prepared(options)
    assert texts(options) == {"a.png": "128 by 72, no. 1", "b.png": "by hand"}
    assert read_rgb(options.target / "b.png").size == (128, 72)


@case("asked for otherwise, what is there stays and is said, with what makes it anew")
def otherwise(folder: Path) -> None:
    options = photographs(folder)
    prepared(options)
    other = replace(options, largest=80, prompt="what?")
    _, said = prepared(other)
    assert "2 images kept, made by largest=1536; --again=images makes them anew" in said
    assert "2 captions kept, made by captioner=size; --again=captions makes them anew" in said
    prepared(replace(other, again=("images", "captions")))
    assert texts(options) == {"a.png": "80 by 60, no. 1", "b.png": "80 by 60, no. 2"}


@case("stopped by Ctrl-C, all until then is kept, and the same command does the rest")
def stopped(folder: Path) -> None:
    options = photographs(folder, "a.png b.png c.png")
    with pytest.raises(KeyboardInterrupt, match="1 of 3 done; the same command does the rest"):
        prepared(options, Captioners(breaks_at=2))
    assert list(texts(options)) == ["a.png"]
    prepared(options)
    assert texts(options) == {
        "a.png": "96 by 72, no. 1",
        "b.png": "96 by 72, no. 1",
        "c.png": "96 by 72, no. 2",
    }


@case("killed between an image and its line, it is taken for what it is, and for nobody's own")
def killed(folder: Path) -> None:
    options = photographs(folder)
    prepared(options)
    file = options.target / "metadata.jsonl"
    whole = file.read_text()
    file.write_text("")
    _, said = prepared(options)
    assert file.read_text() == whole
    assert not any("kept" in line for line in said)
    file.write_text("")
    prepared(replace(options, largest=80))
    assert read_rgb(options.target / "a.png").size == (80, 60)


@case("what is written into the metadata while images are prepared is kept, of those still to come, too")
def meanwhile(folder: Path) -> None:
    options = photographs(folder, "a.png b.png")
    prepared(options)
    photographs(folder, "c.png")

    def says(image: Image.Image) -> str:
        edit(options, "a.png", text="by hand")
        edit(options, "b.png", text="by hand, too")
        return "made"

    captioners = Captioners()
    captioners["size"] = Tool("", lambda source, options: says)
    prepared(replace(options, again=("captions",)), captioners)
    assert texts(options) == {"a.png": "by hand", "b.png": "by hand, too", "c.png": "made"}


@case("an image that somebody put into the dataset is captioned, not written over")
def own_image(folder: Path) -> None:
    options = photographs(folder, "a.jpg")
    prepared(options)
    Image.new("RGB", (70, 70)).save(options.target / "b.jpg")
    with (options.target / "metadata.jsonl").open("a") as stream:
        stream.write('{"file_name": "b.jpg", "text": ""}\n')
    photographs(folder, "b.png")
    prepared(options)
    assert texts(options) == {"a.png": "96 by 72, no. 1", "b.jpg": "70 by 70, no. 1"}
    assert "b.jpg: expected b.png, as what is made here" in refused(replace(options, again=("images",)))


@case("a dry run says what there is to do, and does nothing")
def dry(folder: Path) -> None:
    options = photographs(folder)
    _, said = prepared(options, dry_run=True)
    assert said == [
        f"2 images in {options.folder}, 0 of them done before",
        *(f"{options.folder / name}: image, caption to do" for name in ("a.jpg", "b.png")),
    ]
    assert not options.datasets.exists()
