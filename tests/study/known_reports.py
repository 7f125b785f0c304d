"""A comparison of three methods and its report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from PIL import Image

from tests.study.known_cells import LACKING, cell, plan
from utils.study.cells import CellResult, identity_seeds
from utils.study.plan import Plan
from utils.study.report import write_study

COMMAND = "python study_script.py --c=study 'datasets=[glasses,age]'"
FAILED = {"age_vmine_v2": "out of memory <3 GiB>"}
PLAN = plan(("glasses", "age"), seeds=2, identities=2, shown=1, first_identity=70, scales=[0.0, 1.0, 2.0])
SEED = identity_seeds(PLAN, "glasses", 1)[0]
NAMES = ["perfect_editor", "idle", "mine"]


def three_methods() -> list[CellResult]:
    """Every cell of PLAN but one: the perfect editor, one that does nothing, and one between."""
    measures = {"leak": torch.tensor([[0.125, 0.5], [0.375, 0.25]]), "ArcFace": LACKING}
    results = []
    for dataset in ("glasses", "age"):
        for seed in (1, 2):
            keys = {"dataset": dataset, "seed": seed, "measures": measures}
            results += [
                cell(NAMES[0], strength=[(0, 1, 2)] * 2, damage=[(0, 0, 0)] * 2, **keys),
                cell(NAMES[1], strength=[(0, 0, 0)] * 2, damage=[(0, 0, 0)] * 2, **keys),
                cell(NAMES[2], **keys),
            ]
    return [result for result in results if result.cell not in FAILED]


def write(
    folder: Path,
    results: list[CellResult] | None = None,
    failed: Mapping[str, str] = FAILED,
    of: Plan = PLAN,
) -> Path:
    """The report of `results` into folder/out, pictures being in folder/cells/CELL."""
    results = three_methods() if results is None else results
    return write_study(
        results,
        failed,
        of,
        folder / "out",
        COMMAND,
        "probe",
        lambda result: folder / "cells" / result.cell,
    )


def draw(folder: Path, name: str, colour: int) -> None:
    """A picture that `measure_cell` could have kept."""
    path = folder / "cells" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (colour, 0, 0)).save(path)
