"""A training killed at 20 random moments ends with the weights of one that never was, bit for bit."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.conftest import TRAIN

KILLS = 20
ARGUMENTS = ["--c=mini", "datasets=[age]", "train_iteration=32", "save_per_steps=4", "rank=4"]


def train(site: str, done: str) -> None:
    """Run the training script with --resume in a process of its own, on one thread."""
    os.chdir(site)
    sys.path[:0] = [str(TRAIN), str(TRAIN.parent)]
    os.environ["HF_HUB_OFFLINE"] = "1"
    with Path("log").open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        import torch

        torch.set_num_threads(1)
        from train_image_script import main

        status = main([*ARGUMENTS, "--resume"])
    Path(done).write_text(str(status))


def final_weights(site: Path) -> dict[str, object]:
    """The LoRA that the training ended with."""
    (path,) = site.glob("output/models/image/age/*_v1/*_32epoch.safetensors")
    return load_file(path)


def test_killed_at_random_it_ends_the_same(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the libraries are imported once, into a server that has run nothing; every training is a fork of it
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TRAIN.parent), str(TRAIN)]))
    context = multiprocessing.get_context("forkserver")
    pipeline = "diffusers.pipelines.flux.pipeline_flux"
    context.set_forkserver_preload([__name__, "train_image_script", "train_image", pipeline])

    def attempt(limit: float | None) -> bool:
        """Train for at most `limit` seconds; whether it came to its end."""
        process = context.Process(target=train, args=(str(site), "done"))
        process.start()
        process.join(limit)
        if process.is_alive():
            os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        done = site / "done"
        assert process.exitcode in (0, -signal.SIGKILL), (site / "log").read_text()[-2000:]
        if not done.exists():
            return False
        assert done.read_text() == "0", (site / "log").read_text()[-2000:]
        done.unlink()
        return True

    assert attempt(None)  # starts the server too
    expected = final_weights(site)
    shutil.rmtree(site / "output")
    started = time.perf_counter()
    assert attempt(None)
    whole = time.perf_counter() - started

    moments = random.Random(20)
    kills = ends = 0
    while kills < KILLS:
        ended = attempt(moments.uniform(0, whole))
        kills += not ended
        if ended:
            ends += 1
            assert_same(final_weights(site), expected)
            assert_whole(site)
            shutil.rmtree(site / "output")
    assert attempt(None)
    assert_same(final_weights(site), expected)
    assert_whole(site)
    resumed = (site / "log").read_text().count(": resuming from step ")
    print(f"{kills} kills, {resumed} trainings resumed, {ends} ends before a kill")
    assert resumed >= KILLS // 8  # how many depends on what else the machine does
    assert not list(site.glob("output/models/image/age/*_old*"))


def assert_whole(site: Path) -> None:
    """Nothing half done is left."""
    (folder,) = site.glob("output/models/image/age/*_v1")
    names = {path.name for path in folder.iterdir()}
    assert {"README.md", "config.yaml", "inputs.sha256", "losses.jsonl", "record.json"} <= names
    assert not {name for name in names if name.endswith(".tmp") or name == "state.pt"}


def assert_same(found: dict, expected: dict) -> None:
    """Equal bit for bit."""
    assert found.keys() == expected.keys()
    assert all(found[key].equal(expected[key]) for key in expected)
