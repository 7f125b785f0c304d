"""Several processes that train one run, on the miniature FLUX: real ones that talk over gloo, on the CPU."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tests.conftest import TRAIN
from utils.errors import UserError
from utils.jobs.prepare import load_base, prepare
from utils.models.base import Base
from utils.training.distributed import shard

ARGUMENTS = ["--c=mini", "datasets=[age]", "train_iteration=6", "save_per_steps=2", "rank=4", "log_every=1"]
FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
PATHS = [str(TRAIN.parent), str(TRAIN)]
FAULTS: dict[str, Callable[[], object]] = {
    "interrupt": lambda: os.kill(os.getpid(), signal.SIGINT),
    "error": lambda: 1 / 0,
    "hang": lambda: time.sleep(600),
    "nan": lambda: None,
}


def trap(fault: str, at_step: int) -> None:
    """From now on in this process, `fault` happens in a step of every training."""
    from utils.flow.objectives import ContentSemantic

    losses = ContentSemantic.losses
    steps = 0

    def faulty(self, model, batch):
        nonlocal steps
        steps += 1
        if steps == at_step:
            FAULTS[fault]()
        factor = torch.nan if fault == "nan" and steps == at_step else 1.0
        for by_name in losses(self, model, batch):
            yield {name: factor * loss for name, loss in by_name.items()}

    ContentSemantic.losses = faulty


def work(environment: Mapping[str, str], log: str, arguments: list[str], fault: str, at_step: int) -> None:
    """One process of a launch."""
    os.environ.update(environment, HF_HUB_OFFLINE="1")
    with Path(log).open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    from train_image_script import main

    from utils.errors import run_cli

    if fault:
        trap(fault, at_step)
    run_cli(lambda: main(arguments))


Launch = Callable[..., tuple[list[int], list[str]]]


@pytest.fixture
def launch(site: Path, monkeypatch: pytest.MonkeyPatch) -> Launch:
    """Train by some processes, as a launcher starts them; gives their exit statuses and outputs."""
    # the libraries are imported once, into a server; every process is a fork of it
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(PATHS))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [__name__, "train_image_script", "train_image", "diffusers.pipelines.flux.pipeline_flux"]
    )

    def start(
        count: int,
        *arguments: str,
        fsdp: bool = False,
        faults: Mapping[int, str] | None = None,
        at_step: int = 3,
    ) -> tuple[list[int], list[str]]:
        logs = [site / f"log{rank}" for rank in range(count)]
        processes = [
            context.Process(
                target=in_folder,
                args=(
                    *(str(site), environment(rank, count, port) | (FSDP if fsdp else {}), str(logs[rank])),
                    *([*ARGUMENTS, *arguments], (faults or {}).get(rank, ""), at_step),
                ),
            )
            for port in [free_port()]
            for rank in range(count)
        ]
        for process in processes:
            process.start()
        deadline = time.monotonic() + 120
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
        hung = [process for process in processes if process.is_alive()]
        for process in hung:
            process.kill()
            process.join()
        outputs = [log.read_text() for log in logs]
        assert not hung, outputs
        return [process.exitcode or 0 for process in processes], outputs

    return start


def in_folder(folder: str, *args) -> None:
    """`work`, in a folder."""
    os.chdir(folder)
    work(*args)


def environment(rank: int, count: int, port: int) -> dict[str, str]:
    """What a launcher tells a process; to one alone, nothing."""
    if count == 1:
        return {}
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    told |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
    return {key: str(value) for key, value in told.items()}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def run_folder(site: Path) -> Path:
    (folder,) = site.glob("output/models/image/age/*_v1")
    return folder


def weights(site: Path, step: int = 6) -> dict[str, torch.Tensor]:
    (path,) = run_folder(site).glob(f"*_{step}epoch.safetensors")
    return load_file(path)


def moved(site: Path, name: str) -> dict[str, torch.Tensor]:
    """The weights of the run, which makes room for the next."""
    found = weights(site)
    (site / "output").rename(site / name)
    return found


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[key] - other[key]).abs().max()) for key in one)


def test_two_processes_learn_what_one_does_of_twice_the_batch(site: Path, launch: Launch) -> None:
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


def log_lines(folder: Path) -> list[dict]:
    (path,) = folder.glob("**/losses.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


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


# --- by accelerate launch ---


@pytest.fixture
def accelerate(site: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `accelerate launch` with two processes, its output in the file `log`; none is left afterwards."""
    started: list[subprocess.Popen[str]] = []

    def start(options: list[str], *script: str) -> subprocess.Popen[str]:
        port = f"--main_process_port={free_port()}"
        command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes=2", port]
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(PATHS)
        with (site / "log").open("w") as log:
            process = subprocess.Popen(
                [*command, *options, *script], cwd=site, env=environment, text=True, stdout=log, stderr=log
            )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


SCRIPT = str(TRAIN / "train_image_script.py")


@pytest.mark.slow
def test_the_shipped_accelerate_config_trains(site: Path, accelerate, launch: Launch) -> None:
    config = f"--config_file={TRAIN / 'config/accelerate/fsdp2.yaml'}"
    assert accelerate([config], SCRIPT, *ARGUMENTS).wait(300) == 0, (site / "log").read_text()
    found = moved(site, "launched")
    assert launch(1, "batch_size=2")[0] == [0]
    assert largest_difference(found, weights(site)) < 1e-6


@pytest.mark.slow
def test_ctrl_c_on_the_launcher_saves(site: Path, accelerate) -> None:
    long = ["train_iteration=100000", "save_per_steps=100000"]
    process = accelerate(["--multi_gpu"], SCRIPT, *ARGUMENTS, *long)
    deadline = time.monotonic() + 200
    while not list(site.glob("output/**/losses.jsonl")) or not log_lines(site / "output"):
        assert process.poll() is None, (site / "log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) != 0
    log = (site / "log").read_text()
    assert log.count("interrupted: saved after step") == 2
    assert (run_folder(site) / "state.pt").is_file()


@pytest.mark.slow
def test_the_launcher_ends_who_would_wait_for_ever(site: Path, accelerate) -> None:
    process = accelerate(["--multi_gpu"], __file__)
    assert process.wait(200) != 0
    assert "ZeroDivisionError" in (site / "log").read_text()


if __name__ == "__main__":  # a process of the test above
    from train_image_script import main as train_main

    trap("error" if os.environ["RANK"] == "1" else "hang", 3)
    sys.exit(train_main(ARGUMENTS))
