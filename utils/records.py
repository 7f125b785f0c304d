"""What a training or a generation cost: written beside its results, read back by eval_scripts/cost.py."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

import torch

from utils.errors import UserError
from utils.files import write_atomically
from utils.machine import REPOSITORY

LIBRARIES = ("torch", "diffusers", "transformers", "peft", "accelerate", "safetensors", "numpy")
_LINUX = sys.platform == "linux"


@dataclass(frozen=True)
class Record:
    """One piece of work.

    Attributes:
        work: "training" or "generation".
        seconds: wall time, without loading the base.
        count: optimizer steps or images.
        peak_bytes: most memory during the work: on CUDA what torch allocated; on a CPU what the process held,
            where the system is not Linux what it has ever held, None where that is not said either.
        device: its name.
        torch: the version.
        software: versions of what else had a part in it, the commit of this project among them.
    """

    work: str
    seconds: float
    count: int
    peak_bytes: int | None
    device: str
    torch: str
    software: dict[str, str] = field(default_factory=dict)

    @property
    def per_second(self) -> float:
        """Steps or images a second."""
        return self.count / self.seconds


@contextmanager
def recorded(path: Path, work: str, count: int, device: torch.device, before: float = 0.0) -> Iterator[None]:
    """Write the record of what happens inside to `path`, if it ends well; `before`: seconds spent earlier."""
    made_with = software()  # now: the files may change while it works
    reset_peak(device)
    started = perf_counter()
    yield
    seconds = before + perf_counter() - started
    machine = peak_bytes(device), device_name(device)
    record = Record(work, seconds, count, *machine, torch.__version__, made_with)
    write_atomically(path, (json.dumps(asdict(record), indent=1) + "\n").encode())


def read_record(path: Path) -> Record:
    """Read a record back; raises `UserError` if there is none at `path` or it is damaged."""
    try:
        return Record(**json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(f"{path}: expected a run's record, found {error.strerror or error}") from None
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: expected a run's record, found {error}") from None


@cache
def software() -> dict[str, str]:
    """Versions of Python and of the libraries that results depend on, and the commit of this project."""
    versions = {name: version(name) for name in LIBRARIES}
    return {"python": platform.python_version(), **versions, "commit": _commit()}


@cache
def project_version() -> str:
    """As pyproject.toml has it; of an installed copy, as it was installed."""
    project = REPOSITORY / "pyproject.toml"
    if not project.is_file():
        return version("pairedit")
    return tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"]


def _commit() -> str:
    """Of the repository that this file is in, with + where files differ from it; "unknown" without git."""
    git = ["git", "-C", str(REPOSITORY)]
    try:
        commit, changes = (
            subprocess.run([*git, *arguments], capture_output=True, text=True, check=True).stdout.strip()
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+" if changes else "")


def reset_peak(device: torch.device) -> None:
    """Have `peak_bytes` count from here on, where the system lets it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _LINUX:
        with suppress(OSError):  # where the system forbids it, the peak stays that of the process's life
            Path("/proc/self/clear_refs").write_text("5")  # the high-water mark, see proc(5)


def peak_bytes(device: torch.device) -> int | None:
    """The most memory held since `reset_peak`; what is counted, `Record.peak_bytes` says."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if _LINUX:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    try:
        from resource import RUSAGE_SELF, getrusage
    except ImportError:  # not on Windows
        return None
    return getrusage(RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def device_name(device: torch.device) -> str:
    """As the card calls itself; of a CPU, its kind and the threads torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return f"Apple GPU {platform.machine()}"
    return f"CPU {platform.machine()}, {torch.get_num_threads()} threads"
