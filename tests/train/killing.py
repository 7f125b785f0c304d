"""Kills a training before and after its file operations, goes on with it, and compares with one left alone.

python -m tests.train.killing                      # 100 kills of a fresh seed, which is printed
python -m tests.train.killing --kills 30 --seed 7
python -m tests.train.killing --all                # one at every moment there is

A moment lies before or after each open for writing, write (and in its middle), fsync, rename, unlink and
mkdir of what the training does. Ways to be stopped take turns, see WAYS. Then the training is gone on with:
weights and losses must be those of one left alone, and nothing may be left over.
"""

from __future__ import annotations

import argparse
import builtins
import errno
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from safetensors.torch import load_file

from tests.train.fuzzing.cases import fresh_seed, prepare
from tests.train.fuzzing.runs import stopped, train
from tests.training.mini_runs import lines, make_run
from utils.errors import UserError

SETTINGS: dict[str, Any] = {
    **{"train_iteration": 4, "save_per_steps": 2, "save_total_limit": 1, "log_every": 1},
    **{"sample_per_steps": 3, "scales": [1.0], "count_gen": 1, "report_to": "none", "resume": True},
}


WAYS = ("killed", "killed, and so is what goes on", "two SIGTERMs", "the disk is full")


class Moments:
    """Counts the moments of file operations in a folder, and has something happen at some of them.

    Args:
        folder: of the files that count.
        signals: what this process is sent, by the moment's number from 1 on.
        full: the moment from which on the disk takes nothing.
    """

    def __init__(self, folder: Path, signals: Mapping[int, int] | None = None, full: int = 0) -> None:
        self.folder, self.signals, self.full, self.count = str(folder.resolve()), signals or {}, full, 0

    def pass_one(self, writes: bool = True) -> None:
        """One moment, of an operation that takes room or not."""
        self.count += 1
        if self.count in self.signals:
            os.kill(os.getpid(), self.signals[self.count])
        if writes and self.full and self.count >= self.full:
            raise OSError(errno.ENOSPC, "No space left on device")

    def counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function of a path or descriptor, with a moment before and one after."""

        def with_moments(where: Any, *args: Any, **kwargs: Any) -> Any:
            if not self._counts(where):
                return function(where, *args, **kwargs)
            self.pass_one(writes=False)
            result = function(where, *args, **kwargs)
            self.pass_one(writes=False)
            return result

        return with_moments

    def opened(self, where: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        """In place of open."""
        if not set(mode) & set("wax+") or not self._counts(where):
            return _OPEN(where, mode, *args, **kwargs)
        self.pass_one()
        stream = _OPEN(where, mode, *args, **kwargs)
        self.pass_one(writes=False)
        return Stream(stream, self)

    def _counts(self, where: Any) -> bool:
        if isinstance(where, int):
            where = os.readlink(f"/proc/self/fd/{where}")
        return os.path.realpath(os.fspath(where)).startswith(self.folder)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Inside, the operations are counted."""
        names = ("fsync", "replace", "rename", "unlink", "remove", "mkdir", "truncate")
        with (
            mock.patch.multiple(os, **{name: self.counted(getattr(os, name)) for name in names}),
            mock.patch.object(io, "open", self.opened),
            mock.patch.object(builtins, "open", self.opened),
        ):
            yield


_OPEN = open


