"""The table of edited photographs, on a miniature FLUX and a probe that sees brightness."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.conftest import TRAIN, Script
from tinyflux.people import ATTRIBUTES
from tinyflux.render import render
from utils.config.schema import choices


@pytest.fixture
def table(site: Path, script: Script, monkeypatch: pytest.MonkeyPatch) -> Script:
    """The script on the study `real`, with a trained edit, portraits shrunk to the miniature's size."""
    (site / "config/real.yaml").write_text(
        "base: mini\npython_name: train_image_real\ndevice: cpu\nlr: 0.05\ntrain_iteration: 2\n"
        "save_per_steps: 2\nscales: 0,1\nskips: 1\n"
    )
    assert script("train_image_script", "--c=mini", "datasets=age", "lr=0.05")[0] == 0
    next(Path("output").rglob("*2epoch.safetensors")).rename("edit.safetensors")
    monkeypatch.syspath_prepend(str(TRAIN / "eval_scripts"))

    def small(people: dict) -> torch.Tensor:
        return torch.nn.functional.interpolate(render(people), size=(32, 32), mode="area")

    class Probe:
        def read(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
            return {name: images.mean(dim=(1, 2, 3)) / 2 + 0.5 for name in ATTRIBUTES}

    monkeypatch.setattr("tinyflux.portraits.render", small)
    monkeypatch.setattr("tinyflux.portraits.load_probe", Probe)
    return lambda *arguments: script("real_table", "--c=real", *arguments)


def test_every_inversion_is_measured(table: Script) -> None:
    status, out, err = table("--edit", "age=edit.safetensors", "--portraits=2")
    assert status == 0, err
    written = json.loads(Path("output/eval/real/table.json").read_text())
    assert [(row["inversion"], row["scale"]) for row in written["rows"]] == [
        (name.replace("lora", "lora, difference"), scale)
        for name in choices("inversion")
        for scale in (0.0, 1.0)
    ]
    for at_zero, at_one in zip(written["rows"][::2], written["rows"][1::2], strict=True):
        assert math.isfinite(at_zero["reconstruction_psnr"])
        assert at_zero["reconstruction_psnr"] == at_one["reconstruction_psnr"]
        assert at_zero["edit_psnr"] != at_one["edit_psnr"]
        assert 0 <= at_zero["reconstruction_error"] == at_one["reconstruction_error"] < 1
        assert at_zero["in_place_psnr"] == at_zero["untouched_psnr"] == at_one["untouched_psnr"]
        assert at_one["in_place_psnr"] != at_one["untouched_psnr"]
    assert len(list(Path("output/models/image/portraits").rglob("*2epoch.safetensors"))) == 2
    assert Path("output/eval/real/table.md").read_text().split("\n\n")[0] in out
    assert Image.open("output/eval/real/grid.png").height > 6 * 256


def test_each_inversion_at_its_best(table: Script) -> None:
    real_edits = importlib.import_module("tinyflux.portraits")

    def row(inversion: str, edit: str, skip: int, scale: float, error: float):
        return real_edits.Row(
            inversion, edit, skip, scale, 30.0, 0.01, 20.0, 25.0, 26.0, scale, error, 0.0, 2.0
        )

    rows = [row("euler", edit, 14, 0.0, 0.0) for edit in ("age", "smile")]
    rows += [row("euler", "age", 14, 0.5, 0.02), row("euler", "smile", 14, 0.5, 0.06)]
    rows += [row("euler", "age", 8, 1.0, 0.01), row("euler", "smile", 8, 1.0, 0.09)]
    rows += [row("flowedit", edit, 8, 1.0, 0.03) for edit in ("age", "smile")]
    euler, flowedit = real_edits.at_best(rows)
    assert (euler.inversion, euler.edit, euler.skip, euler.scale) == ("euler", "mean of 2", 14, 0.5)
    assert euler.error == pytest.approx(0.04)
    assert (flowedit.skip, flowedit.moved, flowedit.edit_psnr) == (8, 1.0, 25.0)


def test_a_portraits_lora_is_trained_once(table: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(*more: str) -> list:
        assert table("--edit", "age=edit.safetensors", "--portraits=1", "--inversions=lora", *more)[0] == 0
        return json.loads(Path("output/eval/real/table.json").read_text())["rows"]

    before = measure()
    monkeypatch.setattr("tinyflux.portraits.train_run", None)
    joint = measure("inversion_rule=joint")
    assert [row["inversion"] for row in joint] == ["lora, joint"] * 2
    assert joint[0]["training_seconds"] == before[0]["training_seconds"] > 0


def test_bad_options_are_told(table: Script, loads: list) -> None:
    loads.clear()
    twice = "--edit=age=edit.safetensors"
    for option in ("--edit=age", "--edit=agee=x", "--inversions=eulre", "--portraits=0", twice):
        status, _, err = table("--edit", "age=edit.safetensors", option)
        assert status == 2
        assert "expected" in err
    status, _, err = table("--edit", "age=none.safetensors")
    assert (status, loads) == (2, [])
    assert "--edit age: expected a LoRA file, found none at none.safetensors" in err
    assert "expected at least one" in table()[2]


def test_a_dry_run_loads_nothing(table: Script, loads: list) -> None:
    loads.clear()
    status, out, _ = table("--edit", "age=edit.safetensors", "--dry-run")
    assert (status, loads) == (0, [])
    assert "flowslider x age" in out
