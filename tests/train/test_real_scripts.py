"""Photographs through the scripts as they are typed, two steps on a miniature FLUX."""

from __future__ import annotations

import shutil
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from PIL import Image

from tests.conftest import TRAIN, Script
from utils.config.load import load_config
from utils.config.runs import expand_real_runs, expand_runs
from utils.config.schema import choices
from utils.models.adapters import adapter_names

NAME = "real_{0}_vtrain_image_real_base_v1"
EDIT = "edit.safetensors"
PLACE = f"edit_{crc32(EDIT.encode()):08x}"  # tells edits of one name apart


@pytest.fixture
def photos(site: Path, script: Script) -> Path:
    """The study `real` on two photographs, a wide and a tall one, and a trained edit."""
    (site / "config/real.yaml").write_text(
        "base: mini\npython_name: train_image_real\ndevice: cpu\ndatasets: real\nlr: 0.05\n"
        f"train_iteration: 2\nsave_per_steps: 2\nscales: 0,1,-1\nsemantic_lora_path: {EDIT}\ncount_gen: 2\n"
    )
    (site / "datasets/real/source").mkdir(parents=True)
    for stem, size in (("610", (52, 32)), ("wide", (32, 56))):
        pixels = np.random.default_rng(len(stem)).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(site / f"datasets/real/source/{stem}.png")
    assert script("train_image_script", "--c=mini", "datasets=age", "lr=0.05")[0] == 0
    shutil.copy(next(Path("output").rglob("*2epoch.safetensors")), EDIT)
    shutil.rmtree("output")
    return site


def edits(stem: str, inversion: str) -> Path:
    name = f"{PLACE}_image_of_a_person_{inversion}" + ("_difference_0.75w" if inversion == "lora" else "")
    return Path("output/eval/image/real", NAME.format(stem), name)


def test_train_then_edit(photos: Path, script: Script, loads: list) -> None:
    status, out, err = script("train_image_real_script", "--c=real")
    assert status == 0, err
    for stem in ("610", "wide"):
        folder = Path("output/models/image/real", NAME.format(stem))
        assert {path.suffix for path in folder.glob(f"real_{stem}_4inf_2epoch.*")} == {".pt", ".safetensors"}
    assert out.endswith("next: python gen_image_real_script.py --c=real inversion=lora\n")

    status, out, err = script("gen_image_real_script", "--c=real", "skips=[0,2]")
    assert status == 0, err
    for stem, size in (("610", (52, 32)), ("wide", (32, 56))):
        folder = edits(stem, "lora")
        page = (folder / "index.html").read_text(encoding="utf-8")
        assert f"<td>{EDIT}, real_{stem}_4inf_2epoch.safetensors</td>" in page
        names = {f"skip{skip}_scale{scale}.png" for skip in (0, 2) for scale in ("0.00", "1.00", "-1.00")}
        assert {path.name for path in (folder / "6666").glob("*.png")} == names
        assert {path.name for path in (folder / "6666/whole").glob("*.png")} == names
        assert (folder / "6666.png").is_file()
        edited = Image.open(folder / "6666/skip0_scale1.00.png").size
        assert edited == ((32, 48) if stem == "wide" else (48, 32))  # 32^2 pixels of its own aspect ratio
        assert f"<td>{edited[0]} x {edited[1]} pixels</td>" in page
        whole = Image.open(folder / "6666/whole/skip0_scale0.00.png")
        assert whole.size == size
        assert whole.tobytes() == Image.open(f"datasets/real/source/{stem}.png").tobytes()
    assert adapter_names(loads[-1].transformer) == []


