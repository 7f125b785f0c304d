"""The cases of a seed, each in a fork of a process that has loaded all, and what came of them."""

from __future__ import annotations

import os
import pickle
import random
import resource
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import FrameType

import torch

from tests.conftest import TRAIN, save_mini_flux, write_site
from tests.train.fuzzing import KINDS, Workshop, configs, loras, pictures, runs

MODULES = (configs, loras, pictures, runs)
"""What registers the kinds."""
SECONDS = 60
"""Of one case, on a busy machine; more is a hang."""
MEMORY = 12 << 30
"""Bytes that cases may take beyond what is loaded; more is a MemoryError in place of a kill."""
AT_ONCE = 500
"""Cases of one process."""


@dataclass(frozen=True)
class Outcome:
    """What came of a case: `fault` is its traceback, "" for none."""

    number: int
    kind: str
    result: str
    fault: str = ""


def choose(seed: int, number: int) -> tuple[str, Random]:
    """A case's kind and its own random generator, whatever other cases there are."""
    draw = Random(f"{seed}/{number}")
    (name,) = draw.choices(list(KINDS), [share for share, _ in KINDS.values()])
    return name, draw


def attempt(shop: Workshop, seed: int, number: int) -> Outcome:
    """Make and try one case."""
    name, draw = choose(seed, number)
    signal.alarm(SECONDS)
    try:
        return Outcome(number, name, KINDS[name][1](draw, shop))
    except BaseException as error:
        error.__context__ = None if isinstance(error, TimeoutError) else error.__context__
        lines = "".join(traceback.format_exception(error))
        return Outcome(number, name, type(error).__name__, lines)
    finally:
        signal.alarm(0)


def run_cases(seed: int, numbers: list[int]) -> Iterator[Outcome]:
    """Try cases, by their numbers; one that kills its process is told like any other fault."""
    with tempfile.TemporaryDirectory() as folder:
        shop = prepare(Path(folder))
        left = list(numbers)
        while left:
            for outcome in _in_a_fork(lambda number: attempt(shop, seed, number), left[:AT_ONCE], seed):
                left.remove(outcome.number)
                yield outcome


def prepare(folder: Path) -> Workshop:
    """Make the site in a folder, which becomes the current one, and load what cases share."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    shop = Workshop(folder / "site", folder / "flux")
    save_mini_flux(shop.flux)
    write_site(shop.site, shop.flux)
    os.chdir(shop.site)
    sys.path.insert(0, str(TRAIN))
    for name in configs.SCRIPTS:
        __import__(name)
    runs.stopped(shop)
    assert shop.loras
    return shop


def _in_a_fork(work: Callable[[int], Outcome], numbers: list[int], seed: int) -> Iterator[Outcome]:
    """Outcomes of cases from a process of their own, as they come; if it dies, the last is its death."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        _limit()
        with open(write, "wb") as pipe:
            for number in numbers:
                pickle.dump(work(number), pipe)
                pipe.flush()
        os._exit(0)
    os.close(write)
    done = 0
    with open(read, "rb") as pipe:
        while done < len(numbers):
            try:
                yield pickle.load(pipe)
            except EOFError:
                break
            done += 1
    _, status = os.waitpid(child, 0)
    if done < len(numbers):
        name, _ = choose(seed, numbers[done])
        yield Outcome(numbers[done], name, "death", f"the process died by signal {os.WTERMSIG(status)}")


def _limit() -> None:
    """A case that hangs or takes all memory ends in an exception; what cases print goes nowhere."""

    def hang(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"no end after {SECONDS} s")

    signal.signal(signal.SIGALRM, hang)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def table(outcomes: list[Outcome]) -> str:
    """Counts by kind, and the faults in all."""
    lines = []
    for name in KINDS:
        own = [outcome for outcome in outcomes if outcome.kind == name]
        results = Counter(outcome.result for outcome in own if not outcome.fault)
        faults = Counter(outcome.result for outcome in own if outcome.fault)
        counts = ", ".join(f"{count} {result}" for result, count in sorted(results.items()))
        wrong = ", ".join(f"{count} {result}" for result, count in sorted(faults.items()))
        lines.append(f"{name:24}{len(own):6}   {counts}" + (f"   WRONG: {wrong}" if wrong else ""))
    wrong = sum(bool(outcome.fault) for outcome in outcomes)
    return "\n".join([*lines, f"{'in all':24}{len(outcomes):6}   {wrong} wrong"])


def fresh_seed() -> int:
    """FUZZ_SEED of the environment, else another one every time."""
    given = os.environ.get("FUZZ_SEED", "")
    return int(given) if given else random.SystemRandom().randrange(10**9)
