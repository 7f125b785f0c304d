"""The measuring scripts of train/eval_scripts as they are typed; probe and networks see colours."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import TRAIN, Script, command
from tests.measure.test_encoders import clip_folder, dino_folder  # noqa: F401
from tinyflux.people import ATTRIBUTES
from utils.config.load import load_config
from utils.config.runs import Run, expand_runs
from utils.measure.encoders import ENCODERS, Unavailable

OUT = Path("output/eval/measures/mini")
OF_IMAGES = ("edit_strength", "preservation", "slider", "distribution")
REFERENCE = ("--reference", "datasets/age/source")
NO_WEIGHTS = "".join(f"{name}_weights: ''\n" for name in (*ENCODERS, "inception"))

# the painted slider: red and blue of an image at scale s, in bytes; the pairs' red goes from 40 to 200
RED, BLUE, SCALES = 160, 52, (-0.25, 0, 0.5, 1)
SEEN_BLUE = len(ATTRIBUTES) - 2
LEAK = (RED + BLUE * SEEN_BLUE) / 255 / (len(ATTRIBUTES) - 1)  # at scale 1
DISTANCE = math.hypot(RED, BLUE) * 2 / 255  # from scale 0 to 1


class Probe:
    """Reads the age and the smile off red, everything else off blue; its features are the colour."""

    def read(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        red, _, blue = (images.mean(dim=(2, 3)) / 2 + 0.5).unbind(dim=1)
        return {name: red if name in ("age", "smile") else blue for name in ATTRIBUTES}

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(2, 3))


class Network:
    """In place of every outside network: a colour of at most 90 degrees, as a unit vector."""

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        colour = torch.cat([images.mean(dim=(2, 3)) / 2 + 0.5, torch.full((len(images), 1), 0.3)], dim=1)
        return torch.nn.functional.normalize(colour, dim=1)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return self.embed(images)

    def embed_text(self, texts: list[str]) -> torch.Tensor:
        return torch.tensor([[1.0, 0, 0, 0]]).repeat(len(texts), 1)

    def distance(self, a: torch.Tensor, b: torch.Tensor, resolution: int | None) -> torch.Tensor:
        return (a - b).abs().mean(dim=(1, 2, 3))

    def to(self, device: torch.device) -> Network:
        return self

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return images.float().mean(dim=(2, 3))


@pytest.fixture
def measure(site: Path, script: Script, monkeypatch: pytest.MonkeyPatch) -> Script:
    """Call a script on the study `mini`, its judge the probe; no outside network has weights."""
    path = site / "config/mini.yaml"
    scales = ",".join(map(str, SCALES))
    own = f"scales: {scales}\nstart_seed_gen: 0\ncount_gen: 3\njudge: probe\n{NO_WEIGHTS}"
    path.write_text(path.read_text().replace("scales: 0,0.5,-1\n", own))
    monkeypatch.syspath_prepend(str(TRAIN / "eval_scripts"))
    monkeypatch.setattr("tinyflux.probe.load_probe", Probe)
    monkeypatch.setattr("tinyflux.judge._strangers", lambda: 1.0)
    return lambda name, *arguments: script(name, "--c=mini", *arguments)


@pytest.fixture
def all_there(site: Path, measure: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every outside network has weights."""
    for name in ENCODERS:
        monkeypatch.setitem(ENCODERS, name, (lambda source, device: Network(), ""))
    monkeypatch.setattr("torchmetrics.image.fid.NoTrainInceptionV3", lambda *args: Network())
    path = site / "config/mini.yaml"
    path.write_text(path.read_text().replace("_weights: ''", "_weights: there"))


@pytest.fixture
def no_tools(monkeypatch: pytest.MonkeyPatch) -> list:
    """What was loaded of the outside networks: nothing, if a fault was told at once."""
    loaded: list = []

    def load_tools(*args: object) -> Mapping[str, object]:
        loaded.append(args)
        return {name: Unavailable(name, "", "") for name in ENCODERS}

    monkeypatch.setattr("utils.measure.judges.load_tools", load_tools)
    return loaded


def run_of(dataset: str) -> Run:
    (run,) = expand_runs(load_config("mini", [f"datasets={dataset}"], Path("config")))
    return run


