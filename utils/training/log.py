"""What a training says of itself while it runs: losses on disk, in the tracker and on the progress bar."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor

from utils.bars import Bar
from utils.config.runs import Run
from utils.files import append_line, free_name, write_atomically
from utils.report.figures import save_image
from utils.training.checkpoints import Checkpoint
from utils.training.distributed import averaged, is_main, on_main

PROJECT = {"tensorboard": "tensorboard", "wandb": "pairedit", "none": "none"}
"""The tracker's project, which for TensorBoard is a folder in the run's."""
HINT = "a smaller lr may help"


class TrainingLog:
    """Losses to losses.jsonl, the tracker and the progress bar; of several processes, the means of all.

    Losses stay on the device until a line is written, every `log_every` steps and before every save: reading
    one waits for the GPU. A line holds the mean of each loss since the line before; one loss of one random
    sigma says little. Beside the step stand the seconds since training began.
    """

    def __init__(self, run: Run, accelerator: Accelerator, before: Checkpoint | None) -> None:
        self.run, self.accelerator = run, accelerator
        self.means: dict[str, float] = dict(before.means) if before else {}
        self.done, self._seconds = (before.step, before.seconds) if before else (0, 0.0)
        self._written = before.log if before else ""
        self._hash = sha256()
        self._pending: list[tuple[int, str, Tensor]] = []

    def __enter__(self) -> TrainingLog:
        name = self.run.config.report_to
        resumed = {"purge_step": self.done + 1} if self.done else {}
        ident = sha256(str(self.run.folder.resolve()).encode()).hexdigest()[:16]  # a resumed run is the same
        own = {"tensorboard": resumed, "wandb": {"name": self.run.name, "id": ident, "resume": "allow"}}
        self.accelerator.init_trackers(PROJECT[name], init_kwargs={name: own.get(name, {})})
        self._hash.update(on_main(_cut_log, self.run.log_path, self.done, self._written))
        steps, silent = self.run.config.train_iteration, not is_main()
        self._bar = Bar(total=steps, initial=self.done, desc=self.run.dataset, unit="step", silent=silent)
        self._started = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        for tracker in self.accelerator.trackers:  # end_training would also end what a next run needs
            tracker.finish()

    @property
    def seconds(self) -> float:
        """Of training, what came before it was resumed included."""
        return self._seconds + time.perf_counter() - self._started

    @property
    def digest(self) -> str:
        """Hash of the lines so far, by the main process, which writes them."""
        return self._hash.hexdigest()

    def add(self, global_step: int, losses: Mapping[str, Tensor]) -> None:
        """Keep losses of a step, by name."""
        self._pending += [(global_step, name, loss.detach()) for name, loss in losses.items()]

    def picture(self, image: Image.Image, global_step: int) -> None:
        """Keep a picture of a step, in samples/ and the tracker."""
        on_main(save_image, image, self.run.sample_path(global_step))
        own = {"dataformats": "NHWC"} if self.run.config.report_to == "tensorboard" else {}
        for tracker in self.accelerator.trackers if is_main() else ():
            found: Any = tracker
            found.log_images({"samples": np.asarray(image)[None]}, step=global_step, **own)

    def end_step(self, global_step: int, flush: bool) -> None:
        """Count a step; write a line when it is time or `flush`. FloatingPointError for a loss not finite."""
        self._bar.update()
        if not flush and global_step % self.run.config.log_every:
            return
        self.means = self._take_means()
        if is_main():
            self._write_means(global_step)

    def _write_means(self, global_step: int) -> None:
        line = {"step": global_step, "seconds": round(self.seconds, 3), **self.means}
        text = json.dumps(line)
        append_line(self.run.log_path, text)  # on the disk: no state is to outlast the lines before it
        self._hash.update(f"{text}\n".encode())
        self.accelerator.log({f"loss/{name}": mean for name, mean in self.means.items()}, step=global_step)
        self._bar.set_postfix({name: f"{mean:.4f}" for name, mean in self.means.items()}, refresh=False)

    def _take_means(self) -> dict[str, float]:
        values = torch.stack([loss for _, _, loss in self._pending]).tolist()  # one transfer for all of them
        values = averaged(values)
        by_name: dict[str, list[float]] = {}
        for (step, name, _), value in zip(self._pending, values, strict=True):
            if not math.isfinite(value):
                raise FloatingPointError(f"{self.run.name}: {name} loss is {value} at step {step}; {HINT}")
            by_name.setdefault(name, []).append(value)
        self._pending.clear()
        return {name: sum(losses) / len(losses) for name, losses in by_name.items()}


@contextmanager
def threads_faults_once() -> Iterator[None]:
    """Inside, a full disk met by TensorBoard's thread prints no traceback: its next call here raises it."""
    hook = threading.excepthook

    def unless_raised_here(fault: threading.ExceptHookArgs) -> None:
        if not issubclass(fault.exc_type, OSError):
            hook(fault)

    threading.excepthook = unless_raised_here
    try:
        yield
    finally:
        threading.excepthook = hook


def _cut_log(path: Path, step: int, digest: str) -> bytes:
    """Leave the log's lines of steps up to one, and return them.

    A killed run may have left later ones, the last one cut. What was damaged is told, and kept aside.

    Args:
        path: of the log.
        step: the last one to keep.
        digest: hash of the lines up to there as they were written, "" where it is not known.
    """
    content = path.read_bytes() if path.is_file() else b""
    *lines, cut = content.decode(errors="replace").splitlines(True) or [""]
    if cut.endswith("\n"):
        lines, cut = [*lines, cut], ""
    steps = [_step_of(line) for line in lines]
    kept = "".join(line for line, own in zip(lines, steps, strict=True) if own is not None and own <= step)
    if None in steps or (digest and digest != sha256(kept.encode()).hexdigest()):
        aside = free_name(path.with_name(f"{path.stem}_damaged{path.suffix}"))
        write_atomically(aside, content)
        print(f"{path}: not as it was written; kept as {aside}, its readable lines stay", flush=True)
    write_atomically(path, kept.encode())
    return kept.encode()


def _step_of(line: str) -> int | None:
    """The step of a line of the log, None for one that is damaged."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return step if type(step) is int else None
