"""Folders of trainings that were stopped, damaged: gone on with to the same weights, or refused in a line."""

from __future__ import annotations

import shutil
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from io import StringIO
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import torch
from safetensors.torch import load_file

from tests.conftest import MINI_RESOLUTION
from tests.train.fuzzing import Workshop, kind, refused_or
from tests.train.fuzzing.values import spoiled
from tests.training.mini_runs import learn, make_run, objective_of
from utils.config.runs import Run
from utils.data.pairs import ImagePair
from utils.training import trainer
from utils.training.checkpoints import Checkpoint
from utils.training.claims import claimed

INPUTS = "abc"


class StoppedError(Exception):
    """In place of a power cut."""


@dataclass(frozen=True)
class Stopped:
    """A training stopped after its third step of four, the state of the second saved."""

    run: Run
    pairs: list[ImagePair]
    files: dict[str, bytes]
    weights: dict[str, torch.Tensor]


def train(shop: Workshop, run: Run, pairs: list[ImagePair]) -> None:
    """Train in the run's folder as the command does."""
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()), claimed(run, INPUTS) as todo:
        if todo:
            learn(run, shop.base, pairs, objective_of(run))


@cache
def stopped(shop: Workshop) -> Stopped:
    """Train once to the end, for what must come out, and once to where it is stopped."""
    settings: dict[str, Any] = {
        "train_iteration": 4,
        "save_per_steps": 2,
        "report_to": "none",
        "log_every": 1,
    }
    run = make_run(shop.site / "stopped", resume=True, **settings)
    pixels = torch.rand(2, 2, 3, MINI_RESOLUTION, MINI_RESOLUTION, generator=torch.Generator()) * 2 - 1
    pairs = [ImagePair(f"p{index}", *sides, Path("a"), Path("b")) for index, sides in enumerate(pixels)]
    train(shop, run, pairs)
    weights = load_file(run.weights_path())
    shutil.rmtree(run.folder)

    def stop(self: Any, global_step: int, losses: Any) -> None:
        if global_step == 4:
            raise StoppedError
        add(self, global_step, losses)

    add = trainer.TrainingLog.add
    with mock.patch.object(trainer.TrainingLog, "add", stop):
        try:
            train(shop, run, pairs)
        except StoppedError:
            files = {path.name: path.read_bytes() for path in run.folder.iterdir()}
    shutil.rmtree(run.folder)
    return Stopped(run, pairs, files, weights)


def changed(draw: Random, state: dict[str, Any]) -> dict[str, Any]:
    """A state that no training leaves, in the form of earlier versions, which had no hash."""
    weights, optimizer = state["weights"], state["optimizer"]
    small = {name: [tensor[:1] for tensor in own] for name, own in weights.items()}
    moments = {index: {**own, "exp_avg": torch.ones(1)} for index, own in optimizer["state"].items()}
    changes = [
        *({"step": step} for step in (0, -5, 1, 3, 10**9, "2", None, 2.5)),
        *({"weights": value} for value in (small, {}, {**weights, "x": []}, {"content": []}, None)),
        *({"optimizer": value} for value in ({}, {**optimizer, "state": moments}, [], None)),
        *({"seconds": value} for value in ("x", None, float("nan"))),
        *({"means": value} for value in ({"semantic": "x"}, [1], None)),
        *(
            {"rng": value}
            for value in ({}, None, {**state["rng"], "python": "x"}, {**state["rng"], "numpy": []})
        ),
        *({"generator": value} for value in (torch.zeros(3), None, torch.zeros(5000))),
        *({"lr_scheduler": value} for value in ({}, None, {"last_epoch": "x"})),
        *({"base": value} for value in ("x", None)),
        {"more": 1},
    ]
    change = draw.choice(changes)
    dropped = draw.choice(list(state)) if draw.random() < 0.1 else ""
    return {key: value for key, value in {**state, **change}.items() if key not in (dropped, "log")}


@kind("stopped training", 50)
def damaged(draw: Random, shop: Workshop) -> str:
    """One file of the folder is damaged."""
    template = stopped(shop)
    run = template.run
    shutil.rmtree(run.folder.parent, ignore_errors=True)
    run.folder.mkdir(parents=True)
    for name, content in template.files.items():
        (run.folder / name).write_bytes(content)

    if draw.random() < 0.5:
        torch.save(changed(draw, vars(Checkpoint.load(run.state_path))), run.state_path)
    else:
        path = run.folder / draw.choice(sorted(template.files))
        path.write_bytes(spoiled(draw, path.read_bytes()))

    def finished() -> bool:
        train(shop, run, template.pairs)
        return True

    if refused_or(finished, "") is None:
        return "refused"
    found = load_file(run.weights_path())
    assert found.keys() == template.weights.keys()
    assert all(found[key].equal(template.weights[key]) for key in found), "other weights, in silence"
    assert not list(run.folder.parent.rglob(".*.tmp"))
    return "the same weights"
