"""The measuring scripts' faults, told at once; their help, dry runs and costs."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Script, command
from tests.train.measuring import OF_IMAGES, OUT, cells, options, paint, run_of, strict
from utils.measure.encoders import ENCODERS, Unavailable


@pytest.fixture
def no_tools(monkeypatch: pytest.MonkeyPatch) -> list:
    """What was loaded of the outside networks: nothing, if a fault was told at once."""
    loaded: list = []

    def load_tools(*args: object) -> Mapping[str, object]:
        loaded.append(args)
        return {name: Unavailable(name, "", "") for name in ENCODERS}

    monkeypatch.setattr("utils.measure.instruments.load_tools", load_tools)
    return loaded


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
        ): "expected images of 32 x 32, found 32 x 48",
        ("datasets=age", "--at=0=large", "--at=1=large"): "expected images of 32 x 32, found 64",
        # which run
        ("--images=elsewhere",): "--images, --at: expected a config of one run, found 2; name one dataset",
        (f"--at=0={folder}/source", f"--at=1={folder}/target"): "expected a config of one run, found 2",
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
    assert "pydantic" in imported
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
