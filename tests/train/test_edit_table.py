"""train/eval_scripts/edit_table.py on a miniature FLUX, with a probe that knows nothing of faces."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.conftest import MINI_RESOLUTION, MINI_SEQUENCE_LENGTH, TRAIN, Script
from tinyflux.judge import attribute_of
from tinyflux.people import ATTRIBUTES, COLOURS
from utils.config.load import load_config
from utils.config.runs import expand_runs
from utils.data.pairs import load_pairs
from utils.data.pixels import to_images
from utils.generation.sweep import applied_lora, sweep_images
from utils.measure.instruments import Probe
from utils.measure.judges import ProbeJudge
from utils.models.base import Base

PAIR_DIFFERENCE = 160 / 255 / 3  # of the pairs' brightness: a third of the channels is 160 brighter
RESULTS = Path("output/eval/edits")


def read_brightness(images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Every attribute is the image's brightness in [0, 1]: all leak as much as the edit moves."""
    return {name: images.mean(dim=(1, 2, 3)) / 2 + 0.5 for name in ATTRIBUTES}


def probe_of(dataset: str) -> Probe | None:
    attribute = attribute_of(dataset)
    changed = COLOURS if attribute == "sketch" else ()
    return None if attribute is None else Probe(read_brightness, torch.flatten, attribute, changed)


@pytest.fixture
def table(script: Script, monkeypatch: pytest.MonkeyPatch) -> Script:
    """Call the script on the study `mini`, the probe stood in for; gives exit status, stdout and stderr."""
    monkeypatch.syspath_prepend(str(TRAIN / "eval_scripts"))
    monkeypatch.setattr("tinyflux.judge.face_probe", probe_of)
    return lambda *arguments: script("edit_table", "--c=mini", "judge=probe", *arguments)


def test_every_run_is_measured_and_written(site: Path, script: Script, table: Script) -> None:
    assert script("train_image_script", "--c=mini")[0] == 0
    status, out, _ = table("--seeds=3", "--scales=0,1,4")
    assert status == 0
    command = "python eval_scripts/edit_table.py --c=mini judge=probe --seeds=3 --scales=0,1,4"

    written = json.loads((RESULTS / "table.json").read_text())
    assert written["command"] == command
    assert [run["edited"] for run in written["runs"]] == ["age", "smile"]
    for run in written["runs"]:
        assert (run["identities"], run["skip"], run["prompt"]) == (3, 1, 'prompt "a cat"')
        assert run["pair_difference"] == pytest.approx(PAIR_DIFFERENCE)
        assert list(run["readings"]) == ["0.0", "1.0", "4.0"]
        assert set(run["leaks"]) == set(ATTRIBUTES) - {run["edited"]}
        assert Path(run["lora"]).is_file()
    first, second = (run["readings"] for run in written["runs"])
    assert first["0.0"] == second["0.0"]  # the bare base
    assert first["4.0"] != second["4.0"]

    markdown = (RESULTS / "table.md").read_text()
    assert command in markdown
    assert markdown.split("\n\n")[0] in out
    assert str(RESULTS / "report.html") in out
    assert command in (RESULTS / "report.html").read_text()
    assert Image.open(RESULTS / "grid.png").width > Image.open(RESULTS / "readings.png").width / 2


