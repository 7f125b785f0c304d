"""Whose turn a run's folder is: trained before, half trained, or in the way of other settings.

A folder is trained in by one process at a time, nothing in it is ever overwritten by another training, and
what is done is not done again: of the same settings, images and code, and as it was saved. Nothing heavy is
imported, so that this is known at once.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock, Timeout

from utils.code_hash import CodeHash, changed_files, training_code
from utils.config.load import read_config, save_config
from utils.config.runs import Run
from utils.config.schema import depends_on, drawn_by
from utils.errors import UserError
from utils.files import move_aside, remove_unfinished, write_atomically
from utils.hashes import lora_hash, read_hashes, write_hashes
from utils.training.methods import method_of

LOCK = ".lock"


@contextmanager
def claimed(run: Run, inputs: str) -> Iterator[bool]:
    """Have the run's folder for training in it; other processes are kept out until the end.

    A finished training of the same settings, inputs and code is left alone. A half-finished one is resumed if
    the run says `resume`. Whatever else is there is moved aside, and said so.

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
            print(f"{run.folder}: trained before{_in_other_ways(run)}, left as it is", flush=True)
            yield False
            return
        remove_unfinished(run.folder)
        if reason := _in_the_way(run, inputs):
            print(f"{run.folder}: {reason}; moved to {move_aside(run.folder)}", flush=True)
        save_config(run.config, run.config_path)
        write_atomically(run.inputs_path, f"{_inputs(run, inputs)}\n".encode())
        write_hashes(run.code_path, code_of(run))
        yield True
    finally:
        lock.release()


def is_trained(run: Run, inputs: str) -> bool:
    """Whether the run's LoRA is there, of just its settings, inputs and code, and as it was saved."""
    there = run.record_path.is_file() and run.weights_path().is_file()
    return there and not difference(run, inputs)


def difference(run: Run, inputs: str) -> str:
    """What the training in the run's folder has otherwise than the run, in words; "" = nothing."""
    if not run.config_path.is_file():
        return "it has no config"
    try:
        other_settings = different_settings(run, depends_on("trains"))
    except UserError as error:
        return f"its config is of another version ({error})"
    if other_settings:
        return other_settings
    path = run.inputs_path
    found = path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else ""
    if found != _inputs(run, inputs):
        what = "images, prompts or init_lora" if run.config.init_lora else "images or prompts"
        return f"trained on other {what}"
    if (files := _other_code(run)) and not run.config.other_code:
        return f"trained by other code ({', '.join(files)}), which other_code=1 would keep"
    return _damage(run)


def different_settings(run: Run, keys: frozenset[str]) -> str:
    """The first of `keys` that the training in the run's folder had otherwise, in words; "" = none.

    Raises:
        UserError: its config is missing or of another version.
    """
    there, wanted = asdict(read_config(run.config_path)), asdict(run.config)
    for key in wanted:  # in the keys' order, for the same words every time
        if key in keys and there[key] != wanted[key]:
            return f"trained with {key} {there[key]}, now {wanted[key]}"
    return ""


def trained_otherwise(run: Run) -> str:
    """How the run's LoRA was trained otherwise than the run says, in words; "" = not, or that was not kept.

    Keys that images depend on, too, may be set for them alone.
    """
    try:
        told = different_settings(run, depends_on("trains") - drawn_by())
    except UserError:
        return ""
    return f"{run.weights_path()}: {told}" if told else ""


def code_of(run: Run) -> CodeHash:
    """Which code decides the run's weights."""
    name = run.config.python_name
    module = sys.modules.get(method_of(name).objective.__module__)
    return training_code(name, getattr(module, "__file__", None))


def note_saved(run: Run, step: int) -> None:
    """Keep the hashes of the LoRA saved after a step beside it, for `is_trained` to know it by."""
    hashes = read_hashes(run.saved_path) or {}
    files = [path for path in (run.weights_path(step), run.reference_path(step)) if path.is_file()]
    hashes |= {path.name: lora_hash(path) for path in files}
    write_hashes(run.saved_path, {name: own for name, own in hashes.items() if (run.folder / name).is_file()})


def _inputs(run: Run, inputs: str) -> str:
    """The source's fingerprint, and with it the hash of the LoRA that training goes on from."""
    first = run.config.init_lora
    return f"{inputs} {lora_hash(Path(first))}" if first else inputs


def _other_code(run: Run) -> Sequence[str]:
    """The files whose code has changed since the training; none where that was not kept."""
    then = read_hashes(run.code_path)
    return [] if then is None else changed_files(then, code_of(run))


def _damage(run: Run) -> str:
    """What is wrong with the LoRA in the run's folder, in words; "" = nothing, or there is none yet."""
    saved = read_hashes(run.saved_path) or {}
    for path in (run.weights_path(), run.reference_path()):
        if not path.is_file():
            continue
        try:
            found = lora_hash(path)
        except UserError as error:
            return f"its LoRA is damaged ({error})"
        if saved.get(path.name, found) != found:
            return f"{path.name} is not what training saved"
    return ""


def _in_other_ways(run: Run) -> str:
    """What is to be told of a training that is kept; one from before hashes were kept gets them now."""
    if files := _other_code(run):
        return f", by other code ({', '.join(files)}), kept as other_code says"
    if run.code_path.is_file() and run.saved_path.is_file():
        return ""
    write_hashes(run.code_path, code_of(run))
    note_saved(run, run.config.train_iteration)
    return " hashes of code and LoRA were kept, which are taken from now on"


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
    from utils.training.checkpoints import state_fault  # torch comes with it

    if run.state_path.is_file() and (fault := state_fault(run.state_path, run.config.train_iteration)):
        return f"its state can't be gone on from ({fault})"
    return ""
