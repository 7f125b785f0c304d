"""Preparations that would lose or mix up something, or can't be done: refused before anything is written."""

from dataclasses import replace
from pathlib import Path

from filelock import FileLock
from PIL import Image

from tests.strangers import case
from tests.strangers.prepared import photographs, prepared, refused


@case("a folder that is no dataset of this kind is not written to, nor that of the photographs")
def not_ours(folder: Path) -> None:
    options = photographs(folder)
    (options.target / "source").mkdir(parents=True)
    assert "expected a new folder, or one with metadata.jsonl, found source" in refused(options)
    own = replace(options, datasets=folder, name="photos")
    assert "expected another folder than that of the photographs, found the same" in refused(own)
    assert "expected a name for a folder" in refused(replace(options, name="../mine"))


@case("two photographs of one name from two folders are refused, not mixed up")
def mixed_up(folder: Path) -> None:
    options = photographs(folder)
    prepared(options)
    (folder / "other").mkdir()
    Image.new("RGB", (80, 80), "blue").save(folder / "other" / "a.jpg")
    assert f"expected it of {folder / 'other' / 'a.jpg'}, found it of {options.folder / 'a.jpg'}" in refused(
        replace(options, folder=folder / "other")
    )
    (folder / "photos").rename(folder / "moved")
    prepared(replace(options, folder=folder / "moved"))  # the same photographs elsewhere


@case("metadata that an editor has broken, or that name an image twice, are refused with their line")
def broken(folder: Path) -> None:
    options = photographs(folder)
    prepared(options)
    file = options.target / "metadata.jsonl"
    good = file.read_text()
    file.write_text(good + '{"file_name": "c.png", "text": oops}\n')
    assert "expected JSON, found a fault in line 3" in refused(options)
    file.write_text(good + good)
    assert "expected a line for each image, found more for a.png, b.png" in refused(options)


@case("what nothing of the name does is refused with the names that there are")
def unknown(folder: Path) -> None:
    options = photographs(folder)
    assert "--captioner: expected one of size, found sise (did you mean 'size'?)" in refused(
        replace(options, captioner="sise")
    )
    assert "--crop: expected one of face, person, found faces" in refused(replace(options, crop="faces"))
    assert "--fill: expected a colour" in refused(replace(options, fill="whitish"))


@case("a dataset that another process prepares is left to it")
def two_at_once(folder: Path) -> None:
    options = photographs(folder)
    prepared(options)
    with FileLock(options.target / ".prepare.lock"):
        assert "expected it free, found another process preparing it" in refused(options)
