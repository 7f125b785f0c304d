"""Where a config's runs are trained: here, one after another, or by Ray, each where a GPU is free.

A command hands over its runs and how to open a worker: to load what runs share, the base above all, and give
the work that does one of them. Whatever process opens it, the same code does the same run.

    launch(experiment.runs, partial(training_worker, experiment, sources, fingerprints), "next: ...")
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from utils.errors import UserError
from utils.jobs.outcomes import AnyRun, OpenWorker, Outcome, summarize
from utils.jobs.prepare import run_all
from utils.machine import launched


def launch(
    runs: Sequence[AnyRun],
    open_worker: OpenWorker[AnyRun],
    closing: str,
    outcomes: dict[str, Outcome] | None = None,
) -> int:
    """Do every run where its `launcher` says, whatever becomes of the others, and print a summary.

    Args:
        runs: at least one, all of one launcher.
        open_worker: see `OpenWorker`; for ray it must pickle, as a partial of a module's function does.
        closing: what to do next, printed at the end if there is any result.
        outcomes: filled as runs end, by their names.

    Returns:
        The exit status, as of `summarize`.

    Raises:
        UserError: what opening the worker raises, where that happens in this process; Ray is asked for and
            not there, or a GPU of a number is asked of it.
    """
    launcher = LAUNCHERS[runs[0].config.launcher]
    return launcher(runs, open_worker, closing, {} if outcomes is None else outcomes)


def _local(
    runs: Sequence[AnyRun], open_worker: OpenWorker[AnyRun], closing: str, outcomes: dict[str, Outcome]
) -> int:
    status = run_all(runs, open_worker(runs), closing, outcomes)
    from utils.training.distributed import leave  # now that torch is there anyhow

    leave()
    return status


def _ray(
    runs: Sequence[AnyRun], open_worker: OpenWorker[AnyRun], closing: str, outcomes: dict[str, Outcome]
) -> int:
    device = runs[0].config.device
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"device: expected auto, cpu or cuda, since Ray picks the GPU, found {device}")
    if launched():
        raise UserError("launcher: expected local under accelerate launch, found ray; start it with python")
    try:
        import ray  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"launcher: expected Ray to be there for ray, found: {error}; pip install '.[ray]' installs it"
        ) from None
    from utils.jobs.ray_tasks import do_all

    do_all(runs, open_worker, outcomes)
    return summarize(runs, outcomes, closing)


# launcher -> does the runs and sums up; see `launch`
LAUNCHERS: dict[str, Callable[..., int]] = {"local": _local, "ray": _ray}
