"""Captioned images as people and other trainers leave them: what is wrong is said at once, and where."""

import codecs
import json
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path

from PIL import Image

from tests.strangers import case
from utils.data.captioned import Captioned, read_captioned
from utils.data.decoding import read_size
from utils.data.pixels import read_rgb
from utils.errors import UserError

SIZES = {"resolution": 64}
COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def picture(path: Path, caption: str | None = None, size: tuple[int, int] = (8, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return path


def said(path: Path, trigger: str = "", defaults: Mapping[str, object] = SIZES) -> str:
    """The one line of what is refused of a dataset."""
    return refused_by(lambda: read_captioned(path, defaults, trigger))


def refused_by(call: Callable[[], object]) -> str:
    """The one line of what a call refuses."""
    try:
        call()
    except UserError as error:
        return str(error)
    raise AssertionError("nothing was refused")


def subset(folder: Path, lines: str, above: str = "") -> Path:
    """A TOML with one subset."""
    path = folder / "d.toml"
    path.write_text(f"[general]\n{above}\n[[datasets]]\n[[datasets.subsets]]\n{lines}\n", encoding="utf-8")
    return path


def metadata(folder: Path, content: object) -> Path:
    """A TOML with one subset, of metadata for folder/images."""
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "meta.json").write_text(text, encoding="utf-8")
    return subset(folder, 'image_dir = "images"\nmetadata_file = "meta.json"')


def images(captioned: Captioned) -> dict[str, str]:
    return {image.path.name: image.caption for each in captioned.datasets for image in each.images}


# --- folders ---


@case("images without caption and captions without image are said in one line, with how many")
def partners(folder: Path) -> None:
    picture(folder / "a.png", "one")
    for number in range(7):
        picture(folder / f"bare{number}.png")
    (folder / "lone.txt").write_text("two")
    line = said(folder)
    assert "expected an image for each caption, found none for lone.txt" in line
    assert "found none for 7 images: bare0.png, bare1.png, bare2.png, bare3.png, bare4.png and 2 more" in line


@case("a folder without images, and one that is not there, are refused")
def empty(folder: Path) -> None:
    (folder / "bob").mkdir()
    assert "found none" in said(folder / "bob")
    assert "(did you mean 'bob'?)" in said(folder / "bobb")


@case("a caption that is not UTF-8 is refused with its byte and line")
def not_utf8(folder: Path) -> None:
    picture(folder / "a.png")
    (folder / "a.txt").write_bytes("one\nun café".encode("latin-1"))
    assert f"{folder / 'a.txt'}: expected UTF-8, found the byte 0xe9 in line 2" in said(folder)
    (folder / "a.txt").write_bytes(codecs.BOM_UTF16_LE + "one".encode("utf-16-le"))
    assert "expected UTF-8, found the byte 0xff in line 1" in said(folder)


@case("an empty caption is refused, as sd-scripts does it")
def blank(folder: Path) -> None:
    picture(folder / "a.png", " \n")
    assert "a.txt: expected a caption, found none in it" in said(folder)


@case("a byte-order mark and line ends of Windows are no part of a caption")
def windows(folder: Path) -> None:
    picture(folder / "a.png")
    (folder / "a.txt").write_bytes(codecs.BOM_UTF8 + b"one\r\n")
    assert images(read_captioned(folder, SIZES)) == {"a.png": "one"}


@case("a caption is found whichever Unicode form its name has, and its image's")
def forms(folder: Path) -> None:
    for stem, other in ((COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)):
        below = folder / str(len(stem))
        picture(below / f"{stem}.png")
        (below / f"{other}.txt").write_text("one")
        (caption,) = images(read_captioned(below, SIZES)).values()
        assert caption == "one"


@case("two captions of one image are refused unless one ending is asked for")
def endings(folder: Path) -> None:
    picture(folder / "images" / "a.png", "tags")
    (folder / "images" / "a.caption").write_text("a sentence")
    assert "expected one caption, found a.caption and a.txt" in said(folder / "images")
    path = subset(folder, f"image_dir = '{folder}/images'\ncaption_extension = '.caption'")
    assert images(read_captioned(path, SIZES)) == {"a.png": "a sentence"}


@case("captions beside images and metadata.jsonl together are refused")
def two_places(folder: Path) -> None:
    picture(folder / "a.png", "one")
    (folder / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "two"}')
    assert "expected captions in one place, found metadata.jsonl and a.txt" in said(folder)


@case("what other tools leave in a folder of images disturbs nothing")
def companions(folder: Path) -> None:
    picture(folder / "a.png", "one")
    for name in ("._a.png", "._b.txt", ".DS_Store", "a.npz", "a_flux.npz", "metadata_cache.json", "a.json"):
        (folder / name).write_bytes(b"\x00\xff")
    assert images(read_captioned(folder, SIZES)) == {"a.png": "one"}


# --- metadata ---


@case("metadata that names missing files says which, and how many of how many")
def missing(folder: Path) -> None:
    picture(folder / "images" / "a.png")
    names = ["a", *(f"gone/{number}.png" for number in range(9))]
    line = said(metadata(folder, {name: {"caption": "x"} for name in names}))
    assert "expected the 10 images that it names" in line
    assert "found 9 of them missing: gone/0.png, gone/1.png" in line
    assert line.endswith("gone/4.png and 4 more")


@case("broken JSON is refused with its line and column")
def broken(folder: Path) -> None:
    picture(folder / "images" / "a.png")
    line = said(metadata(folder, '{\n "a": {"caption": x}\n}'))
    assert "meta.json: expected JSON, found a fault in line 2, column 19: " in line
    (folder / "images" / "metadata.jsonl").write_text(
        '{"file_name": "a.png", "text": "x"}\n\n{"file_name" "b"}\n'
    )
    assert "metadata.jsonl: expected JSON, found a fault in line 3, column 14" in said(folder / "images")


@case("a line of metadata that names no image, or holds an odd value, is refused by its number")
def odd_lines(folder: Path) -> None:
    picture(folder / "a.png")
    rows = [
        {"file": "a.png", "text": "x"},
        {"file_name": "a.png", "text": ["x"]},
        {"file_name": "a.png", "text": "x", "tags": {"b": 1}},
        ["a.png", "x"],
    ]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    line = said(folder)
    assert "line 1: expected file_name or image_path, found file, text" in line
    assert "line 2: caption: expected a text, found a list of 1 value" in line
    assert "line 3: tags: expected a text or a list of texts, found an object" in line
    assert "line 4: expected file_name or image_path, found a list of 2 values" in line


@case("metadata that names an image or a key twice, or without any words, is refused")
def twice(folder: Path) -> None:
    picture(folder / "images" / "a.png")
    picture(folder / "images" / "b.png")
    line = said(metadata(folder, {"a": {"caption": "x"}, "a.png": {"caption": "y"}, "b": {"caption": ""}}))
    assert "expected one image for each name, found a.png (a.png)" in line
    assert "expected a caption or tags for each image, found neither for b" in line
    assert "found a more often" in said(metadata(folder, '{"a": {"caption": "x"}, "a": {"caption": "y"}}'))


@case("metadata with another machine's full paths finds the images by their names")
def moved(folder: Path) -> None:
    picture(folder / "images" / "a.png")
    picture(folder / "images" / "b.png")
    names = (r"C:\train\images\a.png", "/home/somebody/images/b.png")
    found = read_captioned(metadata(folder, {name: {"caption": "x"} for name in names}), SIZES)
    assert images(found) == {"a.png": "x", "b.png": "x"}


@case("images that metadata does not name are said")
def unnamed(folder: Path) -> None:
    picture(folder / "images" / "a.png")
    picture(folder / "images" / "b.png")
    found = read_captioned(metadata(folder, {"a": {"caption": "x"}}), SIZES)
    assert any("does not name b.png" in note for note in found.notes)


@case("the size of a photograph taken upright is that of its pixels, whatever its format")
def upright(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a.jpg", "a.png", "a.webp"):
        Image.new("RGB", (12, 8)).save(folder / name, exif=exif)
        assert read_size(folder / name) == read_rgb(folder / name).size == (8, 12)
