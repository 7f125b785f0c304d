"""The comparison of methods: trained, measured and reported on a miniature FLUX; perfect and idle editors."""

from __future__ import annotations

import csv
import importlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.conftest import Script
from tinyflux.people import ATTRIBUTES
from utils.config.runs import Run
from utils.measure.instruments import Probe
from utils.study import worker
from utils.study.cells import CellResult

PROMPTS = (
    "- {target: a cat, positive: an old cat, unconditional: a young cat, neutral: a cat, action: enhance, "
)
PROMPTS += "guidance_scale: 2, resolution: 32, batch_size: 1}\n"


def read(images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Brightness as every attribute but `male`, the red channel's."""
    readings = {name: images.mean(dim=(1, 2, 3)) / 2 + 0.5 for name in ATTRIBUTES}
    return {**readings, "male": images[:, 0].mean(dim=(1, 2)) / 2 + 0.5}


@pytest.fixture
def compare(site: Path, script: Script, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """study_script on two pair methods and the text slider, judged by a probe that sees brightness."""
    (site / "texts").mkdir()
    (site / "texts/age.yaml").write_text(PROMPTS)
    (site / "config/plan.yaml").write_text(
        "base: mini\nmethods: [train_image, train_image_sliders, slider_text]\ndatasets: [age]\nseeds: 1\n"
        "noise_scales: {train_image: [1, 3]}\nidentities: 3\nshown: 2\nscales: 0,0.5,1\ntext_prompts: texts\n"
        "settings: {device: cpu, judge: probe, train_iteration: 2, save_per_steps: 2, skips: 1, lr: 0.05,\n"
        '  prompt: a cat, clip_weights: "", dinov2_weights: "", lpips_alex_weights: "",\n'
        '  lpips_vgg_weights: ""}\n'
    )
    importlib.import_module("study_script")
    features = lambda images: images.mean(dim=(2, 3))  # noqa: E731
    monkeypatch.setattr("tinyflux.judge.face_probe", lambda dataset: Probe(read, features, dataset, ()))
    return lambda *arguments: script("study_script", "--c=plan", *arguments)


def results() -> dict[str, CellResult]:
    paths = Path("output/study").rglob("measured.json")
    return {result.label: result for result in map(CellResult.load, paths)}


def test_every_cell_is_trained_measured_and_reported(compare: Callable) -> None:
    status, out, err = compare()
    assert status == 0, err
    assert "4 of 4 runs done" in out
    labels = ["train_image, beta 1", "train_image, beta 3", "train_image_sliders", "slider_text"]
    found = results()
    assert set(found) == set(labels)
    for result in found.values():
        assert (result.strength.shape, result.damage.shape) == ((3, 3), (3, 3))
        assert result.strength[:, 0].abs().max() == 0
        assert result.measures["DINOv2"].startswith("dinov2: not available: no weights named")
        assert result.measures["SSIM"].shape == (3, 2)
        assert result.training.count == 2
        assert result.generation.count == 9
    folder = Path("output/study")
    page = (folder / "report.html").read_text()
    assert "python study_script.py --c=plan" in page
    assert page.count("data:image/webp") == 4 * 2 * 3
    with (folder / "results.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 4 * 3
    for name in ("table.md", "table.tex", "curves.svg", "curves.png"):
        assert (folder / name).stat().st_size > 100
    assert (folder / "table.md").read_text() in out


def test_what_is_done_is_not_done_again_and_what_changed_is(
    compare: Callable, loads: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compare("methods=[train_image]")[0] == 0
    before = {path: path.stat().st_mtime_ns for path in Path("output/study").rglob("*epoch.safetensors")}
    assert len(before) == 2
    loads.clear()
    status, out, _ = compare("methods=[train_image]")
    assert (status, loads) == (0, [])
    assert "2 cells, 2 of them done before" in out
    status, out, _ = compare("methods=[train_image]", "identities=2")  # measured anew, not trained
    assert status == 0
    assert "2 cells, 0 of them done before" in out
    assert {path: path.stat().st_mtime_ns for path in before} == before
    status, out, err = compare("methods=[train_image]", "lr=0.01")
    assert status == 0, err
    assert "trained with lr 0.05, now 0.01; moved to" in out
    assert len(loads) == 2


def test_changed_images_or_prompts_are_told_and_nothing_is_overwritten(compare: Callable) -> None:
    for method, path in (("slider_text", Path("texts/age.yaml")), ("train_image_sliders", None)):
        assert compare(f"methods=[{method}]")[0] == 0
        files = Path("output/study").glob(f"*/*_v{method}_*_v1/*.safetensors")
        before = {file: file.read_bytes() for file in files}
        if path:
            path.write_text(path.read_text().replace("an old cat", "a fat cat"))
        else:
            Image.new("RGB", (32, 32), (1, 2, 3)).save("datasets/age/target/0.png")
        status, out, err = compare(f"methods=[{method}]")
        assert status == 0, err
        assert "1 cells, 0 of them done before" in out
        assert "trained on other images or prompts; moved to" in out
        assert before
        for file, content in before.items():
            assert (file.parent.with_name(f"{file.parent.name}_old1") / file.name).read_bytes() == content


def test_another_number_of_steps_is_told(compare: Callable) -> None:
    assert compare("methods=[train_image_sliders]")[0] == 0
    status, out, err = compare("methods=[train_image_sliders]", "train_iteration=3")
    assert status == 0, err
    assert "trained with train_iteration 2, now 3; moved to" in out


def test_a_judge_without_weights_is_told_before_training(compare: Callable) -> None:
    status, _, err = compare("judge=clip")
    assert (status, len(err.splitlines())) == (2, 1)
    assert "judge clip: clip: not available: no weights named" in err
    assert not list(Path("output").rglob("*.safetensors"))


def test_what_the_base_cant_do_is_reported_before_it_is_loaded(compare: Callable, loads: list) -> None:
    for override, fault in {
        "resolution=100": "resolution: expected a multiple of 16, found 100",
        "train_method=layers": "train_method: expected one of full, image, xattn, xattn-strict, blocks,",
    }.items():
        for dry in ((), ("--dry-run",)):
            status, _, err = compare(override, *dry)
            assert (status, loads, fault in err) == (2, [], True), err
    text = Path("texts/age.yaml")
    text.write_text(text.read_text().replace("resolution: 32", "resolution: 20"))
    status, _, err = compare("methods=[slider_text]")
    assert (status, loads) == (2, [])
    assert f"{text}: resolution: expected a multiple of 16, found 20" in err


def test_a_failing_cell_is_reported_and_the_others_go_on(
    compare: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_run = worker.train_run

    def fails(run: Run, *rest: object) -> object:
        if run.config.python_name == "train_image_sliders":
            raise FloatingPointError("positive loss is nan")
        return train_run(run, *rest)

    monkeypatch.setattr(worker, "train_run", fails)
    status, _, err = compare("methods=[train_image,train_image_sliders]", "noise_scales={}")
    assert status == 1
    assert "failed: age_vtrain_image_sliders" in err
    page = Path("output/study/report.html").read_text()
    assert "positive loss is nan" in page
    assert list(results()) == ["train_image"]


def test_perfect_and_idle_editors_come_out_at_the_ends(
    compare: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In place of generation: a brightness that follows the slider as the pairs do, or nothing at all."""
    import utils.study.cells
    from utils.data.pairs import load_pairs

    pairs = load_pairs(Path("datasets/age/source"), Path("datasets/age/target"), 32, "error")
    change = sum(read(pair.target[None])["age"] - read(pair.source[None])["age"] for pair in pairs)
    change = (change / len(pairs)).item()
    gains = {"train_image": 1.0, "train_image_sliders": 0.0}

    def draw(base, embeds, seeds, skips, scales, config):
        gain = gains[config.python_name]
        start = torch.full((len(seeds), 3, 32, 32), -0.1 if change > 0 else 0.1)
        return {skips[0]: {scale: start + 2 * gain * scale * change for scale in scales}}

    monkeypatch.setattr(utils.study.cells, "sweep_images", draw)
    features = lambda images: images.mean(dim=(2, 3))  # noqa: E731
    probe = Probe(read, features, "age", set(read(torch.zeros(1, 3, 8, 8))) - {"age", "male"})
    monkeypatch.setattr("tinyflux.judge.face_probe", lambda dataset: probe)
    status, out, err = compare("methods=[train_image,train_image_sliders]", "noise_scales={}")
    assert status == 0, err
    found = results()
    perfect, idle = found["train_image"], found["train_image_sliders"]
    assert torch.allclose(perfect.strength.mean(0), torch.tensor([0, 0.5, 1]).double(), atol=1e-4)
    assert not idle.strength.any()
    assert not idle.damage.any()
    assert perfect.delta_smooth.abs().max() < 1e-3
    rows = {line.split("|")[1].strip(): line for line in out.splitlines() if line.startswith("| train")}
    assert rows["train_image_sliders"].count("not reached") == 4
    assert "not reached" not in rows["train_image"]


def test_one_judge_sees_pairs_of_all_sizes(
    compare: Callable, loads: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in Path("datasets/smile").rglob("*.png"):
        Image.new("RGB", (90, 40), Image.open(path).getpixel((0, 0))).save(path)
    probe = Probe(read, torch.Tensor.flatten, "age", (), resolution=32)
    monkeypatch.setattr("tinyflux.judge.face_probe", lambda dataset: probe)
    status, _, err = compare("methods=[train_image]", "noise_scales={}", "datasets=[age,smile]")
    assert (status, loads) == (2, [])
    assert "a size that the probe reads, found others in 'smile'; one judge sees all" in err


def test_dry_run_and_bad_plans_load_nothing(compare: Callable, loads: list, site: Path) -> None:
    status, out, _ = compare("--dry-run")
    assert (status, loads) == (0, [])
    assert "4 runs" in out
    assert not Path("output").exists()
    for arguments, message in {
        ("methods=train_imag",): "expected methods out of",
        ("--preset=small",): "--preset: expected one of none",
        ("datasets=[agee]",): "expected",
        ("use_prompts_file=1", "prompts_file=none.yaml"): "none.yaml",
        ("seeds=1000",): "methods x datasets x pairs x seeds: expected 1000 at most, found 3000 cells",
        ("max_sequence_length=100000000",): "max_sequence_length: expected to fit in",
    }.items():
        status, _, err = compare(*arguments)
        assert (status, len(err.splitlines())) == (2, 1), err
        assert message in err
    assert loads == []


@pytest.mark.parametrize("name", ["study", "study_flux"])
def test_the_shipped_plans_load(name: str, monkeypatch: pytest.MonkeyPatch, script: Script) -> None:
    from tests.conftest import TRAIN

    monkeypatch.chdir(TRAIN)
    status, out, err = script("study_script", f"--c={name}", "--dry-run")
    assert (status, err) == (0, "")
    assert out.startswith("96 runs")
    if name == "study":
        assert script("study_script", "--c=study", "--preset=small", "--dry-run")[1].startswith("2 runs")


def test_results_are_read_back_as_written(compare: Callable) -> None:
    assert compare("methods=[train_image_sliders]")[0] == 0
    (path,) = Path("output/study").rglob("measured.json")
    result = CellResult.load(path)
    result.save(path.with_name("again.json"))
    assert json.loads(path.with_name("again.json").read_text()) == json.loads(path.read_text())
