"""What the tests of trainings share."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from tests.conftest import MINI_RESOLUTION
from tests.training.processes import ARGUMENTS, FSDP, PATHS, Launch, environment, free_port, in_folder
from utils.data.pairs import ImagePair


@pytest.fixture
def mixed_pairs(pairs: list[ImagePair]) -> list[ImagePair]:
    """Those of the miniature's resolution, and a wide and a tall one of noise."""
    generator = torch.Generator().manual_seed(1)
    side, more = MINI_RESOLUTION, list(pairs)
    for stem, height, width in (("wide", side // 2, side + side // 2), ("tall", side + side // 2, side // 2)):
        source, target = torch.rand(2, 3, height, width, generator=generator) * 2 - 1
        more.append(ImagePair(stem, source, target, Path("a"), Path("b")))
    return more


@pytest.fixture
def launch(site: Path, monkeypatch: pytest.MonkeyPatch) -> Launch:
    """Train by some processes, as a launcher starts them; gives their exit statuses and outputs."""
    # the libraries are imported once, into a server; every process is a fork of it
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(PATHS))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            in_folder.__module__,
            *("utils.jobs.prepare", "utils.training.distributed"),
            *("train_image_script", "train_image", "train_subject_script"),
            *("utils.training.captioned_batches", "diffusers.pipelines.flux.pipeline_flux"),
        ]
    )

    def start(
        count: int,
        *arguments: str,
        script: str = "train_image_script",
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
                    *(script, [*ARGUMENTS, *arguments], (faults or {}).get(rank, ""), at_step),
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
