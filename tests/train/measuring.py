"""Painted images for the measuring scripts of train/eval_scripts, and what the scripts wrote."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from PIL import Image

from utils.config.load import load_config
from utils.config.runs import Run, expand_runs

OUT = Path("output/eval/measures/mini")
OF_IMAGES = ("edit_strength", "preservation", "slider", "distribution")
REFERENCE = ("--reference", "datasets/age/source")

# the painted slider: red and blue of an image at scale s, in bytes; the pairs' red goes from 40 to 200
RED, BLUE, SCALES = 160, 52, (-0.25, 0, 0.5, 1)


def run_of(dataset: str) -> Run:
    (run,) = expand_runs(load_config("mini", [f"datasets={dataset}"], Path("config")))
    return run


def paint(path: Path, colour: tuple[int, ...], size: tuple[int, int] = (32, 32)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def paint_slider(folder: Path, skip: int = 1, scales: tuple[float, ...] = SCALES) -> None:
    """Three identities whose red and blue follow the slider."""
    for seed in range(3):
        for scale in scales:
            colour = (50 + 7 * seed + int(RED * scale), 30 * seed, 100 + int(BLUE * scale))
            paint(folder / f"{seed}/skip{skip}_scale{scale:.2f}.png", colour)


def strict(text: str) -> Any:
    """JSON as the standard has it: Python alone reads NaN and Infinity."""

    def refused(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refused)


def written(name: str, folder: Path = OUT) -> dict[tuple[str, str], dict[str, Any]]:
    """{(measure, scale): row} of one run's files, which agree."""
    rows = strict((folder / f"{name}.json").read_text())["rows"]
    with (folder / f"{name}.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert len(rows) == len(table) > 0
    for row, of_csv in zip(rows, table, strict=True):
        assert all(of_csv[key] == row[key] for key in ("run", "scale", "measure", "note"))
        for key in ("mean", "low", "high"):
            number = row.get(key)
            assert of_csv[key] in ("", "inf", "nan") if number is None else float(of_csv[key]) == number
    found = {(row["measure"], row["scale"]): row for row in rows}
    assert len(found) == len(rows)
    return found


def means(name: str, scale: str) -> dict[str, float | None]:
    """{measure: mean} at a scale, of what has values."""
    rows = written(name).items()
    return {measure: row["mean"] for (measure, at), row in rows if at == scale and "mean" in row}


def cells(printed: str) -> list[dict[str, str]]:
    """The printed table, a dict a row."""
    lines = [line for line in printed.splitlines() if line.startswith("|")]
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return [dict(zip(header, row, strict=True)) for row in rows]


def options(name: str) -> tuple[str, ...]:
    """What the script needs besides a study."""
    return REFERENCE if name == "distribution" else ()