def paint(path: Path, colour: tuple[int, ...], size: tuple[int, int] = (32, 32)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def paint_slider(folder: Path, skip: int = 1, scales: tuple[float, ...] = SCALES) -> None:
    """Three identities whose red and blue follow the slider."""
    for seed in range(3):
        for scale in scales:
            colour = (50 + 7 * seed + int(RED * scale), 30 * seed, 100 + int(BLUE * scale))
            paint(folder / f"{seed}/skip{skip}_scale{scale:.2f}.png", colour)


@pytest.fixture
def painted(site: Path) -> Path:
    """The images of the run on `age`, as generation would have written them."""
    folder = run_of("age").seeds_folder
    paint_slider(folder)
    return folder


def strict(text: str) -> Any:
    """JSON as the standard has it: Python alone reads NaN and Infinity."""

    def refused(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refused)


def written(name: str, folder: Path = OUT) -> dict[tuple[str, str], dict[str, Any]]:
    """{(measure, scale): row} of one run's files, which agree."""
    rows = strict((folder / f"{name}.json").read_text())["rows"]
    with (folder / f"{name}.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert len(rows) == len(table) > 0
    for row, of_csv in zip(rows, table, strict=True):
        assert all(of_csv[key] == row[key] for key in ("run", "scale", "measure", "note"))
        for key in ("mean", "low", "high"):
            number = row.get(key)
            assert of_csv[key] in ("", "inf", "nan") if number is None else float(of_csv[key]) == number
    found = {(row["measure"], row["scale"]): row for row in rows}
    assert len(found) == len(rows)
    return found


def means(name: str, scale: str) -> dict[str, float | None]:
    """{measure: mean} at a scale, of what has values."""
    rows = written(name).items()
    return {measure: row["mean"] for (measure, at), row in rows if at == scale and "mean" in row}


def cells(printed: str) -> list[dict[str, str]]:
    """The printed table, a dict a row."""
    lines = [line for line in printed.splitlines() if line.startswith("|")]
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return [dict(zip(header, row, strict=True)) for row in rows]


def options(name: str) -> tuple[str, ...]:
    """What the script needs besides a study."""
    return REFERENCE if name == "distribution" else ()


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
    assert table[1]["CLIP direction"] == "not available"


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


# --- the ends of the scales ---


def test_a_perfect_editor(measure: Script) -> None:
    perfect = ("datasets=age", "--at", "0=datasets/age/source", "--at", "1=datasets/age/target")
    for name in OF_IMAGES:
        status, _, err = measure(name, *perfect, *options(name))
        assert status == 0, err
    assert means("edit_strength", "1") == {"age, moved": pytest.approx(1)}
    # of what the pairs leave alone, only the smile is read off red as well
    assert means("preservation", "1")["leak"] == pytest.approx(RED / 255 / (len(ATTRIBUTES) - 1))
    found = means("slider", "")
    assert (found["CR"], found["Spearman"]) == pytest.approx((1, 1), abs=1e-5)
    assert means("distribution", "0")["FID probe"] == pytest.approx(0, abs=1e-6)


def test_an_editor_that_does_nothing(measure: Script) -> None:
    idle = ("datasets=age", "--at", "0=datasets/age/source", "--at", "1=datasets/age/source")
    idle += ("--at", "2=datasets/age/source")
    for name in OF_IMAGES:
        status, out, err = measure(name, *idle, *options(name))
        assert status == 0, err
        if name == "preservation":
            assert [line["PSNR"] for line in cells(out)] == ["inf", "inf"]
    assert means("edit_strength", "1") == {"age, moved": 0}
    left = means("preservation", "1")
    assert left.pop("PSNR") is None
    assert left == {"pixel change": 0, "SSIM": pytest.approx(1), "probe distance": 0, "leak": 0}
    row = written("preservation")["PSNR", "1"]
    assert (row["count"], row["finite"]) == (2, 0)
    found = means("slider", "")
    assert found.pop("CSM") is found.pop("OS") is None
    assert set(found.values()) == {0}
    assert {"delta_smooth", "CR", "SP", "Spearman", "saturates"} <= found.keys()


def test_one_image_of_two_was_left_alone(measure: Script) -> None:
    Path("after").mkdir()
    for stem, side in (("0", "source"), ("1", "target")):
        shutil.copy(f"datasets/age/{side}/{stem}.png", "after")
    at = ("datasets=age", "--at", "0=datasets/age/source", "--at", "1=after")
    status, out, _ = measure("preservation", *at)
    assert status == 0
    (line,) = cells(out)
    assert (line["PSNR"], line["pixel change"]) == (
        "inf",
        f"{RED / 6 / 255:.3f} [0.000, {RED / 3 / 255:.3f}]",
    )
    row = written("preservation")["PSNR", "1"]
    assert (row["count"], row["finite"], row["mean"], row.get("low")) == (2, 1, None, None)


def test_the_pairs_in_clips_eyes(measure: Script, all_there: None) -> None:
    perfect = ("datasets=age", "judge=clip", "--at", "0=datasets/age/source", "--at", "1=datasets/age/target")
    assert measure("edit_strength", *perfect, "--text=old", "--require")[0] == 0
    found = means("edit_strength", "1")
    assert list(found) == ["CLIP direction", "CLIP score"]
    assert found["CLIP direction"] > 0.9  # of each pair with their mean
    embedded = Network().embed(torch.tensor([200, 0, 0]).view(1, 3, 1, 1) / 127.5 - 1)
    with_blue = Network().embed(torch.tensor([200, 0, 80]).view(1, 3, 1, 1) / 127.5 - 1)
    score = 50 * (embedded + with_blue)[0, 0].item()
    assert found["CLIP score"] == pytest.approx(score, abs=1e-3)
    assert measure("slider", *perfect, "--require")[0] == 0
    assert means("slider", "")["CR"] == pytest.approx(1, abs=1e-5)
    # damage is DINOv2's distance, from 0 at scale 0
    before = Network().embed(torch.tensor([[40, 0, 0], [40, 0, 80]])[:, :, None, None] / 127.5 - 1)
    damage = 1 - (before * torch.cat([embedded, with_blue])).sum(dim=1).mean().item()
    assert 0.1 < damage < 0.3  # CLIP's own limit
    assert "breaks" not in means("slider", "")
    assert measure("slider", *perfect, f"--limit={damage / 4}")[0] == 0
    assert means("slider", "")["breaks"] == pytest.approx(0.25, abs=1e-4)


def test_with_miniatures_of_the_real_networks(
    measure: Script,
    painted: Path,
    clip_folder: Path,  # noqa: F811
    dino_folder: Path,  # noqa: F811
) -> None:
    weights = (f"clip_weights={clip_folder}", f"dinov2_weights={dino_folder}", "judge=clip", "datasets=age")
    for name in OF_IMAGES:
        own = ("--text=a cat",) if name == "edit_strength" else options(name)
        status, _, err = measure(name, *weights, *own)
        assert status == 0, err
    assert set(means("edit_strength", "1")) == {"CLIP direction", "CLIP score"}
    assert -1 <= means("edit_strength", "1")["CLIP direction"] <= 1
    assert 0 <= means("edit_strength", "1")["CLIP score"] <= 100
    assert -1 <= means("preservation", "1")["DINOv2"] < 1
    assert {"Spearman", "Pearson"} <= means("slider", "").keys()
    assert written("slider")["CR", ""]["note"].startswith("lpips_alex: not available: no weights named")
    assert set(means("distribution", "1")) == {"FID DINOv2", "KID DINOv2"}


# --- what is not there ---

LACKED = {
    "edit_strength": ["clip"],
    "preservation": ["lpips_alex", "lpips_vgg", "dinov2", "arcface"],
    "slider": ["lpips_alex", "clip"],
    "distribution": ["inception", "dinov2"],
}


@pytest.mark.parametrize("name", OF_IMAGES)
def test_what_is_not_available_is_told_with_why_and_how(measure: Script, painted: Path, name: str) -> None:
    arguments = ("datasets=age", "judge=clip", *options(name))
    status, out, err = measure(name, *arguments)
    assert (status, err) == (0, "")
    assert any("not available" in line.values() for line in cells(out))
    told = [line for line in out.splitlines() if ": not available: no weights named; to have it: " in line]
    assert [line.split(":")[0] for line in told] == LACKED[name]
    absent = [row for row in written(name).values() if "mean" not in row]
    assert {row["note"] for row in absent} == set(told)

    shutil.rmtree(OUT)
    status, out, err = measure(name, *arguments, "--require")
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert err == f"error: {'; '.join(told)}\n"
    assert written(name)  # what could be measured is kept


def test_with_all_weights_there_nothing_is_lacking(measure: Script, all_there: None, painted: Path) -> None:
    for name in OF_IMAGES:
        for judge in ("probe", "clip"):
            status, out, err = measure(name, "datasets=age", f"judge={judge}", "--require", *options(name))
            assert (status, err) == (0, "")
            assert "not available" not in out


# --- faults, told at once ---


@pytest.mark.parametrize("name", OF_IMAGES)
def test_faults_are_told_before_anything_is_loaded(
    site: Path, measure: Script, painted: Path, no_tools: list, name: str
) -> None:
    paint(site / "odd/0.png", (0, 0, 0), (32, 48))
    paint(site / "fewer/0.png", (0, 0, 0))
    for stem in "01":
        paint(site / f"large/{stem}.png", (0, 0, 0), (64, 64))
    (site / "a_file").touch()
    folder = "datasets/age"
    faults = {
        # images that are not there
        (): f"{run_of('smile').seeds_folder}: expected images that gen_image_script.py wrote",
        (
            "datasets=age",
            "--images=nowhere",
        ): "nowhere: expected images that gen_image_script.py wrote",
        ("datasets=age", "--skip=3"): f"{painted}: expected images of skip 3, found skips [1]",
        ("datasets=age", "skips=2"): f"{painted}: expected images of skip 2, found skips [1]",
        ("datasets=age", "--at=0=nowhere", f"--at=1={folder}/source"): "nowhere: expected a folder of images",
        ("datasets=age", "--at=0=fewer", f"--at=1={folder}/target"): (
            f"fewer, {folder}/target: expected every image at every scale, found no 1 at 0"
        ),
        (
            "datasets=age",
            f"--at=1={folder}/target",
        ): "expected images at scale 0 and others, found scales [1.0]",
        (
            "datasets=age",
            "--at=0=odd",
            "--at=1=odd",
        ): "expected images of 32 x 32 (resolution), found 32 x 48",
        ("datasets=age", "--at=0=large", "--at=1=large"): "expected images of 32 x 32 (resolution), found 64",
        # which run
        ("--images=elsewhere",): "--images, --at: expected a study of one run, found 2; name one dataset",
        (f"--at=0={folder}/source", f"--at=1={folder}/target"): "expected a study of one run, found 2",
        (
            "datasets=age",
            f"--at=0={folder}/source",
            "--at=0=b",
        ): "--at: expected one folder a scale, found scales 0, 0",
        # the study, its pairs and the results' folder
        ("datasets=agee", "--images=x"): "x: expected images that gen_image_script.py wrote",
        ("datasets=agee", f"--images={painted}"): "datasets/agee/source: expected a folder of images",
        ("datasets=age", "--out=a_file"): "a_file: expected a folder to write to",
        ("datasets=age", "juge=probe"): "unknown key 'juge' (did you mean 'judge'?)",
    }
    for arguments, expected in faults.items():
        status, out, err = measure(name, *arguments, *options(name))
        assert (status, out, len(err.splitlines())) == (2, "", 1), (arguments, out, err)
        assert expected in err, arguments
    shutil.copytree("datasets/age", "datasets/hats")
    status, _, err = measure(name, "datasets=hats", f"--images={painted}", *options(name))
    assert (status, len(err.splitlines())) == (2, 1)
    assert "datasets: expected names of attributes that the probe reads" in err
    assert no_tools == []
    assert not OUT.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--at=source",),
        ("--at=0=",),
        ("--at=nan=x",),
        ("--at", "x=source"),
        ("--at=0=x", "--images=x"),
        ("--skip=all",),
        ("--requires",),
    ],
)
def test_options_that_are_none(measure: Script, no_tools: list, arguments: tuple[str, ...]) -> None:
    status, out, err = measure("preservation", "datasets=age", *arguments)
    assert (status, out, no_tools) == (2, "", [])
    assert arguments[0].split("=")[0] in err


