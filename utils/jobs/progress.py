"""One view of runs that other processes are at, read off what those write; without a terminal, lines."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from types import TracebackType

from tqdm import tqdm

from utils.bars import Bar
from utils.config.runs import Run
from utils.jobs.outcomes import Outcome


class Progress:
    """A bar of all runs, and below it one of each that has started and not ended.

    A run has started once its output grows; its steps are those of its losses.jsonl.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        """Note what is there before; `runs`: at least one."""
        self._runs = runs
        self._sizes = {run.name: _size(run) for run in runs}
        self._bars: dict[str, Bar] = {}
        self._shown: tuple[int, int, dict[str, int]] | None = None

    def __enter__(self) -> Progress:
        self._all = Bar(total=len(self._runs), desc="runs", unit="run", dynamic_ncols=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for bar in [*self._bars.values(), self._all]:
            bar.close()

    def report(self, line: str) -> None:
        """Print a line above the bars."""
        tqdm.write(line, file=sys.stderr)

    def show(self, outcomes: Mapping[str, Outcome]) -> None:
        """Bring the bars up to date; `outcomes`: of the runs that have ended, by their names."""
        for run in self._runs:
            if run.name in outcomes:
                if run.name in self._bars:
                    self._bars.pop(run.name).close()
            elif _size(run) > self._sizes[run.name]:
                self._bar(run).n = steps_done(run)
        failed = sum(not outcome.path for outcome in outcomes.values())
        self._all.n = len(outcomes)
        shown = failed, self._all.n, {name: bar.n for name, bar in self._bars.items()}
        if shown != self._shown:
            self._shown = shown
            self._all.set_postfix(running=len(self._bars), failed=failed, refresh=False)
            for bar in [self._all, *self._bars.values()]:
                bar.refresh()

    def _bar(self, run: Run) -> Bar:
        if run.name not in self._bars:
            steps = run.config.train_iteration
            self._bars[run.name] = Bar(
                total=steps, desc=run.name, unit="step", leave=False, dynamic_ncols=True
            )
        return self._bars[run.name]


def steps_done(run: Run) -> int:
    """The last step in a run's losses.jsonl, 0 where there is none yet."""
    try:
        lines = run.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:  # not there yet, or moved aside this moment
        return 0
    for line in reversed(lines):
        try:
            return int(json.loads(line)["step"])
        except (ValueError, TypeError, KeyError):  # being written, or cut when the run was killed
            continue
    return 0


def _size(run: Run) -> int:
    return run.output_path.stat().st_size if run.output_path.is_file() else 0
