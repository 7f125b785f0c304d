"""Two pieces of work, turn by turn in one process: their time, memory, forward passes and operations."""

from __future__ import annotations

import gc
import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from utils.config.schema import Config
from utils.files import write_atomically
from utils.models.base import Base
from utils.records import device_name, peak_bytes, reset_peak, software
from utils.report.tables import markdown_table

OURS, REFERENCE = "this framework", "reference"
COLUMNS = ("", "seconds", "times as fast", "forwards", "peak GiB", "TFLOP/s", "of matmul peak")


@dataclass(frozen=True)
class Side:
    """One of those compared.

    Attributes:
        go: does the work once; gives the seconds of one unit of it.
        units: how many units the model then does, those that are not timed included.
    """

    go: Callable[[], float]
    units: int = 1


@dataclass
class Measured:
    """What a unit of a side's work cost.

    Attributes:
        seconds: of each turn.
        peak_bytes: the most of any turn; what is counted, `utils.records.Record` says.
        forwards, images: calls of the transformer, and how many images went through it in them.
        flops: floating-point operations of matrix products, convolutions and attention, what gradient
            checkpointing computes again included.
    """

    seconds: list[float] = field(default_factory=list)
    peak_bytes: int | None = None
    forwards: float = 0
    images: float = 0
    flops: float = 0

    @property
    def flops_per_second(self) -> float:
        """At the median of seconds."""
        return self.flops / median(self.seconds)


@dataclass(frozen=True)
class Comparison:
    """Sides by name, turn by turn.

    Attributes:
        what: the unit of work.
        sides: OURS, and REFERENCE unless it was skipped.
        matmul_flops_per_second: of a large square matrix product in the base's dtype, on the same machine.
        agreement: how far the results of the two are apart, and in what.
    """

    what: str
    sides: dict[str, Measured]
    matmul_flops_per_second: float
    agreement: dict[str, float]

    @property
    def ratios(self) -> list[float]:
        """The reference's seconds in units of ours, turn by turn; [] without the reference."""
        if REFERENCE not in self.sides:
            return []
        turns = zip(self.sides[OURS].seconds, self.sides[REFERENCE].seconds, strict=True)
        return [reference / ours for ours, reference in turns]

    def summary(self) -> dict[str, Any]:
        """For JSON."""
        sides = {
            name: asdict(side)
            | {
                "median_seconds": median(side.seconds),
                "flops_per_second": side.flops_per_second,
                "share_of_matmul_peak": side.flops_per_second / self.matmul_flops_per_second,
            }
            for name, side in self.sides.items()
        }
        content: dict[str, Any] = {"sides": sides, "matmul_flops_per_second": self.matmul_flops_per_second}
        if ratios := self.ratios:
            medians = [median(self.sides[name].seconds) for name in (OURS, REFERENCE)]
            content["ratio"] = {
                "of_medians": medians[1] / medians[0],
                "median_of_pairs": median(ratios),
                "pairs": ratios,
            }
        return content | {"agreement": self.agreement}

    def rows(self) -> list[list[str]]:
        """A row a side, under COLUMNS."""
        faster = {REFERENCE: "1"}
        if ratios := self.ratios:
            faster[OURS] = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        return [
            [
                f"{self.what}, {name}",
                f"{median(side.seconds):.3g}",
                faster.get(name, ""),
                f"{side.forwards:g}",
                "" if side.peak_bytes is None else f"{side.peak_bytes / 2**30:.2f}",
                f"{side.flops_per_second / 1e12:.3g}",
                f"{side.flops_per_second / self.matmul_flops_per_second:.0%}",
            ]
            for name, side in self.sides.items()
        ]


def compare(
    what: str, sides: dict[str, Side], repeats: int, base: Base, agreement: Callable[[], dict[str, float]]
) -> Comparison:
    """Let every side go once to warm up and be counted, then `repeats` times in turns.

    Args:
        what: the unit of work.
        sides: by name, in the order of their turns.
        repeats: turns of each, at least one.
        base: whose transformer, device and dtype they work with.
        agreement: read at the end, when all sides have results.
    """
    measured = {name: _counted(side, base.transformer) for name, side in sides.items()}
    for turn in range(1, repeats + 1):
        for name, side in sides.items():
            gc.collect()  # nothing of the other side's is to be held
            reset_peak(base.device)
            with _quiet():
                measured[name].seconds.append(side.go())
            peaks = (measured[name].peak_bytes, peak_bytes(base.device))
            measured[name].peak_bytes = max((peak for peak in peaks if peak is not None), default=None)
        times = ", ".join(f"{name} {side.seconds[-1]:.3g} s" for name, side in measured.items())
        print(f"{what} {turn}/{repeats}: {times}", flush=True)
    peak = matmul_flops_per_second(base.device, base.dtype)
    return Comparison(what, measured, peak, agreement() if len(sides) > 1 else {})


def _counted(side: Side, transformer: torch.nn.Module) -> Measured:
    """A side's forward passes and operations a unit, nothing timed."""
    with _quiet(), forwards_counted(transformer) as batches, FlopCounterMode(display=False) as counter:
        side.go()
    counts = len(batches), sum(batches), counter.get_total_flops()
    forwards, images, flops = (count / side.units for count in counts)
    return Measured(forwards=forwards, images=images, flops=flops)


@contextmanager
def forwards_counted(transformer: torch.nn.Module) -> Iterator[list[int]]:
    """Gives the number of images of every call of the transformer inside."""
    batches: list[int] = []

    def note(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        batches.append(len(kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]))

    hook = transformer.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield batches
    finally:
        hook.remove()


def matmul_flops_per_second(device: torch.device, dtype: torch.dtype) -> float:
    """Of a large square matrix product, the best of ten."""
    size = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(11):  # the first is the warm-up
        started = now(device)
        a @ b
        seconds.append(now(device) - started)
    return 2 * size**3 / min(seconds[1:])


def now(device: torch.device) -> float:
    """Seconds on the clock once the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return perf_counter()


@contextmanager
def _quiet() -> Iterator[None]:
    """Progress bars are drawn, but not shown."""
    with redirect_stderr(io.StringIO()):
        yield


def report(path: Path, command: str, config: Config, base: Base, comparisons: Sequence[Comparison]) -> None:
    """Write all figures to `path` as JSON, and print them as a table.

    Args:
        path: of the JSON.
        command: that measured them.
        config: they were measured under.
        base: for the machine.
        comparisons: at least one.
    """
    machine = {
        "device": device_name(base.device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "software": software(),
    }
    measured = {comparison.what: comparison.summary() for comparison in comparisons}
    content = {"command": command, "machine": machine, "config": asdict(config), "measured": measured}
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())
    rows = [row for comparison in comparisons for row in comparison.rows()]
    print(f"\n{machine['device']}, torch {machine['torch']}, {config.dtype}\n")
    print(markdown_table(COLUMNS, rows))
    for comparison in comparisons:
        for what, difference in comparison.agreement.items():
            print(f"{comparison.what}: {what} differ by at most {difference:.2g}")
    print(path, flush=True)
