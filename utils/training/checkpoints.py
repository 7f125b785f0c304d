"""A training's state: all that its next step depends on, so that a run that was killed goes on bit for bit.

One file a run, put in place whole over the one before, so that whatever happens there is a good one.
"""

from __future__ import annotations

import io
import math
import random
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from types import FrameType
from typing import Any, cast

import numpy as np
import torch
from torch import Generator, Tensor

from utils.errors import UserError
from utils.files import write_atomically
from utils.training.average import Average, restore_means


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
        log: hash of losses.jsonl so far, "" where it is not known.
        averages: see `Average`, adapter by adapter; [] without one.
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
    log: str = ""
    averages: list[Tensor] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write it in place of the one before, under a hash; raises `UserError` where there is no room."""
        buffer = io.BytesIO()
        torch.save(vars(self), buffer)
        content = buffer.getvalue()
        write_atomically(path, SEAL + sha256(content).hexdigest().encode() + b"\n" + content)

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Read what `save` wrote; it can't run code.

        Raises:
            UserError: if it is missing, damaged or changed, which a killed `save` never leaves.
        """
        try:
            content = _unsealed(path.read_bytes())
            checkpoint = cls(**torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
            _check(checkpoint)
        except Exception as error:  # a damaged file can make the parsers raise anything
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(f"{path}: expected a training's state, found: {reason}; move it") from error
        return checkpoint


SEAL = b"pairedit state, sha256 "
"""What a state's file begins with; the hash of all that follows, in hexadecimal, and a line's end."""


def _unsealed(data: bytes) -> bytes:
    """The content of a state's file; raises ValueError if it is not what was written.

    Earlier versions wrote the content alone, which only `_check` can say anything of.
    """
    if not data.startswith(SEAL):
        return data
    start = len(SEAL) + 2 * sha256().digest_size
    found, content = data[len(SEAL) : start], data[start + 1 :]
    if found != sha256(content).hexdigest().encode():
        raise ValueError("another content than was written, by its hash")
    return content


def _check(checkpoint: Checkpoint) -> None:
    """Raise ValueError for what no training leaves."""
    step, schedule = checkpoint.step, checkpoint.lr_scheduler
    if type(step) is not int or step < 1 or schedule.get("last_epoch") != step:
        raise ValueError(f"step {step!r}, and a learning rate of step {schedule.get('last_epoch')!r}")
    numbers = {"seconds": checkpoint.seconds, **checkpoint.means}
    for name, value in numbers.items():
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{name} {value!r}")
    for name, own in checkpoint.weights.items():
        if not all(torch.isfinite(tensor).all() for tensor in own):
            raise ValueError(f"weights of {name} that are not finite")


def state_fault(path: Path, steps: int) -> str:
    """Why no training of so many steps can go on from a state's file, in words; "" = it can.

    Raises:
        UserError: if it can't be read by the machine's fault.
    """
    try:
        step = Checkpoint.load(path).step
    except UserError as error:
        if isinstance(error.__cause__, OSError | MemoryError):  # it may be good all the same
            raise
        return str(error).removesuffix("; move it")
    return "" if step <= steps else f"{path}: expected a state of step 1 to {steps}, found step {step}"


@dataclass(frozen=True)
class Learner:
    """What changes while a training runs, and the base that it runs on.

    Attributes:
        weights: {adapter: its A and B of each linear in turn}.
        optimizer, lr_scheduler: over all of them.
        generator: of the run's own random choices.
        base: hash of the base model.
        idle: weights that do not learn in a step.
        average: of the weights, where it is what is saved.
        max_grad_norm: of all weights' gradients together, 0 for any.
    """

    weights: Mapping[str, Sequence[Tensor]]
    optimizer: torch.optim.Optimizer
    lr_scheduler: torch.optim.lr_scheduler.LambdaLR
    generator: Generator
    base: str
    idle: Callable[[int], Sequence[Tensor]] = lambda global_step: ()
    average: Average | None = None
    max_grad_norm: float = 0.0

    @property
    def parameters(self) -> list[Tensor]:
        """All weights, adapter by adapter."""
        return [weight for own in self.weights.values() for weight in own]

    def step(self, global_step: int = 0) -> None:
        """Take a step by the gradients that are there, with the weights that learn in it."""
        for weight in self.idle(global_step):
            weight.grad = None
        if self.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.max_grad_norm)
        self.optimizer.step()
        self.lr_scheduler.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update(self.parameters)


def take_checkpoint(
    learner: Learner, step: int, seconds: float, means: Mapping[str, float], log: str = ""
) -> Checkpoint:
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
        log=log,
        averages=[mean.cpu() for mean in learner.average.means] if learner.average else [],
    )


def restore(checkpoint: Checkpoint, learner: Learner) -> None:
    """Put a fresh training into the checkpoint's state.

    Raises:
        UserError: it was on another base model, or of other adapters, ranks or layers.
    """
    if checkpoint.base != learner.base:
        raise UserError(
            f"--resume: expected the base of hash {checkpoint.base}, found another, of {learner.base}"
        )
    try:
        _check_shapes(checkpoint, learner)
        for name, own in learner.weights.items():
            for tensor, saved in zip(own, checkpoint.weights[name], strict=True):
                tensor.data.copy_(saved)
        restore_means(learner.average, checkpoint.averages)
        learner.optimizer.load_state_dict(checkpoint.optimizer)
        learner.lr_scheduler.load_state_dict({**learner.lr_scheduler.state_dict(), **checkpoint.lr_scheduler})
        learner.generator.set_state(checkpoint.generator)
        set_rng_state(checkpoint.rng)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # what is damaged can make torch raise anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"--resume: expected the state of this training, found: {reason}") from error


def _check_shapes(checkpoint: Checkpoint, learner: Learner) -> None:
    """Raise ValueError unless weights and moments are the learner's: copying would repeat smaller ones."""
    if checkpoint.weights.keys() != learner.weights.keys():
        expected, found = ", ".join(learner.weights), ", ".join(checkpoint.weights)
        raise ValueError(f"adapters {found} where {expected} are trained")
    wanted = [tensor.shape for tensor in learner.parameters]
    weights = [tensor for name in learner.weights for tensor in checkpoint.weights[name]]
    states = [checkpoint.optimizer["state"].get(index, {}) for index in range(len(wanted))]
    if [weight.shape for weight in weights] != wanted or any(
        moment.shape != shape
        for state, shape in zip(states, wanted, strict=True)
        for moment in _moments_of(state)
    ):
        raise ValueError("weights or moments of other shapes")


def _moments_of(state: Mapping[str, Any]) -> list[Tensor]:
    """An optimizer's two moments of a weight, [] before its first step; raises KeyError if there are none.

    bitsandbytes has its own names for them, a level further down where they are of 8 bits.
    """
    if not state:
        return []
    nested = [each for each in state.values() if isinstance(each, Mapping)]
    own = {name: value for each in (state, *nested) for name, value in each.items()}
    names = ("state1", "state2") if "state1" in own else ("exp_avg", "exp_avg_sq")
    return [own[name] for name in names]


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
            raise KeyboardInterrupt("not saved since; --resume continues from the last save")
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