def test_what_is_measured_is_the_loras_effect(
    site: Path, script: Script, table: Script, mini_flux_loaded: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    script("train_image_script", "--c=mini", "datasets=age", "lr=0.05")
    from tinyflux.edits import measure

    base, seeds = mini_flux_loaded, range(9)  # more than one batch holds
    (run,) = expand_runs(load_config("mini", ["datasets=age", "lr=0.05"], Path("config")))
    pairs = load_pairs(run.source_folder, run.target_folder, MINI_RESOLUTION)
    embeds = base.encode_prompts([run.prompt], MINI_SEQUENCE_LENGTH)
    judge = ProbeJudge(Probe(read_brightness, torch.flatten, "age"), pairs)
    measured = measure(run, base, embeds, judge, seeds, [1.0, 0.0])
    with applied_lora(base.transformer, run.lora_paths[0]):
        images = sweep_images(base, embeds, seeds, [1], [0.0, 1.0], run.config)[1]
    after, before = (read_brightness(images[scale])["age"] for scale in (1.0, 0.0))
    assert measured.report.identities == 9
    assert measured.report.moved.mean == pytest.approx((after - before).mean().item() / PAIR_DIFFERENCE)
    assert list(measured.pictures) == list(range(6))
    assert measured.pictures[5][1].tobytes() == to_images(images[1.0][5:6])[0].tobytes()
    seen = []
    monkeypatch.setattr(
        judge, "readings", lambda before, after: seen.append(len(before)) or judge.probe.read(after)
    )
    measure(run, base, embeds, judge, seeds, [1.0, 0.0])
    assert seen == [9, 9]  # judges have units of all images before, not of a batch's


def test_identities_may_come_from_a_prompts_file(site: Path, script: Script, table: Script) -> None:
    script("train_image_script", "--c=mini", "datasets=age")
    Path("prompts").mkdir()
    measured = []
    for prompts in ("- a cat\n", "- a cat\n- a dog\n- a red hill\n"):
        Path("prompts/pets.yaml").write_text(prompts)
        arguments = (
            "datasets=age",
            "use_prompts_file=1",
            "prompts_file=pets.yaml",
            "--seeds=4",
            "--scales=0,1",
        )
        assert table(*arguments)[0] == 0
        (run,) = json.loads((RESULTS / "table.json").read_text())["runs"]
        assert run["prompt"] == f"prompts of {Path('prompts/pets.yaml')}"
        measured.append(run["readings"]["0.0"])
    assert table("datasets=age", "--seeds=4", "--scales=0,1")[0] == 0
    (run,) = json.loads((RESULTS / "table.json").read_text())["runs"]
    assert run["readings"]["0.0"] == measured[0]  # the study's own prompt is "a cat" as well
    assert measured[1] != measured[0]


def test_single_pairs_versions_and_hidden_colours(site: Path, script: Script, table: Script) -> None:
    for name in ("age_single", "sketch"):
        shutil.copytree("datasets/age", f"datasets/{name}")
    study = ("datasets=age_single,sketch", "train_count=2", "train_iteration=1")
    script("train_image_script", "--c=mini", *study)
    assert table(*study, "--seeds=2", "--scales=0,1", "--out=here")[0] == 0
    runs = json.loads(Path("here/table.json").read_text())["runs"]
    assert [run["edited"] for run in runs] == ["age", "age", "sketch", "sketch"]
    assert set(runs[2]["leaks"]) == set(ATTRIBUTES) - {"sketch", *COLOURS}
    assert "| age_single_vtrain_image_4.0eta_3.0ns_full_base_v2 |" in Path("here/table.md").read_text()


def test_faults_come_before_any_model_is_loaded(
    site: Path, script: Script, table: Script, loads: list[Base]
) -> None:
    status, _, error = table()
    assert (status, len(error.splitlines())) == (2, 1)
    assert "expected a trained LoRA, found none; train it with: " in error
    Path("lora.safetensors").touch()
    two = ("use_trained_lora_path=1", "trained_lora_path=[lora.safetensors,lora.safetensors]")
    assert "trained_lora_path: expected one LoRA to measure, found several" in table(*two)[2]
    for option in ("--scales=0,0.5", "--scales=a", "--seeds=1"):
        status, _, error = table(option)
        assert status == 2
        assert "expected" in error
    assert loads == []


def test_an_edit_of_ones_own_is_judged_by_its_pairs(site: Path, script: Script, table: Script) -> None:
    shutil.copytree("datasets/age", "datasets/dragon")
    script("train_image_script", "--c=mini", "datasets=dragon", "lr=0.05")
    status, out, err = table("datasets=dragon", "--seeds=3", "--scales=0,1")
    assert status == 0, err
    (run,) = json.loads((RESULTS / "table.json").read_text())["runs"]
    assert (run["edited"], run["pair_difference"], list(run["leaks"])) == ("edit", 1.0, ["damage"])
    assert run["readings"]["0.0"]["mean"] == 0
    assert run["moved"]["mean"] == pytest.approx(run["readings"]["1.0"]["mean"]) != 0
    assert "| dragon | 0.00 |" in out
    assert "by what the base sees" in (RESULTS / "table.md").read_text()


def test_a_dry_run_lists_and_writes_nothing(site: Path, table: Script) -> None:
    status, out, _ = table("--dry-run", "--seeds=4")
    assert status == 0
    assert str(RESULTS) in out
    assert not Path("output").exists()
