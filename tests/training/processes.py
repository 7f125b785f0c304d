"""Processes that train one run of the miniature FLUX, with faults in some, and what they left."""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.conftest import TRAIN

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


def work(
    environment: Mapping[str, str], log: str, script: str, arguments: list[str], fault: str, at_step: int
) -> None:
    """One process of a launch."""
    os.environ.update(environment, HF_HUB_OFFLINE="1")
    with Path(log).open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    main = importlib.import_module(script).main
    from utils.errors import run_cli

    if fault:
        trap(fault, at_step)
    run_cli(lambda: main(arguments))


Launch = Callable[..., tuple[list[int], list[str]]]


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


def log_lines(folder: Path) -> list[dict]:
    (path,) = folder.glob("**/losses.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]
