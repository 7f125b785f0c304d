"""utils/study/plan.py: a plan's YAML, and the cells it multiplies into."""

from __future__ import annotations

from pathlib import Path

import pytest

from utils.errors import UserError
from utils.study.plan import Plan, expand_cells, load_plan
from utils.training.slider_prompts import SliderPrompts
from utils.training.sources import ImagePairs

METHODS = ("train_image", "train_image_fm", "slider_text")
PROMPTS = "- {target: a, positive: b, unconditional: c, neutral: a, action: enhance, guidance_scale: 3, "
PROMPTS += "resolution: 32, batch_size: 1}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("base", "prompts"):
        (tmp_path / "config" / name).mkdir(parents=True)
    (tmp_path / "config/prompts/age.yaml").write_text(PROMPTS)
    (tmp_path / "config/base/small.yaml").write_text("resolution: 32\ncfg_eta: 2.5\nnoise_scales: 3\n")
    (tmp_path / "config/plan.yaml").write_text(
        "base: small\nmethods: [train_image, slider_text]\ndatasets: age\nseeds: 2\n"
        "text_prompts: config/prompts\nnoise_scales: {train_image: [1, 2]}\nsettings: {rank: 4}\n"
        "method_settings: {slider_text: {lr: 0.5}}\n"
        "presets: {small: {seeds: 1, noise_scales: {}}}\n"
    )
    return tmp_path / "config"


def plan(folder: Path, *overrides: str, preset: str = "") -> Plan:
    return load_plan("plan", overrides, folder, preset, METHODS)


def test_cells_are_the_product_of_the_axes(folder: Path) -> None:
    cells = expand_cells(plan(folder, "pairs=[1,3]"), folder)
    found = [
        (
            cell.label,
            cell.run.noise_scale,
            cell.run.config.cfg_eta,
            cell.run.config.pair_count,
            cell.run.version,
        )
        for cell in cells
    ]
    assert found == [
        (f"train_image, beta {beta:g}, {count} pairs", beta, 2.5, count, seed)
        for beta in (1.0, 2.0)
        for count in (1, 3)
        for seed in (1, 2)
    ] + [("slider_text", 3.0, 3.0, 0, seed) for seed in (1, 2)]
    assert all(cell.run.config.rank == 4 for cell in cells)
    assert [cell.run.config.lr == 0.5 for cell in cells] == [False] * 8 + [True] * 2
    assert len({cell.run.folder for cell in cells}) == 10
    assert {cell.run.folder.parts[:2] for cell in cells} == {("output", "study")}
    assert [type(cell.source) for cell in cells] == [ImagePairs] * 8 + [SliderPrompts] * 2


def test_presets_and_the_command_line_lie_over_the_yaml(folder: Path) -> None:
    small = plan(folder, "scales=1,0,0.5", "train_iteration=7", "etas={train_image: [2, 4]}", preset="small")
    assert (small.seeds, small.noise_scales, small.scales) == (1, {}, [0.0, 0.5, 1.0])
    assert small.settings == {"base": "small", "rank": "4", "train_iteration": "7"}
    cells = expand_cells(small, folder)
    assert [cell.label for cell in cells] == ["train_image, eta 2", "train_image, eta 4", "slider_text"]
    assert {cell.run.config.train_iteration for cell in cells} == {7}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("methods=train_imag", "expected methods out of train_image, train_image_fm, slider_text, found"),
        ("noise_scales={1: [1]}", "expected methods out of"),
        ("method_settings={train_image: 3}", "method_settings: expected a mapping of mappings, found"),
        ("seeds=0", "plan.yaml: seeds: expected 1 to 1000, found 0"),
        ("scales=1,2", "scales: expected scales with 0 and some above"),
        ("scales=-1,0", "scales: expected scales with 0 and some above"),
        ("strengths=auto", "strengths: expected a list of numbers, found 'auto'"),
        ("pair_count=1", "settings: expected no pair_count, which the plan makes"),
        ("method_settings={train_image: {dtype: bfloat16}}", "expected no dtype, which all cells share"),
        ("method_settings={train_image: {quantization: nf4}}", "expected no quantization, which all cells"),
        ("noise_scales={slider_text: [1]}", "found slider_text, which knows none"),
        ("identites=4", "unknown key 'identites' (did you mean 'identities'?)"),
        ("noise_scales=3", "noise_scales: expected a mapping of names, found 3"),
        ("datasets=", "datasets: expected at least one entry"),
        ("rnak=3", "unknown key 'rnak' (did you mean 'rank'?)"),
        ("rank=x", "settings: rank: expected a whole number"),
        ("datasets=agee", "text_prompts 'agee': expected a file"),
        ("methods=[train_image,train_image]", "expected a name for each cell"),
    ],
)
def test_faults_are_one_line(folder: Path, override: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        expand_cells(plan(folder, override), folder)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_preset_names_those_there_are(folder: Path) -> None:
    with pytest.raises(UserError, match=r"--preset: expected one of small, found smal \(did you mean"):
        plan(folder, preset="smal")
