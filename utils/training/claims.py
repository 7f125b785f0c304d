"""Whose turn a run's folder is: trained before, half trained, or in the way of other settings.

A folder is trained in by one process at a time, nothing in it is ever overwritten by another training, and
what is done is not done again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock, Timeout

from utils.config.load import read_config, save_config
from utils.config.runs import Run
from utils.config.schema import depends_on
from utils.errors import UserError
from utils.files import remove_unfinished, write_atomically
from utils.training.checkpoints import state_fault

LOCK = ".lock"


@contextmanager
def claimed(run: Run, inputs: str) -> Iterator[bool]:
    """Have the run's folder for training in it; other processes are kept out until the end.

    A finished training of the same settings and inputs is left alone. A half-finished one is resumed if the
    run says `resume`. Whatever else is there is moved aside, and said so.

    Args:
        run: what is to be trained.
        inputs: the fingerprint of its source.

    Yields:
        Whether there is anything to train.

    Raises:
        UserError: another process trains in the folder.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run.folder.with_name(f".{run.name}{LOCK}"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"{run.folder}: expected it free, found another process training in it") from None
    try:
        if is_trained(run, inputs):
            run.state_path.unlink(missing_ok=True)  # left if it was killed in its last moment
            print(f"{run.folder}: trained before, left as it is", flush=True)
            yield False
            return
        remove_unfinished(run.folder)
        if reason := _in_the_way(run, inputs):
            print(f"{run.folder}: {reason}; moved to {_move_aside(run.folder)}", flush=True)
        save_config(run.config, run.config_path)
        write_atomically(run.inputs_path, f"{inputs}\n".encode())
        yield True
    finally:
        lock.release()


def is_trained(run: Run, inputs: str) -> bool:
    """Whether the run's LoRA is there, of just its settings and inputs."""
    there = run.record_path.is_file() and run.weights_path().is_file()
    return there and not difference(run, inputs)


def difference(run: Run, inputs: str) -> str:
    """What the training in the run's folder has otherwise than the run, in words; "" = nothing."""
    if not run.config_path.is_file():
        return "it has no config"
    try:
        there, wanted = asdict(read_config(run.config_path)), asdict(run.config)
    except UserError as error:
        return f"its config is of another version ({error})"
    trains = depends_on("trains")
    for key in wanted:  # in the keys' order, for the same words every time
        if key in trains and there[key] != wanted[key]:
            return f"trained with {key} {there[key]}, now {wanted[key]}"
    path = run.inputs_path
    found = path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else ""
    return "" if found == inputs else "trained on other images or prompts"


def _in_the_way(run: Run, inputs: str) -> str:
    """Why what was saved in the folder must be moved before training, in words; "" = it need not be."""
    kept = [
        path
        for pattern in ("*.safetensors", "*.pt", "*.jsonl", "*.json")
        for path in run.folder.glob(pattern)
    ]
    if not kept:
        return ""
    if changed := difference(run, inputs):
        return changed
    if run.state_path.is_file() and not run.config.resume:
        return "a training was stopped there, which --resume would continue; this is a new one"
    if run.state_path.is_file() and (fault := state_fault(run.state_path, run.config.train_iteration)):
        return f"its state can't be gone on from ({fault})"
    return ""


def _move_aside(folder: Path) -> Path:
    number = 1
    while (aside := folder.with_name(f"{folder.name}_old{number}")).exists():
        number += 1
    return folder.rename(aside)