def test_the_scripts_own_options_are_checked(measure: Script, painted: Path, no_tools: list) -> None:
    found = measure("distribution", "datasets=age")
    assert found == (2, "", "error: --reference: expected a folder of images to compare with, found none\n")
    for name, option in (("distribution", "--reference"), ("slider", "--original")):
        status, out, err = measure(name, "datasets=age", option, "nowhere")
        assert (status, out, len(err.splitlines())) == (2, "", 1)
        assert "nowhere: expected a folder of images, found none" in err
    for limit in ("nan", "inf", "low"):
        status, _, err = measure("slider", "datasets=age", f"--limit={limit}")
        assert status == 2
        assert f"--limit: expected a number, found '{limit}'" in err
    assert no_tools == []


def test_a_set_of_one_image_is_none(measure: Script, painted: Path) -> None:
    paint(Path("one/0.png"), (0, 0, 0))
    status, _, err = measure("distribution", "datasets=age", "--reference", "one")
    assert (status, len(err.splitlines())) == (2, 1)
    assert "expected 2 images or more at each scale and in --reference, found 3 and 1" in err


def test_help_lists_the_options(measure: Script) -> None:
    own = {"edit_strength": "--text", "slider": "--limit", "distribution": "--reference"}
    for name in (*OF_IMAGES, "cost"):
        status, out, _ = measure(name, "--help")
        assert status == 0
        assert "--out FOLDER" in out
        assert own.get(name, "--c NAME") in out
        assert ("--require" in out) == (name != "cost")


