"""What a training says of itself while it runs: losses on disk, in the tracker and on the progress bar."""

from __future__ import annotations

import io
import json
import math
import os
import time
from collections.abc import Mapping
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
from utils.files import write_atomically
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
        self._pending: list[tuple[int, str, Tensor]] = []

    def __enter__(self) -> TrainingLog:
        name = self.run.config.report_to
        resumed = {"purge_step": self.done + 1} if self.done else {}
        ident = sha256(str(self.run.folder.resolve()).encode()).hexdigest()[:16]  # a resumed run is the same
        own = {"tensorboard": resumed, "wandb": {"name": self.run.name, "id": ident, "resume": "allow"}}
        self.accelerator.init_trackers(PROJECT[name], init_kwargs={name: own.get(name, {})})
        on_main(_cut_log, self.run.log_path, self.done)
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

    def add(self, global_step: int, losses: Mapping[str, Tensor]) -> None:
        """Keep losses of a step, by name."""
        self._pending += [(global_step, name, loss.detach()) for name, loss in losses.items()]

    def picture(self, image: Image.Image, global_step: int) -> None:
        """Keep a picture of a step, in samples/ and the tracker."""
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        on_main(write_atomically, self.run.sample_path(global_step), buffer.getvalue())
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
        with self.run.log_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())  # no state is to outlast the lines before it
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


def _cut_log(path: Path, step: int) -> None:
    """Leave the log's lines of steps up to one; a killed run may have left later ones, the last one cut."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(True) if path.is_file() else []
    kept = [line for line in lines if (found := _step_of(line)) is not None and found <= step]
    write_atomically(path, "".join(kept).encode())


def _step_of(line: str) -> int | None:
    """The step of a line of the log, None for one that is cut or damaged."""
    try:
        return json.loads(line)["step"] if line.endswith("\n") else None
    except (ValueError, TypeError, KeyError):
        return None
