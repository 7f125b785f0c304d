"""A training's state: all that its next step depends on, so that a run that was killed goes on bit for bit.

One file a run, put in place whole over the one before, so that whatever happens there is a good one.
"""

from __future__ import annotations

import io
import random
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from types import FrameType
from typing import Any, cast

import numpy as np
import torch
from torch import Generator, Tensor

from utils.errors import UserError
from utils.files import write_atomically


@dataclass(frozen=True)
class Checkpoint:
    """What a training is after some step.

    Attributes:
        step: steps done.
        seconds: of training so far.
        means: of each loss, as last logged.
        weights: {adapter: its A and B of each linear in turn}, of all adapters that are trained.
        optimizer, lr_scheduler: their state dicts.
        generator: state of the run's own random choices, the order of the data among them.
        rng: state of the global ones, see `rng_state`.
        base: hash of the base model.
    """

    step: int
    seconds: float
    means: dict[str, float]
    weights: dict[str, list[Tensor]]
    optimizer: dict[str, Any]
    lr_scheduler: dict[str, Any]
    generator: Tensor
    rng: dict[str, Any]
    base: str

    def save(self, path: Path) -> None:
        """Write it in place of the one before; raises `UserError` where there is no room."""
        buffer = io.BytesIO()
        torch.save(vars(self), buffer)
        write_atomically(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Read what `save` wrote; it can't run code.

        Raises:
            UserError: if it is missing or damaged, which a killed `save` never leaves.
        """
        try:
            return cls(**torch.load(path, map_location="cpu", weights_only=True))
        except (OSError, RuntimeError, UnpicklingError, EOFError, TypeError, ValueError, KeyError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(f"{path}: expected a training's state, found: {reason}; move it") from error


@dataclass(frozen=True)
class Learner:
    """What changes while a training runs, and the base that it runs on.

    Attributes:
        weights: {adapter: its A and B of each linear in turn}.
        optimizer, lr_scheduler: over all of them.
        generator: of the run's own random choices.
        base: hash of the base model.
    """

    weights: Mapping[str, Sequence[Tensor]]
    optimizer: torch.optim.Optimizer
    lr_scheduler: torch.optim.lr_scheduler.LambdaLR
    generator: Generator
    base: str

    @property
    def parameters(self) -> list[Tensor]:
        """All weights, adapter by adapter."""
        return [weight for own in self.weights.values() for weight in own]

    def step(self) -> None:
        """Take a step by the gradients that are there."""
        self.optimizer.step()
        self.lr_scheduler.step()
        self.optimizer.zero_grad()


def take_checkpoint(learner: Learner, step: int, seconds: float, means: Mapping[str, float]) -> Checkpoint:
    """The state of a training now, on the CPU."""
    schedule = learner.lr_scheduler.state_dict()
    return Checkpoint(
        step=step,
        seconds=seconds,
        means=dict(means),
        weights={name: [tensor.detach().cpu() for tensor in own] for name, own in learner.weights.items()},
        optimizer=learner.optimizer.state_dict(),
        lr_scheduler={key: value for key, value in schedule.items() if key != "lr_lambdas"},
        generator=learner.generator.get_state(),
        rng=rng_state(),
        base=learner.base,
    )


def restore(checkpoint: Checkpoint, learner: Learner) -> None:
    """Put a fresh training into the checkpoint's state.

    Raises:
        UserError: it was on another base model.
        ValueError: it was of other adapters.
    """
    if checkpoint.base != learner.base:
        raise UserError(
            f"--resume: expected the base of hash {checkpoint.base}, found another, of {learner.base}"
        )
    if checkpoint.weights.keys() != learner.weights.keys():
        expected, found = ", ".join(learner.weights), ", ".join(checkpoint.weights)
        raise ValueError(f"expected adapters {expected}, found {found}")
    for name, own in learner.weights.items():
        for tensor, saved in zip(own, checkpoint.weights[name], strict=True):
            tensor.data.copy_(saved)
    learner.optimizer.load_state_dict(checkpoint.optimizer)
    learner.lr_scheduler.load_state_dict({**learner.lr_scheduler.state_dict(), **checkpoint.lr_scheduler})
    learner.generator.set_state(checkpoint.generator)
    set_rng_state(checkpoint.rng)


def rng_state() -> dict[str, Any]:
    """The state of every global source of random numbers: Python, NumPy, torch on the CPU and each GPU."""
    algorithm, keys, *rest = cast(tuple[Any, ...], np.random.get_state(legacy=True))
    return {
        "python": random.getstate(),
        "numpy": [algorithm, torch.from_numpy(keys.astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Put every global source back to where `rng_state` found it."""
    algorithm, keys, *rest = state["numpy"]
    random.setstate(state["python"])
    np.random.set_state((algorithm, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])


@contextmanager
def kept_rng() -> Iterator[None]:
    """Whatever is drawn or restored inside, the global sources are as before afterwards."""
    before = rng_state()
    try:
        yield
    finally:
        set_rng_state(before)


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Inside, Ctrl-C and SIGTERM are noted, for the loop to stop where it is safe; a second one interrupts.

    Yields:
        Whether one came.
    """
    noted: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        if noted:
            raise KeyboardInterrupt
        noted.append(number)

    if threading.current_thread() is not threading.main_thread():  # where signals can't be caught
        yield lambda: False
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(noted)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
