"""What becomes of runs: one tried whatever happens, all of them reported at the end."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from utils.config.runs import Run
from utils.errors import UserError, reader_gone, shown

AnyRun = TypeVar("AnyRun", bound=Run)

OpenWorker = Callable[[Sequence[AnyRun]], Callable[[AnyRun], Path]]
"""For the runs to be done in one process: loads what they share, and gives what does one of them."""


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Attributes:
        path: where its result lies, None if it failed.
        fault: why it failed, in one line.
        ours: whether the fault is neither the user's nor the machine's.
    """

    path: Path | None = None
    fault: str = ""
    ours: bool = False


def attempt(run: AnyRun, work: Callable[[AnyRun], Path]) -> Outcome:
    """Do one run; a fault becomes its outcome, and prints its traceback unless one line says all of it."""
    try:
        return Outcome(work(run))
    except UserError as error:
        return Outcome(fault=str(error))
    except FloatingPointError as error:  # says all there is to say, in one line
        return Outcome(fault=str(error), ours=True)
    except OSError as error:  # the machine's: a full disk, rights
        if reader_gone():
            raise
        return Outcome(fault=f"{error.filename or run.folder}: {error.strerror or error}")
    except Exception as error:
        if advice := _on_memory(error, run):
            return Outcome(fault=advice)
        traceback.print_exc()
        return Outcome(fault=in_one_line(error), ours=True)


def _on_memory(error: Exception, run: Run) -> str:
    """What to do about a device's memory that did not suffice; "" for any other error."""
    import torch  # as whatever raised it has

    from utils.machine import resolve_device
    from utils.models.memory import out_of_memory

    if not isinstance(error, torch.OutOfMemoryError):
        return ""
    return out_of_memory(run.config, resolve_device(run.config.device))


def in_one_line(error: BaseException) -> str:
    """An exception's type and message."""
    return shown(" ".join(f"{type(error).__name__}: {error}".split()))


def summarize(runs: Sequence[Run], outcomes: Mapping[str, Outcome], closing: str) -> int:
    """Print where the results lie and why runs failed.

    Args:
        runs: at least one.
        outcomes: of every run, by its name.
        closing: what to do next, printed if there is any result.

    Returns:
        The exit status: 0, 1 if a run failed, or 2 if all did and none by a fault of ours.
    """
    ordered = {run.name: outcomes[run.name] for run in runs}
    written = [outcome.path for outcome in ordered.values() if outcome.path]
    failed = {name: outcome for name, outcome in ordered.items() if not outcome.path}
    listed = "".join(f"\n  {path}" for path in written)
    print(f"{len(written)} of {len(runs)} {'run' if len(runs) == 1 else 'runs'} done{listed}")
    if written:
        print(closing, flush=True)
    if not failed:
        return 0
    from utils.training.distributed import is_main  # now that torch is there anyhow

    for name, outcome in failed.items() if is_main() else ():
        print(f"failed: {name}: {outcome.fault}", file=sys.stderr)
    return 1 if written or any(outcome.ours for outcome in failed.values()) else 2