class Stream:
    """A file whose writes have moments: before, when half is written, and after."""

    def __init__(self, stream: Any, moments: Moments) -> None:
        self._stream, self._moments = stream, moments

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error: object) -> None:
        self._stream.close()

    def write(self, data: Any) -> int:
        """Write in two halves."""
        for half in (data[: len(data) // 2], data[len(data) // 2 :]):
            self._moments.pass_one()
            self._stream.write(half)
            self._stream.flush()
        self._moments.pass_one(writes=False)
        return len(data)


class EndedError(Exception):
    """A training ended as none should: with a traceback, or by another signal than it was sent."""


@dataclass(frozen=True)
class Whole:
    """What a training that is left alone leaves."""

    weights: dict[str, torch.Tensor]
    losses: list[dict]
    files: set[str]
    moments: int


def outcome(run: Any) -> tuple[dict[str, torch.Tensor], list[dict], set[str]]:
    """Weights, losses without the time they took, files."""
    losses = [{key: value for key, value in line.items() if key != "seconds"} for line in lines(run)]
    parent = run.folder.parent
    return load_file(run.weights_path()), losses, {str(p.relative_to(parent)) for p in parent.rglob("*")}


class Killer:
    """Trains the same run again and again."""

    def __init__(self, folder: Path) -> None:
        self.shop = prepare(folder)
        self.pairs = stopped(self.shop).pairs
        self.run = make_run(self.shop.site / "killed", **SETTINGS)
        moments = Moments(self.run.folder.parent)
        with moments.watched():
            train(self.shop, self.run, self.pairs)
        self.whole = Whole(*outcome(self.run), moments.count)

    def train_until(self, signals: Mapping[int, int] | None = None, full: int = 0) -> bool:
        """Train in a process of its own, see `Moments`; whether it came to its end."""
        child = os.fork()
        if child == 0:
            status = 1
            try:
                with Moments(self.run.folder.parent, signals, full).watched():
                    train(self.shop, self.run, self.pairs)
                status = 0
            except KeyboardInterrupt:
                status = 130
            except UserError:  # one line
                status = 2
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        expected = (0, 2 if full else 130, -signal.SIGKILL, -signal.SIGTERM)
        if code not in expected:
            raise EndedError(f"the training ended with {code}")
        return code == 0

    def try_kill(self, draw: Random, moment: int, way: str) -> str:
        """One stop, and what is wrong afterwards, in words; "" = nothing."""
        shutil.rmtree(self.run.folder.parent)
        gently = way == "two SIGTERMs"
        if way == "the disk is full":
            ended = self.train_until(full=moment)
        else:
            ended = self.train_until(
                {moment: signal.SIGTERM, moment + 1: signal.SIGTERM} if gently else {moment: signal.SIGKILL}
            )
        if way == "killed, and so is what goes on":
            ended = self.train_until({draw.randint(1, self.whole.moments): signal.SIGKILL})
        if not ended and not self.train_until():
            return "it did not go on to its end"
        return self._difference(gently)

    def _difference(self, gently: bool) -> str:
        weights, losses, files = outcome(self.run)
        if weights.keys() != self.whole.weights.keys() or not all(
            weights[key].equal(self.whole.weights[key]) for key in weights
        ):
            return "other weights"
        if losses != self.whole.losses:
            return f"other losses: {json.dumps(losses)}"
        over = {name for name in files - self.whole.files if not (gently and "epoch" in name)}
        missing = {name for name in self.whole.files - files if not (gently and "epoch" in name)}
        return f"left over {sorted(over)}, missing {sorted(missing)}" if over or missing else ""


def kill(seed: int, kills: int, every: bool) -> int:
    """Kill, print what was wrong and a summary; the number of faults."""
    draw, faults, started = Random(seed), 0, time.perf_counter()
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        killer = Killer(Path(folder))
        count = killer.whole.moments
        moments: Sequence[int] = range(1, count + 1)
        if not every:
            moments = [draw.randint(1, count) for _ in range(kills)]
        for number, moment in enumerate(moments):
            way = WAYS[number % len(WAYS)]
            try:
                wrong = killer.try_kill(draw, moment, way)
            except EndedError as error:
                wrong = str(error)
            if wrong:
                faults += 1
                print(f"{number}, {way} at moment {moment}: {wrong}", flush=True)
        os.chdir(here)
    seconds = time.perf_counter() - started
    print(f"{len(moments)} kills at {count} moments, {faults} wrong; seed {seed}, {seconds:.0f} s")
    return faults


def main() -> int:
    """Read the command line and kill; 1 if anything is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, help="FUZZ_SEED, else another one every time")
    parser.add_argument("--all", action="store_true", help="at every moment once")
    args = parser.parse_args()
    return int(kill(fresh_seed() if args.seed is None else args.seed, args.kills, args.all) > 0)


if __name__ == "__main__":
    sys.exit(main())
