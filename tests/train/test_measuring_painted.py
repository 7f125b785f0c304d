"""The measuring scripts on images of known colours: every measure by hand."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Script
from tests.train.measuring import (
    BLUE,
    OF_IMAGES,
    OUT,
    RED,
    REFERENCE,
    cells,
    means,
    options,
    paint,
    paint_slider,
    run_of,
    strict,
    written,
)
from tinyflux.people import ATTRIBUTES

SEEN_BLUE = len(ATTRIBUTES) - 2
LEAK = (RED + BLUE * SEEN_BLUE) / 255 / (len(ATTRIBUTES) - 1)  # at scale 1
DISTANCE = math.hypot(RED, BLUE) * 2 / 255  # from scale 0 to 1


# --- what generation wrote ---


def colours(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path), dtype=np.float64).mean(axis=(0, 1))


def test_every_script_measures_what_generation_wrote(script: Script, measure: Script) -> None:
    assert script("train_image_script", "--c=mini", "lr=0.05")[0] == 0
    assert script("gen_image_script", "--c=mini", "start_seed_gen=0")[0] == 0
    runs = [run_of("age"), run_of("smile")]
    names = {run.name for run in runs}
    for name in (*OF_IMAGES, "cost"):
        status, out, err = measure(name, *options(name))
        assert status == 0, err
        assert {row["run"] for row in cells(out)} == names
        content = strict((OUT / f"{name}.json").read_text())
        assert {row["run"] for row in content["rows"]} == names
        assert content["command"] == " ".join([f"python eval_scripts/{name}.py", "--c=mini", *options(name)])

    rows = strict((OUT / "edit_strength.json").read_text())["rows"]
    moved = {(row["run"], row["scale"]): row for row in rows if row["measure"].endswith(", moved")}
    for run in runs:
        before, after = ([run.image_path(seed, 1, scale) for seed in range(3)] for scale in (0.0, 0.5))
        red = [colours(b)[0] - colours(a)[0] for a, b in zip(before, after, strict=True)]
        assert any(red)
        row = moved[run.name, "0.5"]
        assert (row["measure"], row["count"]) == (f"{run.dataset}, moved", 3)
        assert row["mean"] == pytest.approx(sum(red) / 3 / RED, abs=1e-5)
    assert {scale for _, scale in moved} == {"-0.25", "0.5", "1"}

    costs = strict((OUT / "cost.json").read_text())["rows"]
    assert [(row["work"], row["count"]) for row in costs] == [("training", "2"), ("generation", "12")] * 2
    assert all(float(row["seconds"]) >= 0 and row["device"].startswith("CPU") for row in costs)


# --- by hand, on painted images ---


def test_how_far_an_edit_has_got(measure: Script, painted: Path) -> None:
    status, out, err = measure("edit_strength", "datasets=age")
    assert (status, err) == (0, "")
    for scale in ("-0.25", "0.5", "1"):
        assert means("edit_strength", scale) == {"age, moved": pytest.approx(float(scale), abs=1e-6)}
    row = written("edit_strength")["age, moved", "0.5"]
    assert (row["count"], row["finite"]) == (3, 3)
    assert row["low"] == pytest.approx(0.5)
    table = cells(out)
    assert [line["scale"] for line in table] == ["-0.25", "0.5", "1"]
    assert table[1]["age, moved"] == "0.500 [0.500, 0.500]"
    assert "CLIP direction" not in table[1]
    assert "left out, as not available: CLIP direction" in out


def test_what_is_left_of_the_image(measure: Script, painted: Path) -> None:
    assert measure("preservation", "datasets=age")[0] == 0
    found = means("preservation", "1")
    assert found.pop("SSIM") < 1
    error = (RED**2 + BLUE**2) / 3 / 255**2
    assert found == {
        "pixel change": pytest.approx((RED + BLUE) / 3 / 255),
        "PSNR": pytest.approx(-10 * math.log10(error), abs=1e-4),
        "probe distance": pytest.approx(DISTANCE, abs=1e-5),
        "leak": pytest.approx(LEAK, abs=1e-5),
    }


def test_a_slider_as_a_slider(measure: Script, painted: Path) -> None:
    status, out, err = measure("slider", "datasets=age", "--require")
    assert (status, err) == (0, "")
    steps = np.array([0.25, 0.5, 0.5]) / 1.25
    sp = DISTANCE * (0.25 + 0.5 + 1) / 3
    found = means("slider", "")
    assert found == {
        "delta_smooth": pytest.approx(0, abs=1e-5),
        "CR": pytest.approx(1.25, abs=1e-5),
        "CSM": pytest.approx(steps.std(), abs=1e-5),
        "SP": pytest.approx(sp, abs=1e-5),
        "OS": pytest.approx(1.25 / (1 + sp) + 1 - steps.std(), abs=1e-5),
        "Spearman": pytest.approx(1, abs=1e-5),
        "Pearson": pytest.approx(1, abs=1e-5),
        "breaks": pytest.approx(0.1 / LEAK, abs=1e-4),
    }
    (line,) = cells(out)
    assert line["saturates"] == "none"
    assert ("saturates", "") in written("slider")
    assert measure("slider", "datasets=age", "--limit=0.05")[0] == 0
    assert means("slider", "")["breaks"] == pytest.approx(0.05 / LEAK, abs=1e-4)
    assert measure("slider", "datasets=age", "--limit=0.9")[0] == 0
    assert "breaks" not in means("slider", "")


def test_the_error_at_scale_0_of_edited_photographs(measure: Script, painted: Path) -> None:
    for seed in range(3):
        image = Image.open(painted / f"{seed}/skip1_scale0.00.png")
        paint(Path(f"originals/{seed}.bmp"), (image.getpixel((0, 0))[0] + 51, *image.getpixel((0, 0))[1:]))
    assert measure("slider", "datasets=age", "--original", "originals")[0] == 0
    assert means("slider", "")["error at 0"] == pytest.approx(0.4, abs=1e-5)
    Path("originals/1.bmp").unlink()
    status, _, err = measure("slider", "datasets=age", "--original", "originals")
    assert (status, err) == (2, "error: --original: expected an image for every identity, found no 1\n")


@pytest.mark.parametrize(("scales", "columns"), [((0, 1), "breaks"), ((-1, -0.5, 0), "delta_smooth")])
def test_sliders_of_two_images_and_of_one_direction(
    measure: Script, scales: tuple[float, ...], columns: str
) -> None:
    """What they don't tell is none; the rest is measured."""
    for seed in range(2):
        for scale in scales:
            red = 20 + seed + int(160 * (scale - min(scales)))
            paint(run_of("age").seeds_folder / f"{seed}/skip1_scale{scale:.2f}.png", (red, 0, red // 4))
    of_study = ("count_gen=2", f"scales={','.join(map(str, scales))}")
    status, out, err = measure("slider", "datasets=age", *of_study)
    assert status == 0, err
    (line,) = cells(out)
    absent = {"delta_smooth", "saturates"} if columns == "breaks" else {"breaks", "saturates"}
    assert {name for name, cell in line.items() if cell == "none"} == absent
    assert means("slider", "")["CR"] == pytest.approx(max(scales) - min(scales), abs=1e-5)
    assert columns in means("slider", "")


def test_images_as_a_set(measure: Script, painted: Path) -> None:
    for seed in range(3):
        source = painted / f"{seed}/skip1_scale0.00.png"
        Path("reference").mkdir(exist_ok=True)
        shutil.copy(source, f"reference/person{seed}.png")
    status, out, err = measure("distribution", "datasets=age", "--reference", "reference")
    assert (status, err) == (0, "")
    # at scale 1 the reference's own spread, moved by the distance
    assert means("distribution", "0")["FID probe"] == pytest.approx(0, abs=1e-6)
    assert means("distribution", "1")["FID probe"] == pytest.approx(DISTANCE**2, rel=1e-4)
    assert means("distribution", "1")["KID probe"] > means("distribution", "0")["KID probe"]
    assert "unreliable: 3 images, fewer than 2048" in out.splitlines()
    assert written("distribution")["FID probe", "1"]["note"].startswith("unreliable")
    assert written("distribution")["KID Inception", ""]["note"].startswith("inception: not available")
    # the reference's images are many sizes
    paint(Path("reference/large.png"), (90, 90, 90), (96, 64))
    assert measure("distribution", "datasets=age", "--reference", "reference")[0] == 0
    assert means("distribution", "0")["FID probe"] > 1e-3


def test_images_wider_than_the_probe_reads(measure: Script, painted: Path) -> None:
    for path in painted.rglob("*.png"):
        Image.open(path).resize((48, 32)).save(path)
    status, out, err = measure("distribution", "datasets=age", "width=48", *REFERENCE)
    assert (status, err) == (0, "")
    assert "probe: not available: it reads images of 32 x 32, these are of 48 x 32" in out


def test_which_images(measure: Script, painted: Path) -> None:
    for skip in (2, 3):
        paint_slider(painted, skip, (0, 1))
    shutil.copytree(painted, "elsewhere")
    paint(painted / "0/skip2_scale1.00.png", (0, 0, 0))
    paint(Path("elsewhere/0/skip1_scale1.00.png"), (255, 255, 255))
    found = []
    for images in (
        (),
        ("--skip=2",),
        ("--skip=3",),
        ("--images=elsewhere",),
        ("--images=elsewhere", "--skip=2"),
    ):
        assert measure("edit_strength", "datasets=age", "scales=0,1", *images, "--out=here")[0] == 0
        found.append(written("edit_strength", Path("here"))["age, moved", "1"]["mean"])
    other, white = (2 - 50 / RED) / 3, (2 + 205 / RED) / 3
    assert found == pytest.approx([1, other, 1, white, 1])
    assert not OUT.exists()


def test_the_command_is_recorded_with_all_its_options(measure: Script, painted: Path) -> None:
    own = {
        "edit_strength": ("--text", "an old person"),
        "slider": ("--limit=0.2", "--original", "datasets/age/source"),
        "distribution": REFERENCE,
    }
    at = ("--at", "0=datasets/age/source", "--at", "1=datasets/age/target", "datasets=age")
    for name, arguments in own.items():
        status, _, err = measure(name, *arguments, *at)
        assert status == 0, err
        words = ["python", f"eval_scripts/{name}.py", "--c=mini", *arguments, *at]
        recorded = strict((OUT / f"{name}.json").read_text())["command"]
        assert recorded == " ".join(f"'{word}'" if " " in word else word for word in words)