# --- dry runs ---


@pytest.mark.parametrize("name", [*OF_IMAGES, "cost"])
def test_a_dry_run_lists_writes_nothing_and_imports_nothing_heavy(site: Path, name: str) -> None:
    before = sorted(site.rglob("*"))
    done = command(
        f"eval_scripts/{name}", "--c=mini", "--dry-run", *options(name), cwd=site, python=("-X", "importtime")
    )
    assert done.returncode == 0, done.stderr
    assert "2 runs, dry run" in done.stdout
    for run in (run_of("age"), run_of("smile")):
        assert run.name in done.stdout
        assert str(run.record_path if name == "cost" else run.seeds_folder) in done.stdout
    assert sorted(site.rglob("*")) == before
    imported = {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "omegaconf" in imported
    assert not imported & {"torch", "diffusers", "transformers", "torchmetrics", "PIL"}


def test_a_dry_run_says_which_folders(measure: Script) -> None:
    at = ("--at", "0=before", "--at=-1=opposite")
    status, out, _ = measure("preservation", "--dry-run", "datasets=age", *at)
    assert status == 0
    assert "before at 0, opposite at -1" in out
    assert "elsewhere" in measure("preservation", "--dry-run", "datasets=age", "--images=elsewhere")[1]


# --- costs ---


def write_record(path: Path, **changes: Any) -> None:
    record = {"work": "training", "seconds": 8.0, "count": 20, "peak_bytes": 3 * 2**29, "device": "a card"}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**record, "torch": "2.11", **changes}))


