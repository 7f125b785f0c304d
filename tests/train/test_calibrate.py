"""eval_scripts/calibrate.py and `scales: auto`, on a miniature FLUX and a probe that sees brightness."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import MINI_SEQUENCE_LENGTH, TRAIN, Script
from tinyflux.people import ATTRIBUTES
from utils.config.load import load_config
from utils.config.runs import expand_runs
from utils.errors import UserError
from utils.lora.calibration import Calibration, read_calibration, with_scales
from utils.lora.files import read_metadata, update_metadata
from utils.measure.instruments import Probe
from utils.models.base import Base


def read(images: torch.Tensor) -> dict[str, torch.Tensor]:
    return {name: images.mean(dim=(1, 2, 3)) / 2 + 0.5 for name in ATTRIBUTES}


@pytest.fixture
def lora(site: Path, script: Script, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A trained LoRA; the probe is brightness, its leak the green channel's movement."""
    monkeypatch.syspath_prepend(str(TRAIN / "eval_scripts"))
    assert script("train_image_script", "--c=mini", "datasets=age", "lr=0.05", "calibrate=0")[0] == 0
    module = importlib.import_module("calibrate")
    monkeypatch.setattr(module, "face_probe", lambda dataset: Probe(read, torch.flatten, dataset))
    (path,) = Path("output/models").rglob("*2epoch.safetensors")
    return path


def test_a_calibration_is_written_into_the_file_and_read_by_generation(lora: Path, script: Script) -> None:
    weights, metadata = load_file(lora), read_metadata(lora)
    status, out, err = script("calibrate", str(lora), "judge=probe", "--identities=2", "--upto=4")
    assert status == 0, err
    (run,) = expand_runs(load_config("mini", ["datasets=age"], Path("config")))
    assert f"--c=train_image base={run.config.base} 'datasets=[age]'" in out
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
    status, out, _ = script("gen_image_script", "--c=mini", "datasets=age", "scales=auto", "skips=2")
    assert status == 0
    assert "calibrated at skip 1, which says nothing of skips [2]" in out
    assert sorted(path.name for path in Path("output/eval").rglob("*/skip2*.png"))[-1].endswith(
        "scale1.00.png"
    )


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
    assert found.pairs_scale == pytest.approx(2 * 0.9, abs=1e-3)
    assert (found.saturates, found.breaks, found.usable) == (None, None, 4.0)
    limit = abs(1.5 * change / 2)  # every other attribute moves as the edited one does
    status, _, err = script("calibrate", str(lora), "judge=probe", "--upto=4", f"--limit={limit}")
    found = read_calibration(lora)
    assert found.breaks == pytest.approx(1.5, abs=1e-3)
    assert found.scales() == [0.0, 0.3, 0.6, 0.9, 1.2, 1.5]


def test_what_cannot_be_calibrated_or_used_is_told(lora: Path, script: Script) -> None:
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
    assert "found 900000 images; --yes" in script("calibrate", str(lora), "--identities=100000")[2]
    with pytest.raises(UserError, match=r"expected a \.safetensors"):
        update_metadata(lora.with_suffix(".pt"), {})
    for settings in ("[1]", "[" * 100_000):
        update_metadata(lora, {"config": settings})
        status, _, err = script("calibrate", str(lora))
        assert (status, len(err.splitlines())) == (2, 1)
        assert "in its header" in err or "as its header's settings" in err
    update_metadata(lora, {"calibration": "{}"})
    with pytest.raises(UserError, match="expected its calibration in the header"):
        read_calibration(lora)


def test_training_ends_with_a_calibration(site: Path, script: Script) -> None:
    shutil.copytree("datasets/age", "datasets/dragon")
    arguments = ("--c=mini", "datasets=age,dragon", "lr=0.05")
    status, out, err = script("train_image_script", *arguments, "calibrate=2", "judge=pairs")
    assert status == 0, err
    assert out.count("slider: ") == 2
    for path in Path("output/models").rglob("*2epoch.safetensors"):
        found = read_calibration(path)
        assert found is not None
        assert (found.judge, found.identities, found.skip) == ("pairs", 2, 1)
        assert f"slider: {found.in_words()}" in out
    assert script("train_image_script", *arguments, "calibrate=2")[1].count("trained before") == 2
    status, out, _ = script("train_image_script", *arguments, "lr=0.04", "calibrate=1", "judge=clip")
    assert status == 0
    assert out.count("clip: not available") == 2  # and the pairs judge in its place


def test_pairs_that_are_alike_leave_the_training_done(site: Path, script: Script) -> None:
    shutil.copytree("datasets/age", "datasets/same")
    shutil.rmtree("datasets/same/target")
    shutil.copytree("datasets/same/source", "datasets/same/target")
    status, out, err = script("train_image_script", "--c=mini", "datasets=same", "calibrate=2", "judge=pairs")
    assert status == 0, err
    assert "slider: not calibrated; pairs: expected a difference, found none that the base tells apart" in out
    (path,) = Path("output/models").rglob("*2epoch.safetensors")
    assert read_calibration(path) is None
    out = script("train_image_script", "--c=mini", "datasets=same", "calibrate=2", "judge=pairs")[1]
    assert f"its slider was not calibrated, which this does: python eval_scripts/calibrate.py {path}" in out
    out = script("train_image_script", "--c=mini", "datasets=same", "calibrate=0")[1]
    assert "calibrated" not in out


