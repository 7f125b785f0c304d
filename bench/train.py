"""Training steps of this framework and of the published loop, in turns on the same base.

python -m bench.train
python -m bench.train --base flux_dev --random-weights gradient_checkpointing=1

A turn is a training of its own: some steps to warm up, then --steps that are timed, from the drawing of one
batch to the drawing of another. Loading, preparing and the save at the end are outside; all that a step costs
is inside, the lines of the log too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import torch

from bench.bases import FLUX_DEV, Shape, load_base, pipeline_of
from bench.measuring import OURS, REFERENCE, Side, compare, now, report
from bench.options import Options, parse
from bench.reference import ReferenceTraining
from utils.config.runs import Run, expand_runs
from utils.errors import UserError, run_cli
from utils.flow.passes import PairBatch
from utils.models.base import Base
from utils.training.batches import Batches, PairBatches
from utils.training.methods import build_objective
from utils.training.sources import ImagePairs
from utils.training.trainer import train

WARM_UP = 3  # steps; the first allocates the optimizer's state


class Timed:
    """Batches that read the clock as the training draws them.

    Attributes:
        clock: when `first` batches had been drawn, and when `steps` more had.
    """

    def __init__(self, batches: Batches[PairBatch], first: int, steps: int, device: torch.device) -> None:
        self.batches, self.device = batches, device
        self.marks, self.drawn = (first, first + steps), 0
        self.clock: list[float] = []

    @property
    def learned_from(self) -> list[dict[str, str]]:
        """As the batches say."""
        return self.batches.learned_from

    @property
    def sample_prompts(self) -> Sequence[str]:
        """As the batches say."""
        return self.batches.sample_prompts

    def draw(self, generator: torch.Generator, global_step: int = 1) -> PairBatch:
        """The next batch."""
        if self.drawn in self.marks:
            self.clock.append(now(self.device))
        self.drawn += 1
        return self.batches.draw(generator, global_step)


class Training:
    """The two sides, and the losses of each one's last turn.

    Attributes:
        total: steps of a turn; the one after those that are timed only ends them.
    """

    def __init__(self, base: Base, run: Run, options: Options) -> None:
        self.base, self.run, self.steps = base, run, options.steps
        self.total = WARM_UP + options.steps + 1
        self.first_logged, self.losses = 0, dict[str, dict[str, float]]()
        self.pairs = ImagePairs.of(run).pairs
        if any(pair.source.shape[1] != pair.source.shape[2] for pair in self.pairs):
            raise UserError(
                "bench.train: expected square pairs, as the published loop has; resize=center_crop"
            )
        self.embeds = base.encode_prompts([""], run.config.max_sequence_length)

    def ours(self) -> float:
        """Train as train_image_script.py does; seconds a step."""
        with TemporaryDirectory() as folder:
            self.base.release_text_encoders()
            config = replace(self.run.config, output_folder=folder)
            run = replace(self.run, config=config)
            batches = Timed(PairBatches(self.base, self.pairs, config), WARM_UP, self.steps, self.base.device)
            objective = build_objective(
                config.python_name, config.cfg_eta, run.noise_scale, config.joint_passes
            )
            train(run, self.base, batches, objective, {"": self.embeds})
            lines = [json.loads(line) for line in run.log_path.read_text(encoding="utf-8").splitlines()]
        self.first_logged = lines[0]["step"]
        self.losses[OURS] = {name: lines[0][name] for name in ("content", "semantic")}
        return (batches.clock[1] - batches.clock[0]) / self.steps

    def reference(self) -> float:
        """Train by the published loop; seconds a step."""
        with closing(ReferenceTraining(pipeline_of(self.base), self.run)) as training:
            losses = [training.step() for _ in range(WARM_UP)]
            started = now(self.base.device)
            losses += [training.step() for _ in range(self.steps)]
            seconds = now(self.base.device) - started
            losses.append(training.step())
        logged = losses[: self.first_logged]
        self.losses[REFERENCE] = {name: fmean(each[name] for each in logged) for name in losses[0]}
        return seconds / self.steps

    def agreement(self) -> dict[str, float]:
        """How far the mean losses up to the first line of the log are apart, as a share of ours."""
        ours, reference = self.losses[OURS], self.losses[REFERENCE]
        shares = [abs(reference[name] - ours[name]) / ours[name] for name in ours]
        return {"losses (as a share)": max(shares)}


def main(argv: Sequence[str] | None = None, shape: Shape = FLUX_DEV) -> int:
    """Measure, write, print; 0 as the exit status. `shape` is that of random weights."""
    options = parse(argv, "bench.train", __doc__ or "")
    run = bench_run(options)
    base = load_base(run.config, options.random_weights, shape)
    training = Training(base, run, options)
    sides = {OURS: Side(training.ours, training.total)}
    if not options.skip_reference:
        sides[REFERENCE] = Side(training.reference, training.total)
    compared = compare("training step", sides, options.repeats, base, training.agreement)
    report(options.out, options.command, run.config, base, [compared])
    return 0


def bench_run(options: Options) -> Run:
    """The one run of the config train_image, cut to a turn's steps and saved at its end alone.

    Raises:
        UserError: for another method than PairEdit's, or several runs.
    """
    config = options.config("train_image")
    if config.python_name != "train_image":
        raise UserError(f"python_name: expected train_image, found {config.python_name}")
    runs = expand_runs(config)
    if len(runs) > 1:
        raise UserError(f"datasets, noise_scales, train_count: expected one run, found {len(runs)}")
    total = WARM_UP + options.steps + 1
    own: dict[str, Any] = {"train_iteration": total, "save_per_steps": total, "sample_per_steps": 0}
    own |= {"lr_scheduler": "constant", "resume": False, "push_to_hub": ""}  # constant as the published one's
    return replace(runs[0], config=replace(runs[0].config, **own))


if __name__ == "__main__":
    run_cli(main)
