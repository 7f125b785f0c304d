"""Runs on a local Ray of two workers: placed whole, lost and resumed, failed and reported, interrupted."""

from __future__ import annotations

import _thread
import csv
import importlib
import logging
import os
import pickle
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image
from safetensors.torch import load_file

from tests.conftest import Script
from tests.workers import bright, bright_probe, fail, keep
from utils.config.load import load_config
from utils.config.runs import RealRun, Run, expand_real_runs, expand_runs
from utils.config.schema import choices
from utils.jobs.launch import LAUNCHERS, launch
from utils.jobs.outcomes import Outcome
from utils.training.checkpoints import Checkpoint
from utils.training.claims import LOCK

ray = pytest.importorskip("ray")
SLIDER_TEXT = Path(__file__).resolve().parents[2] / "slider_text"
WAIT = 600.0
"""Seconds for something to happen on a machine that is busy otherwise."""


@pytest.fixture(scope="module")
def started() -> Iterator[None]:
    """A Ray of two CPUs and no GPU on this machine, ended whatever happens."""
    environment = pytest.MonkeyPatch()
    environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
    environment.setenv("RAY_worker_niceness", "0")  # Ray makes room for others, which may be many
    try:
        ray.init(
            address="local",
            num_cpus=2,
            num_gpus=0,
            object_store_memory=100 * 2**20,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        yield
    finally:
        ray.shutdown()
        environment.undo()


@pytest.fixture
def cluster(site: Path, started: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """`site`, with Ray there; on one thread, as Ray's workers are."""
    monkeypatch.syspath_prepend(str(SLIDER_TEXT))  # by every test, so that one set of workers serves them all
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield site
    torch.set_num_threads(threads)


def runs_of(*overrides: str) -> list[Run]:
    return expand_runs(load_config("mini", ["launcher=ray", *overrides], Path("config")))


def when(happens: Callable[[], bool], react: Callable[[], object]) -> threading.Thread:
    """Watch from a thread of its own, and react once."""

    def watch() -> None:
        end = time.monotonic() + WAIT
        while time.monotonic() < end:
            if happens():
                react()
                return
            time.sleep(0.005)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def pids(run: Run) -> list[int]:
    """The processes that a run was done in."""
    return [int(pid) for pid in re.findall(r"process (\d+) on ", run.output_path.read_text())]


# --- what a worker is given ---


def test_a_worker_gets_one_run_whole(cluster: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, size in (("610", (48, 32)), ("wide", (32, 56))):
        folder = cluster / "datasets/real/source"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((*size, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    sweep = ("train_count=2", "noise_scales=[1,3]", "prompt=[a cat,a dog]", "train_start=4")
    runs = runs_of(*sweep)
    config = load_config("mini", ["launcher=ray", "datasets=real"], Path("config"))
    runs += expand_real_runs(config)
    outcomes: dict[str, Outcome] = {}
    assert launch(runs, partial(keep, cluster), "next: look", outcomes) == 0
    assert len(runs) == 10
    for run in runs:
        given, done, folder = pickle.loads(outcomes[run.name].path.read_bytes())
        assert (given, done, Path(folder)) == ([run], run, cluster)
        assert type(done) is type(run)
    out, err = capsys.readouterr()
    assert out.startswith("10 of 10 runs done\n")
    assert out.endswith("next: look\n")
    assert re.search(r"runs: 10 of 10 runs in \d+ s, failed=0, running=0\n", err)


def test_the_registry_has_the_launchers_of_the_schema() -> None:
    assert tuple(LAUNCHERS) == choices("launcher")


def test_without_ray_one_line_says_how_to_get_it(
    script: Script, loads: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    status, _, err = script("train_image_script", "--c=mini", "launcher=ray")
    assert (status, len(err.splitlines()), loads) == (2, 1, [])
    assert "launcher: expected Ray" in err
    assert "pip install '.[ray]'" in err


def test_ray_picks_the_gpu(script: Script, loads: list) -> None:
    status, _, err = script("train_image_script", "--c=mini", "launcher=ray", "device=cuda:1")
    assert (status, len(err.splitlines()), loads) == (2, 1, [])
    assert "device: expected auto, cpu or cuda, since Ray picks the GPU, found cuda:1" in err


# --- faults and losses ---


def test_faults_are_told_and_lost_runs_alone_are_retried(
    cluster: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import utils.jobs.ray_tasks

    monkeypatch.setattr(utils.jobs.ray_tasks, "RETRIES", 1)
    runs = runs_of("datasets=[age]", "noise_scales=[1,2,3,4,5]")
    users, ours, once_lost, lost, fine = runs
    assert launch(runs, fail, "next: look") == 1
    out, err = capsys.readouterr()
    assert "2 of 5 runs done" in out.splitlines()  # Ray says there too which worker died of what
    failed = {line.split(": ", 2)[1]: line for line in err.splitlines() if line.startswith("failed: ")}
    assert set(failed) == {users.name, ours.name, lost.name}
    for run, reason in (
        (users, "datasets: expected cats, found dogs"),
        (ours, "ValueError: what nobody thought of"),
        (lost, "its worker was lost 2 times"),
    ):
        assert failed[run.name] == f"failed: {run.name}: {reason}; its output: {run.output_path}"
    assert {run.name: len(pids(run)) for run in runs} == {
        **dict.fromkeys((users.name, ours.name, fine.name), 1),
        **dict.fromkeys((once_lost.name, lost.name), 2),
    }
    assert "Traceback" in ours.output_path.read_text()
    assert f"{once_lost.name}: its worker was lost; it resumes from its last save" in err


# --- trainings ---


def test_a_training_whose_worker_is_killed_ends_the_same(cluster: Path, script: Script) -> None:
    arguments = ("--c=mini", "train_iteration=40", "save_per_steps=4", "rank=4")
    assert script("train_image_script", *arguments, "output_folder=here")[0] == 0
    killed, other = runs_of(*arguments[1:])
    thread = when(killed.state_path.exists, lambda: os.kill(pids(killed)[0], signal.SIGKILL))
    status, out, err = script("train_image_script", *arguments, "launcher=ray")
    thread.join()
    assert status == 0, err
    assert "2 of 2 runs done" in out
    assert "next: python gen_image_script.py --c=mini" in out
    assert (len(pids(killed)), len(pids(other))) == (2, 1)
    (step,) = re.findall(r": resuming from step (\d+)", killed.output_path.read_text())
    assert int(step) > 0
    assert int(step) % 4 == 0
    assert "resuming" not in other.output_path.read_text()
    for run in (killed, other):
        (here,) = Path("here").glob(f"*/{run.name}/*_40epoch.safetensors")
        found, expected = load_file(run.weights_path()), load_file(here)
        assert found.keys() == expected.keys()
        assert all(found[key].equal(expected[key]) for key in expected)
        assert not run.state_path.exists()
    assert not list(Path("output").rglob("*_old*"))


@pytest.mark.slow
def test_ctrl_c_saves_what_is_running(cluster: Path, script: Script) -> None:
    runs = runs_of("train_iteration=100000")
    arguments = ("train_iteration=100000", "save_per_steps=100000", "log_every=1", "launcher=ray")
    begun = lambda: all(run.log_path.is_file() and run.log_path.stat().st_size for run in runs)  # noqa: E731
    thread = when(begun, _thread.interrupt_main)
    status, _, err = script("train_image_script", "--c=mini", *arguments)
    thread.join()
    assert status == 130
    assert "stopping; trainings end their step and save" in err
    for run in runs:
        step = Checkpoint.load(run.state_path).step
        assert 0 < step < 100000
        assert run.weights_path(step).is_file()
        assert len(pids(run)) == 1


def test_a_run_that_is_being_trained_elsewhere_is_told(cluster: Path, script: Script) -> None:
    age, smile = runs_of()
    age.folder.mkdir(parents=True)
    with FileLock(age.folder.with_name(f".{age.name}{LOCK}")):
        status, _, err = script("train_image_script", "--c=mini", "launcher=ray")
    assert status == 1
    assert smile.weights_path().is_file()
    assert f"failed: {age.name}: {age.folder}: expected it free, found another process training" in err
    assert len(pids(age)) == 1


@pytest.mark.slow
def test_photographs_and_text_sliders_go_the_same_way(cluster: Path, script: Script) -> None:
    (cluster / "config/real.yaml").write_text(
        "base: mini\npython_name: train_image_real\ndevice: cpu\ndatasets: real\ntrain_iteration: 2\n"
    )
    (cluster / "datasets/real/source").mkdir(parents=True)
    for stem in ("610", "wide"):
        Image.new("RGB", (40, 32)).save(cluster / f"datasets/real/source/{stem}.png")
    status, out, err = script("train_image_real_script", "--c=real", "launcher=ray")
    assert status == 0, err
    assert "2 of 2 runs done" in out
    config = load_config("real", [], Path("config"))
    assert all(isinstance(run, RealRun) and run.weights_path().is_file() for run in expand_real_runs(config))

    (cluster / "prompts").mkdir()
    (cluster / "prompts/age.yaml").write_text(
        "- {target: cat, positive: old cat, unconditional: young cat, neutral: cat, action: enhance, "
        "guidance_scale: 1.5, resolution: 32, batch_size: 1}\n"
    )
    arguments = ("python_name=slider_text", "datasets_folder=prompts", "datasets=[age]", "launcher=ray")
    status, out, err = script("train_slider_text_script", "--c=mini", *arguments)
    assert status == 0, err
    assert list(Path("output").glob("**/age_vslider_text_1.5eta_*/*_2epoch.safetensors"))


# --- a comparison ---


@pytest.mark.slow
def test_a_comparison_comes_out_the_same(
    cluster: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cluster / "config/plan.yaml").write_text(
        "base: mini\nmethods: [train_image, train_image_sliders]\ndatasets: [age]\nseeds: 1\n"
        "identities: 2\nshown: 1\nscales: 0,0.5,1\n"
        "settings: {device: cpu, judge: probe, train_iteration: 2, save_per_steps: 2, skips: 1, lr: 0.05,\n"
        '  prompt: a cat, clip_weights: "", dinov2_weights: "", lpips_alex_weights: "",\n'
        '  lpips_vgg_weights: ""}\n'
    )
    study_script = importlib.import_module("study_script")
    monkeypatch.setattr("tinyflux.judge.face_probe", bright_probe)
    status, _, err = script("study_script", "--c=plan", "out=here")
    assert status == 0, err
    monkeypatch.setattr(study_script, "worker", bright)  # its workers get that probe too
    status, out, err = script("study_script", "--c=plan", "out=ray", "launcher=ray")
    assert status == 0, err
    assert "2 of 2 runs done" in out
    assert Path("ray/report.html").is_file()
    here, there = (list(csv.DictReader((cluster / out / "results.csv").open())) for out in ("here", "ray"))
    assert len(here) == 6
    assert there == here
    again = script("study_script", "--c=plan", "out=ray")[1]  # what Ray did counts as done here
    assert "2 cells, 2 of them done before" in again