@pytest.mark.parametrize("inversion", [name for name in choices("inversion") if name != "lora"])
def test_training_free_inversions_need_no_training(photos: Path, script: Script, inversion: str) -> None:
    status, _, err = script("gen_real_image_script", "--c=real", f"inversion={inversion}", "image_ids=[610]")
    assert status == 0, err
    images = [
        Image.open(edits("610", inversion) / f"6666/skip1_scale{scale}.png").tobytes()
        for scale in ("0.00", "1.00", "-1.00")
    ]
    assert len(set(images)) == 3
    by_chance = inversion in ("rf_inversion", "flowedit", "flowslider")
    assert len(list(edits("610", inversion).glob("*.png"))) == (2 if by_chance else 1)
    page = (edits("610", inversion) / "index.html").read_text(encoding="utf-8")
    assert f"<td>{EDIT}</td>" in page  # made with this one alone
    assert not edits("wide", inversion).exists()


def test_prompts_may_come_from_a_file(photos: Path, script: Script) -> None:
    Path("prompts").mkdir()
    Path("prompts/pets.yaml").write_text("- a cat\n- a dog\n- a red hill\n")
    arguments = ("inversion=euler", "image_ids=[610]", "use_prompts_file=1", "prompts_file=pets.yaml")
    status, _, err = script("gen_image_real_script", "--c=real", *arguments, "count_gen=4")
    assert status == 0, err
    (folder,) = Path("output/eval/image/real", NAME.format("610")).iterdir()
    assert folder.name == f"{PLACE}_pets_euler"
    images = [path.read_bytes() for path in sorted(folder.glob("*/skip1_scale1.00.png"))]
    assert len(images) == 4
    assert len(set(images)) > 1  # other prompts, other edits


BAD = {
    "image_ids=[611]": ("image_ids: expected images of", "'611'", "did you mean '610'", "610, wide"),
    "image_ids=[0610]": ("image_ids: expected images of", "'0610'"),
    "image_ids=[610,610]": ("datasets, image_ids: expected a name for each run", "twice"),
    "inversion=flowedti": ("inversion: expected one of lora, euler", "flowedti"),
    "inversion_rule=sum": ("inversion_rule: expected one of difference, joint, authors",),
    "semantic_lora_path=": ("semantic_lora_path: expected a LoRA file", "none given"),
    "semantic_lora_path=none.pt": ("semantic_lora_path: expected a LoRA file", "nothing at none.pt"),
    "datasets=age_": ("age_/source: expected a folder of images", "did you mean 'age'"),
    "python_name=train_image": ("python_name: expected one of train_image_real",),
}


@pytest.mark.parametrize("argument", BAD)
def test_bad_input_is_told_before_any_model_is_loaded(
    photos: Path, script: Script, loads: list, argument: str
) -> None:
    loads.clear()
    status, _, err = script("gen_image_real_script", "--c=real", "inversion=euler", argument)
    assert (status, len(err.splitlines()), loads) == (2, 1, [])
    for part in BAD[argument]:
        assert part in err


def test_an_untrained_inversion_lora_is_told(photos: Path, script: Script) -> None:
    status, _, err = script("gen_image_real_script", "--c=real")
    assert status == 2
    assert "train it with: python train_image_real_script.py --c=real" in err


def test_an_edit_that_does_not_fit_is_told(photos: Path, script: Script) -> None:
    Path(EDIT).write_bytes(b"no LoRA")
    status, _, err = script("gen_image_real_script", "--c=real", "inversion=euler")
    assert status == 2
    assert "Traceback" not in err
    assert f"{EDIT}: expected a LoRA file" in err


def test_runs_are_versions_times_photographs(photos: Path) -> None:
    config = load_config("real", ["train_count=2"], Path("config"))
    assert [run.name for run in expand_real_runs(config)] == [
        f"real_{stem}_vtrain_image_real_base_v{version}" for version in (1, 2) for stem in ("610", "wide")
    ]


def test_the_shipped_study_edits_with_what_the_shipped_training_makes() -> None:
    config = TRAIN / "config"
    (run,) = expand_runs(load_config("train_image", [], config))
    assert Path(load_config("train_image_real", [], config).semantic_lora_path) == run.weights_path()
