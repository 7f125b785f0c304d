"""A picture of pairs as they are learned from."""

from collections.abc import Sequence

from PIL import Image

from utils.data.pairs import ImagePair
from utils.data.pixels import to_images
from utils.report.figures import Grid, draw_grid

MOST, TILE = 32, 256  # rows; pixels


def pair_sheet(pairs: Sequence[ImagePair]) -> Image.Image:
    """Draw pairs as they are learned from, a row each, the first 32: source, target, half the difference."""
    shown = pairs[:MOST]
    rows = [
        [to_images(each[None])[0] for each in (pair.source, pair.target, (pair.target - pair.source) / 2)]
        for pair in shown
    ]
    caption = f"{len(shown)} of {len(pairs)} pairs" if len(shown) < len(pairs) else ""
    labels = ["source", "target", "target - source"]
    return draw_grid(Grid(rows, labels, [pair.stem for pair in shown], caption=caption), TILE)
