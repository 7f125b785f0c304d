"""Pictures as cameras, phones and image generators write them, under any name."""

import os
import unicodedata
from pathlib import Path

from PIL import Image

from tests.strangers import case
from utils.config.load import read_settings
from utils.config.runs import expand_real_runs, expand_runs
from utils.config.schema import Config, coerce
from utils.data.pairs import load_pairs
from utils.data.pixels import read_rgb
from utils.errors import UserError
from utils.files import find_images

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
