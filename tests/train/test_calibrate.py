"""eval_scripts/calibrate.py and `scales: auto`, on a miniature FLUX and a probe that sees brightness."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import TRAIN, Script
from tinyflux.people import ATTRIBUTES
from utils.errors import UserError
from utils.lora.calibration import Calibration, read_calibration
from utils.lora.files import read_metadata, update_metadata
from utils.measure.instruments import Probe


def read(images: torch.Tensor) -> dict[str, torch.Tensor]:
    return {name: images.mean(dim=(1, 2, 3)) / 2 + 0.5 for name in ATTRIBUTES}


@pytest.fixture
def lora(site: Path, script: Script, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A trained LoRA; the probe is brightness, its leak the green channel's movement."""
    monkeypatch.syspath_prepend(str(TRAIN / "eval_scripts"))
    assert script("train_image_script", "--c=mini", "datasets=age", "lr=0.05")[0] == 0
    module = importlib.import_module("calibrate")
    monkeypatch.setattr(module, "face_probe", lambda dataset: Probe(read, torch.flatten, dataset))
    (path,) = Path("output/models").rglob("*2epoch.safetensors")
    return path


def test_a_calibration_is_written_into_the_file_and_read_by_generation(lora: Path, script: Script) -> None:
    weights, metadata = load_file(lora), read_metadata(lora)
    status, _, err = script("calibrate", str(lora), "judge=probe", "--identities=2", "--upto=4")
    assert status == 0, err
    calibration = read_calibration(lora)
    assert (calibration.judge, calibration.identities, calibration.limit) == ("probe", 2, 0.1)
    assert 0 <= calibration.usable <= 4
    after = load_file(lora)
    assert after.keys() == weights.keys()
    assert all(torch.equal(after[key], weights[key]) for key in weights)
    assert {key: value for key, value in read_metadata(lora).items() if key != "calibration"} == metadata
    update_metadata(lora, Calibration(1.5, 2.0, None, None, "probe", 0.1, 1, 2).metadata())
    status, _, err = script("gen_image_script", "--c=mini", "datasets=age", "scales=auto", "count_gen=1")
    assert status == 0, err
    names = sorted(path.name for path in Path("output/eval").rglob("*/skip*.png"))
    scales = ("0.00", "0.30", "0.60", "0.90", "1.20", "1.50")
    assert [name.split("_")[1] for name in names] == [f"scale{scale}.png" for scale in scales]
    status, _, err = script("gen_image_script", "--c=mini", "datasets=age", "scales=auto", "skips=2")
    assert status == 2
    assert "scales: auto: expected the skip" in err
    assert "was calibrated at, 1; found skips [2]" in err


def test_an_exact_slider_is_calibrated_exactly(
    lora: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images whose brightness follows the slider: half the pairs' own change at scale 1."""
    import utils.generation.sweep
    from utils.data.pairs import load_pairs

    pairs = load_pairs(Path("datasets/age/source"), Path("datasets/age/target"), 32, "error")
    change = sum(read(pair.target[None])["age"] - read(pair.source[None])["age"] for pair in pairs).item()
    change /= len(pairs)

    def draw(base, embeds, seeds, skips, scales, config):
        return {skips[0]: {scale: torch.zeros(len(seeds), 3, 32, 32) + scale * change for scale in scales}}

    monkeypatch.setattr(utils.generation.sweep, "sweep_images", draw)
    status, _, err = script("calibrate", str(lora), "judge=probe", "--upto=4", "--limit=1e9")
    assert status == 0, err
    found = read_calibration(lora)
    assert found.pairs_scale == pytest.approx(2 * 0.95, abs=1e-3)
    assert (found.saturates, found.breaks, found.usable) == (None, None, 4.0)
    limit = abs(1.5 * change / 2)  # every other attribute moves as the edited one does
    status, _, err = script("calibrate", str(lora), "judge=probe", "--upto=4", f"--limit={limit}")
    found = read_calibration(lora)
    assert found.breaks == pytest.approx(1.5, abs=1e-3)
    assert found.scales() == [0.0, 0.3, 0.6, 0.9, 1.2, 1.5]


def test_what_cannot_be_calibrated_or_used_is_told(lora: Path, script: Script) -> None:
    status, _, err = script("gen_image_script", "--c=mini", "datasets=age", "scales=auto")
    assert (status, len(err.splitlines())) == (2, 1)
    assert f"expected a calibrated LoRA, found {lora} without" in err
    for arguments, message in {
        ("none.safetensors",): "none.safetensors: expected a LoRA file",
        (
            str(lora.with_suffix(".pt")),
        ): "expected the settings it was trained with in its header, found none",
        (str(lora), "rnak=1"): "unknown key 'rnak'",
        (str(lora), "judge=clip", "clip_weights="): "judge clip: clip: not available: no weights named",
    }.items():
        status, _, err = script("calibrate", *arguments)
        assert status == 2
        assert message in err
    assert script("calibrate", str(lora), "--upto=0")[0] == 2
    with pytest.raises(UserError, match=r"expected a \.safetensors"):
        update_metadata(lora.with_suffix(".pt"), {})
    update_metadata(lora, {"calibration": "{}"})
    with pytest.raises(UserError, match="expected its calibration in the header"):
        read_calibration(lora)


def test_auto_scales_stop_where_the_image_breaks() -> None:
    reached = Calibration(1.0, 0.5, None, 0.5, "probe", 0.1, 14, 16)
    assert reached.scales()[-1] == 0.5
    never = Calibration(None, 2.0, 1.5, None, "probe", 0.1, 14, 16)
    assert never.scales() == [0.0, 0.4, 0.8, 1.2, 1.6, 2.0]
    assert json.loads(never.metadata()["calibration"])["saturates"] == 1.5
