"""Runs on a miniature FLUX, as short as they can be."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tests.conftest import MINI_RESOLUTION, MINI_SEQUENCE_LENGTH
from utils.config.runs import Run, expand_runs
from utils.config.schema import Config
from utils.data.pairs import ImagePair
from utils.models.base import Base
from utils.training.batches import PairBatches
from utils.training.methods import build_objective
from utils.training.trainer import train


def make_run(folder: Path, **changes) -> Run:
    config = Config(
        device="cpu",
        dtype="float32",
        resolution=MINI_RESOLUTION,
        max_sequence_length=MINI_SEQUENCE_LENGTH,
        datasets=["glasses"],
        rank=2,
        lr=1e-2,
        train_iteration=6,
        save_per_steps=4,
        log_every=2,
        output_folder=str(folder),
    )
    return expand_runs(replace(config, **changes))[0]


def learn(run: Run, base: Base, pairs: Sequence[ImagePair], objective) -> None:
    """Train on image pairs under the empty prompt."""
    embeds = {"": base.encode_prompts([""], MINI_SEQUENCE_LENGTH)}
    train(run, base, PairBatches(base, pairs, run.config), objective, embeds)


def objective_of(run: Run):
    return build_objective(
        run.config.python_name, run.config.cfg_eta, run.noise_scale, run.config.joint_passes
    )


def lines(run: Run) -> list[dict]:
    return [json.loads(line) for line in run.log_path.read_text().splitlines()]
