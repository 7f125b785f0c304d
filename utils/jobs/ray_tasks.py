"""Runs as tasks of Ray's: each gets a GPU; one whose worker is lost goes on; one view shows them all.

Workers see the same folders as this process, by the same paths; how far a run has got is read off its own
files there. Needs the extra `ray`.
"""

from __future__ import annotations

import logging
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray import exceptions

from utils.config.runs import Run
from utils.jobs.outcomes import AnyRun, Outcome, attempt, in_one_line
from utils.jobs.progress import Progress
from utils.machine import REPOSITORY

if TYPE_CHECKING:
    from utils.jobs.outcomes import OpenWorker

RETRIES = 3
"""How often a run goes on after its worker was lost."""

POLL_SECONDS = 1.0
STOP_SECONDS = 120.0
"""How long Ctrl-C waits for trainings to end their step and save."""

# cancelled: where it was not us, the worker got SIGTERM and saved
_LOST = (
    *(exceptions.WorkerCrashedError, exceptions.NodeDiedError, exceptions.OutOfMemoryError),
    exceptions.TaskCancelledError,
)


def do_all(runs: Sequence[AnyRun], open_worker: OpenWorker[AnyRun], outcomes: dict[str, Outcome]) -> None:
    """Do every run as a task of its own; a fault of a run is its outcome, and says where its output lies.

    A run whose worker is lost resumes from its last save, at most `RETRIES` times. Ctrl-C lets trainings end
    their step and save.

    Args:
        runs: at least one.
        open_worker: as of `launch` of utils/jobs/launch.py.
        outcomes: filled as runs end, by their names.
    """
    with _cluster(), Progress(runs) as progress:
        task, worker, folder = _task(runs[0].config.device), ray.put(open_worker), os.getcwd()
        tasks = {task.remote(run, worker, folder): (run, 0) for run in runs}
        try:
            while tasks:
                for ended in ray.wait(list(tasks), timeout=POLL_SECONDS)[0]:
                    run, losses = tasks.pop(ended)
                    outcome = _outcome(ended)
                    losses += outcome is None
                    if losses > RETRIES:
                        outcome = Outcome(fault=f"its worker was lost {losses} times", ours=True)
                    if outcome:
                        outcomes[run.name] = _with_output(outcome, run)
                    else:
                        progress.report(f"{run.name}: its worker was lost; it resumes from its last save")
                        run = replace(run, config=replace(run.config, resume=True))
                        tasks[task.remote(run, worker, folder)] = run, losses
                progress.show(outcomes)
        finally:
            _stop(list(tasks))


@contextmanager
def _cluster() -> Iterator[None]:
    """Inside, Ray is there: as it was, else that of RAY_ADDRESS or of this machine, else one of our own."""
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


def _task(device: str) -> Any:
    """`_do` as a task of Ray's: on a GPU where there is any, in workers that import what is imported here.

    A worker on a GPU does one task only, as is Ray's way: the next may be given another GPU, which a process
    that has used one no longer sees.
    """
    gpus = 0 if device == "cpu" else min(1, ray.cluster_resources().get("GPU", 0))
    own = [path for path in sys.path if Path(path or ".").resolve().is_relative_to(REPOSITORY)]
    environment = {"PYTHONPATH": os.pathsep.join(own), "TQDM_MININTERVAL": "30"}  # bars go to a file
    return ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0, runtime_env={"env_vars": environment})(_do)


def _do(run: AnyRun, open_worker: OpenWorker[AnyRun], folder: str) -> Outcome:
    """Do one run in a worker, in the folder that all paths are relative to."""
    with chdir(folder), _output_to(run.output_path):
        print(f"{run.name}: process {os.getpid()} on {platform.node()}", flush=True)
        return attempt(run, lambda run: open_worker([run])(run))


@contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Inside, all that this process prints is added to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    before = {number: os.dup(number) for number in (1, 2)}
    try:
        with path.open("a") as file:
            for number in before:
                os.dup2(file.fileno(), number)
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for number, kept in before.items():
            os.dup2(kept, number)
            os.close(kept)


def _outcome(ended: Any) -> Outcome | None:
    """What became of a task's run, None if its worker was lost."""
    try:
        return ray.get(ended)
    except _LOST:
        return None
    except exceptions.RayError as error:  # before it began: its output is nowhere else
        print(str(error), file=sys.stderr, flush=True)
        return Outcome(fault=in_one_line(getattr(error, "cause", error)), ours=True)


def _with_output(outcome: Outcome, run: Run) -> Outcome:
    if outcome.path:
        return outcome
    return replace(outcome, fault=f"{outcome.fault}; its output: {run.output_path}")


def _stop(tasks: Sequence[Any]) -> None:
    """Interrupt tasks, and wait for them to end."""
    if tasks:
        print("stopping; trainings end their step and save", file=sys.stderr, flush=True)
        for task in tasks:
            ray.cancel(task)
        ray.wait(list(tasks), num_returns=len(tasks), timeout=STOP_SECONDS)
