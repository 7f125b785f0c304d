"""Bad input to the scripts: one line naming the file or key, status 2, no traceback, no model loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import Script, command

# key=value -> what the message says
BAD_KEYS: dict[str, tuple[str, ...]] = {
    "train_iterations=5": ("unknown key 'train_iterations'", "did you mean 'train_iteration'"),
    "rank=many": ("rank: expected a whole number", "'many'"),
    "end_step=4": ("start_step, end_step", "<= 3", "found 0 and 4"),
    "python_name=train_imag": ("python_name: expected one of", "train_image", "'train_imag'"),
    "train_method=ful": ("train_method: expected one of blocks, full, image", "'ful'"),
    "base=minni": ("base 'minni'", "did you mean 'mini'", "there are: mini"),
    "pretrained_model_name_or_path=/no/model": ("pretrained_model_name_or_path", "'/no/model'"),
    "datasets=agee": ("datasets/agee/source", "did you mean 'age'", "age, smile"),
    "output_folder=datasets/age/source/0.png": ("0.png/age", "expected a folder to write to"),
}

# what is done to datasets/age -> what the message says
BAD_PAIRS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("empty", "source/0", "source/1"): ("age/source: expected images", "found none"),
    ("empty", "target/1"): ("age/target: expected an image", "age/source/1.png", "found none"),
    ("empty", "source/1"): ("age/source: expected an image", "age/target/1.png", "found none"),
    ("zero bytes", "source/1"): ("source/1.png: expected an image, found an empty file",),
    ("text", "target/1"): ("target/1.png: expected a readable image",),
    ("48 48", "target/0"): ("target/0.png", "32 x 32", "48 x 48", "resize="),
    ("64 2", "source/0", "target/0"): ("source/0.png: expected an aspect ratio that a size takes", "64 x 2"),
}


def spoil(how: str, path: Path) -> None:
    if how == "empty":
        path.unlink()
    elif how in ("zero bytes", "text"):
        path.write_text("" if how == "zero bytes" else "no image")
    else:
        width, height = map(int, how.split())
        Image.new("RGB", (width, height)).save(path)


@pytest.mark.parametrize("override", BAD_KEYS)
def test_a_bad_key_is_one_line_and_status_2_before_any_model_is_loaded(
    override: str, script: Script, loads: list
) -> None:
    status, out, err = script("train_image_script", "--c=mini", override)
    assert (status, out, len(err.splitlines()), loads) == (2, "", 1, [])
    assert err.startswith("error: ")
    assert [part for part in BAD_KEYS[override] if part not in err] == []


@pytest.mark.parametrize("case", BAD_PAIRS)
def test_bad_pairs_are_one_line_and_status_2_before_any_model_is_loaded(
    case: tuple[str, ...], site: Path, script: Script, loads: list
) -> None:
    how, *images = case
    for image in images:
        spoil(how, site / f"datasets/age/{image}.png")
    status, out, err = script("train_image_script", "--c=mini")
    assert (status, out, len(err.splitlines()), loads) == (2, "", 1, [])
    assert [part for part in ("error: ", *BAD_PAIRS[case]) if part not in err] == []
    assert not (site / "output").exists()


def test_bad_input_to_generation(site: Path, script: Script, loads: list) -> None:
    status, _, err = script("gen_image_script", "--c=mini", "scales=1")
    assert (status, len(err.splitlines())) == (2, 1)
    assert "output/models/image/smile/smile_vtrain_image_4.0eta_3.0ns_full_base_v1/smile_4.0eta_" in err
    assert err.endswith("train it with: python train_image_script.py --c=mini scales=1\n")
    own = ("use_trained_lora_path=1", "trained_lora_path=no/hat.pt")
    assert (
        "trained_lora_path: expected a LoRA file, found none at no/hat.pt"
        in script("gen_image_script", "--c=mini", *own)[2]
    )
    (site / "hat.pt").touch()
    own = ("use_trained_lora_path=1", "trained_lora_path=hat.pt")
    status, _, err = script(
        "gen_image_script", "--c=mini", *own, "use_prompts_file=1", "prompts_file=no.yaml"
    )
    assert (status, len(err.splitlines()), loads) == (2, 1, [])
    assert "prompts/no.yaml" in err


def test_a_missing_study_by_the_command_itself(site: Path) -> None:
    done = command("train_image_script", "--c=minni", cwd=site)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert "config/minni.yaml" in done.stderr
    assert "did you mean 'mini'" in done.stderr
    done = command("gen_image_script", "--c=mini", cwd=site / "datasets")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "config: expected in the current folder" in done.stderr
