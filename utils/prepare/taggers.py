"""What gives an image tags: WD14 taggers, of the kind that SmilingWolf publishes, by onnxruntime."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from utils.errors import UserError
from utils.hub import model_folder, onnx_session, reason
from utils.prepare.options import Options, Tool
from utils.prepare.words import without_underscores

NETWORK, TABLE = "model.onnx", "selected_tags.csv"
GENERAL, CHARACTER = "0", "4"
"""Categories of the table; the others, of ratings, are no tags."""

Tagger = Callable[[Image.Image], list[str]]
"""An RGB image -> its tags, the surest first."""


class Wd14:
    """A network that reads BGR (1, H, H, 3) in [0, 255] and gives a probability for each row of a table."""

    def __init__(
        self, session: Any, table: list[dict[str, str]], threshold: float, character_threshold: float
    ) -> None:
        """Of an onnxruntime session and the rows of `TABLE`.

        Raises:
            ValueError: the network reads something else, or gives another number of probabilities.
        """
        self._session, self._table = session, table
        self._thresholds = {GENERAL: threshold, CHARACTER: character_threshold}
        first, last = session.get_inputs()[0], session.get_outputs()[0]
        self._name, self._side = first.name, first.shape[1]
        if len(first.shape) != 4 or first.shape[3] != 3 or not isinstance(self._side, int):
            raise ValueError(f"expected a network that reads (1, H, H, 3), found {first.shape}")
        if last.shape[-1] != len(table):
            raise ValueError(f"expected {len(table)} tags, as {TABLE} has, found {last.shape[-1]}")

    def __call__(self, image: Image.Image) -> list[str]:
        """The tags whose probability reaches the threshold of their category.

        Raises:
            UserError: the network gives no probabilities, but logits as a rule.
        """
        side = max(image.size)
        square = Image.new("RGB", (side, side), "white")
        square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        seen = square.resize((self._side, self._side), Image.Resampling.BICUBIC)
        pixels = np.asarray(seen, dtype=np.float32)[None, ..., ::-1]
        (sure,) = self._session.run(None, {self._name: np.ascontiguousarray(pixels)})[0]

        if not 0 <= sure.min() <= sure.max() <= 1:
            raise UserError(
                f"wd14: expected probabilities from {NETWORK}, found {sure.min():.3g} to {sure.max():.3g}"
            )

        found = []
        for index in np.argsort(-sure, kind="stable"):
            row = self._table[index]
            if sure[index] >= self._thresholds.get(row["category"], np.inf):
                found.append(without_underscores(row["name"]))
        return found


def wd14(source: str, options: Options) -> Tagger:
    """A tagger in a folder, or of the hub: its network and the table of its tags."""
    folder = Path(model_folder(source, [TABLE], [NETWORK]))
    for name in (NETWORK, TABLE):
        if not (folder / name).is_file():
            raise OSError(f"no {name} in {folder}")
    try:
        return Wd14(
            onnx_session(folder / NETWORK),
            _read_table(folder / TABLE),
            options.threshold,
            options.character_threshold,
        )
    except ValueError as error:
        raise ValueError(f"{folder}: {reason(error)}") from error


TAGGERS: dict[str, Tool[Tagger]] = {
    "wd14": Tool(
        "a WD14 tagger",
        wd14,
        ("onnxruntime",),
        weights="SmilingWolf/wd-swinv2-tagger-v3",
        setting=f"FOLDER, with {NETWORK} and {TABLE}, or a hub id, such as SmilingWolf/wd-swinv2-tagger-v3 "
        "(Apache-2.0)",
    )
}
"""What `--tagger` may be."""


def _read_table(file: Path) -> list[dict[str, str]]:
    """Its rows, each with a name and a category."""
    with file.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    if not rows or not {"name", "category"} <= rows[0].keys():
        found = ", ".join(rows[0]) if rows else "no rows"
        raise ValueError(f"{TABLE}: expected columns name and category, found {found}")
    return rows