def test_scales_of_a_single_lora_are_scales(lora: Path) -> None:
    overrides = ["datasets=age", "scales=auto", "lora_scales=[[0,1.5]]"]
    (run,) = expand_runs(load_config("mini", overrides, Path("config")))
    config = with_scales(run, [lora]).config
    assert (config.scales, config.lora_scales) == ([0.0, 1.5], [])


def test_a_dry_run_misses_the_prompts_of_the_calibration(site: Path, script: Script) -> None:
    arguments = ("--c=mini", "datasets=age", "use_prompts_file=1", "prompts_file=nowhere", "--dry-run")
    status, out, _ = script("train_image_script", *arguments, "calibrate=2")
    assert status == 0
    assert "missing: prompts_file 'nowhere'" in out
    assert "missing" not in script("train_image_script", *arguments, "calibrate=0")[1]


def test_judges_are_compared_at_scales_in_any_order(
    lora: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("judges")
    monkeypatch.setattr(module, "face_probe", lambda dataset: Probe(dict, torch.Tensor, dataset))
    monkeypatch.setattr(module, "instruments_of", lambda *_: None)
    monkeypatch.setattr(module, "drawn_at", lambda *arguments: arguments[-1])
    monkeypatch.setattr(module, "_by_judge", lambda run, _, scales: [torch.tensor([scales])] * 2)
    arguments = ("--c=mini", "datasets=age", "lr=0.05", "--scales=1,0,0.5,1", "--out=compared")
    status, _, err = script("judges", *arguments)
    assert status == 0, err
    (row,) = json.loads(Path("compared/judges.json").read_text())["rows"]
    assert row["scale by the probe"] == pytest.approx(0.9)
    assert row["scale by the pairs"] == pytest.approx(0.75)
    assert row["Spearman"] == pytest.approx(1, abs=1e-4)


def test_a_calibration_goes_on_until_the_slider_gets_there(
    lora: Path, mini_flux_loaded: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strength is a quarter of the scale: looked at up to 4 and no further."""
    import utils.generation.sweep
    from utils.jobs.calibrate import calibrate
    from utils.measure.judges import Judge

    asked = []

    class Slow(Judge):
        kind, reads, damages = "pairs", "", ""
        limit = 1.0

        @classmethod
        def of(cls, instruments, pairs):
            return cls()

        def strength(self, before, after):
            return (after - before).mean(dim=(1, 2, 3)) / 4

        def damage(self, before, after):
            return torch.zeros(len(before))

    def draw(base, embeds, seeds, skips, scales, config):
        asked.append(scales)
        return {skips[0]: {scale: torch.zeros(len(seeds), 3, 32, 32) + scale for scale in scales}}

    monkeypatch.setattr(utils.generation.sweep, "sweep_images", draw)
    (run,) = expand_runs(load_config("mini", ["datasets=age"], Path("config")))
    embeds = {"a cat": mini_flux_loaded.encode_prompts(["a cat"], MINI_SEQUENCE_LENGTH)}
    found = calibrate(run, lora, mini_flux_loaded, embeds, Slow(), 2)
    assert [scales[-1] for scales in asked] == [1.0, 2.0, 4.0]
    assert found.pairs_scale == pytest.approx(3.6)
    assert found.scales() == pytest.approx([0, 0.8, 1.6, 2.4, 3.2, 4.0])


@pytest.mark.parametrize(
    ("pairs_scale", "usable", "last"),
    [
        (0.97, 2, 1),
        (0.93, 2, 1),
        (0.93, 0.95, 0.75),
        (None, 1, 1),
        (1.9, 4, 2),
        (0.31, 1, 0.3),
        (7.1, 8, 7.5),
    ],
)
def test_auto_scales_are_round(pairs_scale: float | None, usable: float, last: float) -> None:
    scales = Calibration(pairs_scale, usable, None, None, "pairs", 0.7, 14, 4).scales()
    assert (scales[0], len(scales)) == (0, 6)
    assert scales[-1] == pytest.approx(last)
    assert all(len(f"{scale:g}") <= 4 for scale in scales)


def test_auto_scales_stop_where_the_image_breaks() -> None:
    reached = Calibration(1.0, 0.5, None, 0.5, "probe", 0.1, 14, 16)
    assert reached.scales()[-1] == 0.5
    never = Calibration(None, 2.0, 1.5, None, "probe", 0.1, 14, 16)
    assert never.scales() == [0.0, 0.4, 0.8, 1.2, 1.6, 2.0]
    assert json.loads(never.metadata()["calibration"])["saturates"] == 1.5
