"""Several processes that train one run, on the miniature FLUX: real ones that talk over gloo, on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from safetensors import safe_open

from tests.training.processes import (
    FSDP,
    Launch,
    environment,
    free_port,
    largest_difference,
    log_lines,
    moved,
    run_folder,
    weights,
)
from utils.errors import UserError
from utils.jobs.prepare import load_base, prepare
from utils.models.base import Base
from utils.training.distributed import shard


def test_two_processes_learn_what_one_does_of_twice_the_batch(site: Path, launch: Launch) -> None:
    """Of a square pair and a wide one: a step is of one size in all processes."""
    for path in site.glob("datasets/age/*/1.png"):
        Image.open(path).resize((90, 40)).save(path)
    assert launch(1, "batch_size=2")[0] == [0]
    expected = moved(site, "one")
    assert launch(1, "batch_size=1")[0] == [0]
    half = moved(site, "half")
    for fsdp in (False, True):
        checkpointing = f"gradient_checkpointing={int(fsdp)}"  # recomputes under gathered weights
        statuses, outputs = launch(2, checkpointing, "sample_per_steps=3", fsdp=fsdp)
        assert statuses == [0, 0], outputs
        (line,) = [line for line in outputs[0].splitlines() if line.startswith("base: ")]
        assert line.endswith("on cpu, float32, 2 processes")
        assert len(list(run_folder(site).glob("samples/*.png"))) == 2
        found = moved(site, f"two_{fsdp}")
        assert largest_difference(found, expected) < 1e-6
        assert largest_difference(found, half) > 1e-4
    for left, right in zip(log_lines(site / "one"), log_lines(site / "two_True"), strict=True):
        assert left.keys() == right.keys()
        for name in ("content", "semantic"):
            assert left[name] == pytest.approx(right[name], rel=1e-5)


def test_one_process_writes_and_what_is_trained_is_left(site: Path, launch: Launch) -> None:
    assert launch(1)[0] == [0]
    alone = {
        path.relative_to(site / "output") for path in site.glob("output/**/*") if "events" not in path.name
    }
    (path,) = run_folder(site).glob("*_6epoch.safetensors")
    hash_alone = header(path)["base_hash"]
    (site / "output").rename(site / "alone")

    statuses, (main, other) = launch(2, fsdp=True)
    assert statuses == [0, 0]
    together = {
        path.relative_to(site / "output") for path in site.glob("output/**/*") if "events" not in path.name
    }
    assert together == alone
    assert len(list(site.glob("output/**/events*"))) == 1
    assert header(path)["base_hash"] == hash_alone
    assert (header(path)["processes"], header(path)["ss_batch_size_per_device"]) == ("2", "1")
    assert "1 of 1 run done" in main
    assert "1 of 1" not in other

    before = path.stat().st_mtime_ns
    statuses, (main, other) = launch(2)
    assert statuses == [0, 0]
    assert "trained before, left as it is" in main
    assert path.stat().st_mtime_ns == before
    assert len(list(site.glob("output/**/events*"))) == 1


def header(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return file.metadata()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_loss_that_is_not_finite_in_one_stops_all_and_the_next_run_comes(
    site: Path, launch: Launch, rank: int
) -> None:
    statuses, outputs = launch(2, "datasets=[age,smile]", faults={rank: "nan"})
    assert statuses == [1, 1]
    assert outputs[0].count("content loss is nan at step 3") == 1
    assert "failed" not in outputs[1]
    assert [path.name.rpartition("_")[2] for path in run_folder(site).glob("*.safetensors")] == [
        "2epoch.safetensors"
    ]
    (smile,) = site.glob("output/models/image/smile/*_v1")
    assert (smile / "record.json").is_file()


def test_a_folder_that_is_taken_is_told_to_all(site: Path, launch: Launch) -> None:
    from filelock import FileLock

    assert launch(1)[0] == [0]
    lock = run_folder(site).with_name(f".{run_folder(site).name}.lock")
    with FileLock(lock):
        statuses, (main, other) = launch(2)
    assert statuses == [2, 2]
    assert main.count("found another process training in it") == 1
    assert "Traceback" not in main + other


def test_interrupted_in_one_all_stop_after_the_same_step_and_go_on(site: Path, launch: Launch) -> None:
    assert launch(2)[0] == [0, 0]
    expected = moved(site, "whole")
    statuses, outputs = launch(2, faults={1: "interrupt"})
    assert statuses == [130, 130], outputs
    assert all("saved after step 4" in output for output in outputs)  # noted in step 3, told to all by step 4
    assert (run_folder(site) / "state.pt").is_file()
    statuses, outputs = launch(2, "--resume")
    assert statuses == [0, 0], outputs
    assert "resuming from step 4" in outputs[0]
    found = weights(site)
    assert all(found[key].equal(expected[key]) for key in expected)
    assert not (run_folder(site) / "state.pt").exists()


def test_a_fault_of_one_ends_it_at_once(site: Path, launch: Launch) -> None:
    statuses, (_, faulty) = launch(2, "datasets=[age,smile]", faults={1: "error"})
    assert statuses[1] == 1
    assert statuses[0] != 0  # gloo tells it; whoever it is not told to, the launcher ends
    assert "ZeroDivisionError" in faulty
    assert not list(site.glob("output/models/image/smile/*_v1/record.json"))


def test_only_trainings_are_launched(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in environment(0, 2, free_port()).items():
        monkeypatch.setenv(key, value)
    study = prepare(["--c=mini"], "", {"train_image": ""})
    with pytest.raises(UserError, match="expected a script that trains"):
        load_base(study, [""])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [("FSDP_VERSION", "1", "fsdp_version 2, found 1"), ("FSDP_OFFLOAD_PARAMS", "true", "false, found true")],
)
def test_what_fsdp_can_not_do_here_is_said(
    key: str, value: str, message: str, mini_flux_loaded: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (set_keys := {**FSDP, key: value}):
        monkeypatch.setenv(name, set_keys[name])
    with pytest.raises(UserError, match=message):
        shard(mini_flux_loaded)
