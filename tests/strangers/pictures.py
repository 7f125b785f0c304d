"""Pictures as cameras, phones and image generators write them."""

from pathlib import Path

from PIL import Image

from tests.strangers import case
from utils.data.pixels import read_rgb


@case("a .jfif is read")
def jfif(folder: Path) -> None:
    Image.new("RGB", (8, 8), (200, 40, 90)).save(folder / "a.jfif", format="JPEG", quality=100)
    assert read_rgb(folder / "a.jfif").size == (8, 8)
