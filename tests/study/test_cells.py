"""utils/study/cells.py: a cell's result written and read back; whose identities are whose."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch

from tests.study.known_cells import cell, plan
from utils.study.cells import CellResult, identity_seeds


def test_a_result_is_read_back_as_it_was(tmp_path: Path) -> None:
    psnr = torch.tensor([[math.inf, 20.0], [12.5, -math.inf]], dtype=torch.float64)
    result = cell(
        measures={"PSNR": psnr, "ArcFace": "not available"}, delta_smooth=torch.tensor([0.5, math.inf])
    )
    result.save(tmp_path / "measured.json")
    found = CellResult.load(tmp_path / "measured.json")
    assert found.measures["PSNR"].equal(psnr)
    assert found.delta_smooth.tolist() == [0.5, math.inf]
    for name, value in vars(result).items():
        if name not in ("measures", "delta_smooth"):
            read = getattr(found, name)
            assert read.equal(value) if isinstance(value, torch.Tensor) else read == value, name
    assert found.measures["ArcFace"] == "not available"
    assert [file.name for file in tmp_path.iterdir()] == ["measured.json"]


def test_a_result_is_json_that_every_reader_takes(tmp_path: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    cell(measures={"PSNR": torch.full((2, 2), math.inf)}).save(tmp_path / "measured.json")
    json.loads((tmp_path / "measured.json").read_text(encoding="utf-8"), parse_constant=refuse)


def test_identities_differ_between_datasets_and_trainings_but_not_methods() -> None:
    of = plan(("glasses", "age"), seeds=3, identities=16)
    ranges = [set(identity_seeds(of, dataset, seed)) for dataset in of.datasets for seed in (1, 2, 3)]
    assert [len(one) for one in ranges] == [16] * 6
    assert len(set().union(*ranges)) == 6 * 16
