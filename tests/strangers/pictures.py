"""Pictures as cameras, phones and image generators write them, under any name."""

import os
import unicodedata
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.strangers import case
from utils.config.load import read_settings
from utils.config.runs import expand_real_runs, expand_runs
from utils.config.schema import Config, coerce
from utils.data.pair_checks import in_words, look_at
from utils.data.pairs import load_pairs
from utils.data.photos import load_photo
from utils.data.pixels import read_rgb
from utils.errors import UserError
from utils.files import find_images
from utils.machine import REPOSITORY

COLOUR = (200, 40, 90)
COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def picture(path: Path, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), COLOUR).save(path, **options)
    return path


def said(function: object, *args: object) -> str:
    """The one line of what a call refuses."""
    try:
        function(*args)  # type: ignore[operator]
    except (UserError, ValueError) as error:
        return str(error)
    raise AssertionError("nothing was refused")


@case("a .jfif is read")
def jfif(folder: Path) -> None:
    assert read_rgb(picture(folder / "a.jfif", format="JPEG", quality=100)).size == (8, 8)


@case("a PNG whose text has a wrong checksum is read")
def checksum(folder: Path) -> None:
    texts = PngInfo()
    texts.add_text("prompt", "a photo")
    path = picture(folder / "a.png", pnginfo=texts)
    path.write_bytes(path.read_bytes().replace(b"a photo", b"a phots"))
    assert read_rgb(path).getpixel((3, 3)) == COLOUR


@case("a PNG with over 1 MiB of packed text is read")
def long_text(folder: Path) -> None:
    texts = PngInfo()
    texts.add_text("workflow", "x" * (2 * 2**20), zip=True)
    assert read_rgb(picture(folder / "a.png", pnginfo=texts)).getpixel((3, 3)) == COLOUR


@case("an HEIC called .jpg is read, or said to need the extra heic")
def heic(folder: Path) -> None:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        (folder / "a.jpg").write_bytes(b"\0\0\0\x18ftypheic" + bytes(12))
        assert ".[heic]" in said(read_rgb, folder / "a.jpg")
        return
    register_heif_opener()
    assert read_rgb(picture(folder / "a.jpg", format="HEIF")).size == (8, 8)


@case("the edited square of a wide photograph ends in no edge")
def feathered(folder: Path) -> None:
    Image.new("RGB", (96, 64), (80, 80, 80)).save(folder / "a.png")
    photo = load_photo(folder / "a.png", 64, "center_crop")
    flat = torch.zeros(3, 64, 64)
    row = np.asarray(photo.with_change(flat, flat + 20 / 127.5))[32, :, 0].astype(int)
    assert np.abs(np.diff(row)).max() <= 4


@case("a target shifted by (5, 9) pixels is said, and moved back by align=shift")
def shifted(folder: Path) -> None:
    shipped = REPOSITORY / "train" / "datasets" / "glasses"
    for side, shift in (("source", (0, 0)), ("target", (5, 9))):
        path = shipped / side / "3000010.png"
        (folder / side).mkdir()
        Image.fromarray(np.roll(np.asarray(Image.open(path)), shift, (0, 1))).save(folder / side / "a.png")
    pairs = load_pairs(folder / "source", folder / "target", 128)
    assert "5 pixels down and 9 pixels right" in in_words("mine", *look_at(pairs))[1]
    (aligned,) = load_pairs(folder / "source", folder / "target", 128, align="shift")
    (right,) = load_pairs(shipped / "source", shipped / "target", 128, count=1)
    assert torch.equal(aligned.target[:, :123, :119], right.target[:, :123, :119])


# --- names ---


@case("a source in composed and a target in decomposed Unicode are a pair")
def forms_of_a_pair(folder: Path) -> None:
    picture(folder / "source" / f"{COMPOSED}.png")
    picture(folder / "target" / f"{DECOMPOSED}.png")
    assert [pair.stem for pair in load_pairs(folder / "source", folder / "target", 8)] == [COMPOSED]


@case("a dataset and a photograph are found by either Unicode form, and their runs are one")
def forms_of_a_dataset(folder: Path) -> None:
    for lies, given in ((COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)):
        picture(folder / lies / lies / "source" / f"{lies}.png")
        config = read_settings({"": {"datasets_folder": str(folder / lies), "datasets": [given]}})
        (run,) = expand_runs(config)
        assert list(find_images(run.source_folder)) == [COMPOSED]
        assert run.name.startswith(COMPOSED)
        (photo,) = expand_real_runs(Config(**vars(config) | {"image_ids": [given]}))
        assert photo.photograph.is_file()


@case("a run whose folder has the other Unicode form is found")
def forms_of_a_run(folder: Path) -> None:
    (run,) = expand_runs(read_settings({"": {"output_folder": str(folder), "datasets": [COMPOSED]}}))
    old = folder / DECOMPOSED / unicodedata.normalize("NFD", run.name)
    old.mkdir(parents=True)
    weights = old / unicodedata.normalize("NFD", run.weights_path().name)
    weights.write_bytes(b"")
    assert run.weights_path() == weights


@case("two images whose names differ in Unicode form alone are refused, both named")
def forms_twice(folder: Path) -> None:
    for stem in (COMPOSED, DECOMPOSED):
        picture(folder / f"{stem}.png")
    assert "expected one image a stem" in said(find_images, folder)


@case("an image whose name is not UTF-8 is refused before anything is loaded")
def not_utf8(folder: Path) -> None:
    picture(folder / "a.png").rename(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.png"))
    assert "expected names in UTF-8, found caf\\udce9.png" in said(find_images, folder)


@case("a value that is not UTF-8 is refused, of names, paths and prompts")
def value_not_utf8(folder: Path) -> None:
    text = os.fsdecode(b"caf\xe9")
    for key in ("datasets", "output_folder", "config_name", "prompt", "trained_lora_path", "image_ids"):
        assert said(coerce, key, text).startswith("expected text in UTF-8, found ")