def test_costs_are_read_from_the_records(measure: Script) -> None:
    age = run_of("age")
    write_record(age.record_path)
    write_record(age.seeds_folder / "record.json", work="generation", seconds=4.0, count=2, peak_bytes=None)
    status, out, err = measure("cost", "--out=here")  # smile was not trained
    assert (status, err) == (0, "")
    expected = [
        {"run": age.name, "work": "training", "seconds": "8.0", "count": "20", "per second": "2.50"},
        {"run": age.name, "work": "generation", "seconds": "4.0", "count": "2", "per second": "0.50"},
    ]
    for row, peak in zip(expected, ("1.50", ""), strict=True):
        row |= {"peak GiB": peak, "device": "a card"}
    assert cells(out) == expected
    content = strict(Path("here/cost.json").read_text())
    assert content == {"command": "python eval_scripts/cost.py --c=mini --out=here", "rows": expected}
    with Path("here/cost.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == expected


def test_costs_that_were_not_recorded(measure: Script) -> None:
    status, out, err = measure("cost")
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert f"{run_of('smile').record_path}: expected the record of a training, found none; train first" in err
    path = run_of("age").record_path
    path.parent.mkdir(parents=True)
    path.write_text("{")
    status, _, err = measure("cost")
    assert (status, len(err.splitlines())) == (2, 1)
    assert f"{path}: expected a run's record, found" in err
    assert not OUT.exists()
