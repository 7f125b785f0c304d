"""Two processes that `accelerate launch` starts, on the miniature FLUX."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import TRAIN
from tests.training.processes import (
    ARGUMENTS,
    PATHS,
    Launch,
    free_port,
    largest_difference,
    log_lines,
    moved,
    run_folder,
    trap,
    weights,
)


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
