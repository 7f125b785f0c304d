"""What the tests of launchers have workers do; apart from them, so that a worker starts without torch."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.config.runs import Run
from utils.errors import UserError

if TYPE_CHECKING:
    from utils.measure.instruments import Probe


def keep(folder: Path, runs: Sequence[Run]) -> Callable[[Run], Path]:
    """A worker that writes down what it is given."""

    def work(run: Run) -> Path:
        path = folder / f"{run.name}.pickle"
        path.write_bytes(pickle.dumps((runs, run, os.getcwd())))
        return path

    return work


def fail(runs: Sequence[Run]) -> Callable[[Run], Path]:
    """A worker where every noise scale ends otherwise: 1 to 4 badly, 3 only until it is resumed."""

    def work(run: Run) -> Path:
        if run.noise_scale == 1:
            raise UserError("datasets: expected cats, found dogs")
        if run.noise_scale == 2:
            raise ValueError("what nobody thought of")
        if run.noise_scale == 4 or (run.noise_scale == 3 and not run.config.resume):
            os.kill(os.getpid(), signal.SIGKILL)
        return run.folder

    return work


def bright_probe(dataset: str) -> Probe:
    """A probe that sees brightness."""
    from tests.train.test_study_script import read
    from utils.measure.instruments import Probe

    return Probe(read, lambda images: images.mean(dim=(2, 3)), dataset, ())


def bright(*arguments: Any) -> Callable[[Run], Path]:
    """The worker of study_script.py in a process of Ray's, on that probe."""
    import study_script

    from tinyflux import judge

    judge.face_probe = bright_probe
    return study_script.worker(*arguments)
