"""train/eval_scripts/edit_table.py on a miniature FLUX, with a reader that knows nothing of faces."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
import torch
import yaml
from conftest import MINI_RESOLUTION, MINI_SEQUENCE_LENGTH
from PIL import Image

from tinyflux.people import ATTRIBUTES, COLOURS
from utils.errors import UserError
from utils.figures import to_images

if TYPE_CHECKING:
    from torch import Tensor

TRAIN = Path(__file__).resolve().parent.parent / "train"
SMALL = ["--seeds=3", "--scales=0,1,4"]


def read_brightness(images: Tensor) -> dict[str, Tensor]:
    """Every attribute is the image's brightness in [0, 1]: all leak as much as the edit moves."""
    return {name: images.mean(dim=(1, 2, 3)) / 2 + 0.5 for name in ATTRIBUTES}


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, ModuleType]:
    """The two scripts as modules: training and the table; the probe is stood in for."""
    monkeypatch.syspath_prepend(TRAIN / "eval_scripts")
    monkeypatch.syspath_prepend(TRAIN)
    import edit_table
    import train_image_script

    monkeypatch.setattr(edit_table, "probe_reader", lambda: read_brightness)
    return train_image_script, edit_table


@pytest.fixture
def study(tmp_path: Path, mini_flux: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to run in: a config on the miniature FLUX, and pairs for glasses whose target is brighter."""
    config = {
        "pretrained_model_name_or_path": str(mini_flux),
        "resolution": MINI_RESOLUTION,
        "dtype": "float32",
        "device": "cpu",
        "max_sequence_length": MINI_SEQUENCE_LENGTH,
        "train_iteration": 2,
        "num_inference_steps": 4,
        "skips": [2, 3],
        "rank": 2,
        "lr": 0.05,
        "datasets": ["glasses", "glasses_single"],
    }
    (tmp_path / "config" / "base").mkdir(parents=True)
    (tmp_path / "config" / "base" / "flux_dev.yaml").write_text("{}")
    (tmp_path / "config" / "mini.yaml").write_text(yaml.safe_dump(config))
    dark = torch.rand(3, MINI_RESOLUTION, MINI_RESOLUTION, generator=torch.Generator().manual_seed(0)) - 1
    for dataset in ("glasses", "glasses_single", "sketch", "hats"):
        for side, pixels in (("source", dark), ("target", dark + 0.5)):
            folder = tmp_path / "datasets" / dataset / side
            folder.mkdir(parents=True)
            to_images(pixels[None])[0].save(folder / "1.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_run_is_measured_and_written(scripts, study, capsys) -> None:
    train_script, table_script = scripts
    assert train_script.main(["--c=mini"]) == 0
    assert table_script.main(["--c=mini", *SMALL]) == 0
    folder = study / "output" / "eval" / "edits"
    command = "python eval_scripts/edit_table.py --c=mini --seeds=3 --scales=0,1,4"

    written = json.loads((folder / "table.json").read_text())
    assert written["command"] == command
    assert [run["dataset"] for run in written["runs"]] == ["glasses", "glasses_single"]
    for run in written["runs"]:
        assert (run["identities"], run["skip"], run["edited"]) == (3, 2, "glasses")
        assert run["pair_difference"] == pytest.approx(0.25, abs=0.01)
        assert list(run["readings"]) == ["0.0", "1.0", "4.0"]
        assert set(run["leaks"]) == set(ATTRIBUTES) - {"glasses"}
        assert Path(run["lora"]).is_file()
    assert written["runs"][0]["readings"]["0.0"] == written["runs"][1]["readings"]["0.0"]  # the bare base

    table = (folder / "table.md").read_text()
    assert "| glasses_single |" in table
    assert command in table
    assert table.split("\n\n")[0] in capsys.readouterr().out
    assert command in (folder / "report.html").read_text()
    assert Image.open(folder / "grid.png").width > 0
    assert Image.open(folder / "readings.png").width > 0


def test_what_is_measured_is_the_loras_effect(scripts, study, mini_flux_loaded) -> None:
    train_script, _ = scripts
    train_script.main(["--c=mini", "datasets=glasses"])
    from edits import measure

    from utils.generate import applied_lora, sweep_images
    from utils.pairs import load_pairs
    from utils.runner import prepare

    (run,) = prepare(["--c=mini", "datasets=glasses"], "", train_script.METHODS).runs
    pairs = load_pairs(run.source_folder, run.target_folder, MINI_RESOLUTION)
    flux = mini_flux_loaded
    embeds = flux.encode_prompts([run.prompt], MINI_SEQUENCE_LENGTH)
    seeds, scales = range(9), [1.0, 0.0]  # more seeds than one batch holds
    measured = measure(run, flux, embeds, pairs, read_brightness, seeds, scales)
    with applied_lora(flux.transformer, run.lora_path):
        images = sweep_images(flux, embeds, seeds, [2], scales, run.config)[2]
    moved = (read_brightness(images[1.0])["glasses"] - read_brightness(images[0.0])["glasses"]) / 0.25
    assert measured.report.identities == 9
    assert measured.report.moved.mean == pytest.approx(moved.mean().item(), abs=0.01)
    assert list(measured.pictures) == list(range(6))
    assert measured.pictures[5][1].tobytes() == to_images(images[1.0][5:6])[0].tobytes()


def test_a_sketch_hides_colours_and_that_is_no_leak(scripts, study) -> None:
    train_script, table_script = scripts
    train_script.main(["--c=mini", "datasets=sketch"])
    assert table_script.main(["--c=mini", "datasets=sketch", *SMALL]) == 0
    (run,) = json.loads((study / "output/eval/edits/table.json").read_text())["runs"]
    assert set(run["leaks"]) == set(ATTRIBUTES) - {"sketch", *COLOURS}


def test_faults_come_before_any_model_is_loaded(scripts, study, monkeypatch, capsys) -> None:
    train_script, table_script = scripts
    with pytest.raises(UserError, match=r"expected a trained LoRA, found none; train it with: .*--c=mini"):
        table_script.main(["--c=mini"])
    train_script.main(["--c=mini", "datasets=hats"])
    monkeypatch.setattr(table_script, "load_base", lambda *_: pytest.fail("a model was loaded"))
    with pytest.raises(UserError, match=r"datasets: expected names of attributes .*, found 'hats'"):
        table_script.main(["--c=mini", "datasets=hats"])
    for option in ("--scales=0,0.5", "--scales=a", "--seeds=1"):
        with pytest.raises(SystemExit) as exit_:
            table_script.main(["--c=mini", option])
        assert exit_.value.code == 2
        assert "expected" in capsys.readouterr().err


def test_a_dry_run_lists_and_writes_nothing(scripts, study, capsys) -> None:
    assert scripts[1].main(["--c=mini", "--dry-run", "--seeds=4"]) == 0
    assert "output/eval/edits" in capsys.readouterr().out
    assert not (study / "output").exists()
