"""The recipe's one training loop: resumable, with a moving average, a warm-up and a decay."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from utils.bars import Bar

Trained = TypeVar("Trained", bound=nn.Module)

Losses = dict[str, Tensor]
LossFn = Callable[[int, torch.Generator], Losses]
"""(step, generator of that step) -> named scalar losses, whose sum is minimised."""

ADAM_SHARE = 0.5
"""AdamW's learning rate as a share of Muon's."""
_SAVE_SECONDS = 120


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a stage trains."""

    steps: int
    lr: float
    """Of Muon."""
    warmup: int = 200
    decay_from: float = 0.7
    """Share of the steps after which the learning rate falls, by a cosine, to a hundredth."""
    ema_decay: float = 0.999
    weight_decay: float = 0.01

    def factor(self, step: int) -> float:
        """The learning rate at `step`, as a share of `lr`."""
        start = self.decay_from * self.steps
        fallen = min(max(0.0, (step - start) / max(1.0, self.steps - start)), 1.0)
        return min(1.0, (step + 1) / self.warmup) * (0.01 + 0.99 * (0.5 + 0.5 * math.cos(math.pi * fallen)))


def step_generator(seed: int, step: int) -> torch.Generator:
    """The random numbers of one step: a run that was cut off goes on exactly as it would have."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


class FlatMuon(torch.optim.Muon):
    """Muon (Jordan et al. 2024) for weights of any shape, each taken as a matrix (outputs, all the rest)."""

    def __init__(self, weights: Sequence[Tensor], lr: float, weight_decay: float) -> None:
        self.weights = list(weights)
        self.flat = [nn.Parameter(weight.detach().flatten(1)) for weight in self.weights]  # the same memory
        super().__init__(self.flat, lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take a step from the weights' own gradients."""
        for weight, flat in zip(self.weights, self.flat, strict=True):
            flat.grad = None if weight.grad is None else weight.grad.flatten(1)
        super().step(closure)


def optimizers_for(model: nn.Module, schedule: Schedule) -> list[Optimizer]:
    """Muon for convolutions and for the matrices inside transformer blocks, AdamW for all the rest."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    inner = [p for name, p in named if p.ndim == 4 or (p.ndim == 2 and "transformer_blocks" in name)]
    inside = {id(p) for p in inner}
    outer = [p for _, p in named if id(p) not in inside]
    decay = schedule.weight_decay
    return [
        FlatMuon(inner, schedule.lr, decay),
        torch.optim.AdamW(outer, schedule.lr * ADAM_SHARE, betas=(0.9, 0.98), weight_decay=decay),
    ]


def fit(model: Trained, losses: LossFn, schedule: Schedule, checkpoint: Path, seed: int = 0) -> Trained:
    """Train `model`, going on from `checkpoint` where there is one.

    Args:
        model: trained in place; its parameters that ask for no gradient stay as they are.
        losses: called once a step; random numbers come from the generator it is given.
        schedule: steps, learning rate, moving average.
        checkpoint: written every few minutes and at the end.
        seed: of the step generators.

    Returns:
        The moving average of the model, in eval mode.

    Raises:
        FloatingPointError: a loss is not finite.
    """
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(schedule.ema_decay))
    optimizers = optimizers_for(model, schedule)
    state = {"model": model, "average": averaged, **{f"optimizer{i}": o for i, o in enumerate(optimizers)}}

    # From where it was; the schedule moves the learning rates that the optimizers were made with.
    lrs = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
    first = _resume(state, checkpoint)
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]

    bar = Bar(
        range(first, schedule.steps),
        initial=first,
        total=schedule.steps,
        desc=checkpoint.stem,
        unit="step",
        mininterval=2,
    )
    model.train()
    saved = time.monotonic()
    smooth: dict[str, float] = {}
    for step in bar:
        # A step along the gradients of the sum.
        for group, lr in zip(groups, lrs, strict=True):
            group["lr"] = lr * schedule.factor(step)
        named = losses(step, step_generator(seed, step))
        total = torch.stack(list(named.values())).sum()
        if not total.isfinite():
            raise FloatingPointError(f"{checkpoint.stem}: loss {total.item()} at step {step}")
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad(set_to_none=True)

        # A short average at first, so that the start is forgotten.
        averaged.multi_avg_fn = get_ema_multi_avg_fn(min(schedule.ema_decay, (step + 1) / (step + 10)))
        averaged.update_parameters(model)

        # What there is to see, and the state.
        for name, value in named.items():
            smooth[name] = 0.98 * smooth.get(name, value.item()) + 0.02 * value.item()
        bar.set_postfix({name: f"{value:.4f}" for name, value in smooth.items()}, refresh=False)
        if time.monotonic() - saved > _SAVE_SECONDS:
            _save(state, checkpoint, step + 1)
            saved = time.monotonic()
    if first < schedule.steps:
        _save(state, checkpoint, schedule.steps)
    return cast(Trained, averaged.module.eval())


def _resume(state: dict, checkpoint: Path) -> int:
    if not checkpoint.exists():
        return 0
    saved = torch.load(checkpoint, weights_only=True)
    for name, part in state.items():
        part.load_state_dict(saved[name])
    return int(saved["step"])


def _save(state: dict, checkpoint: Path, step: int) -> None:
    unfinished = checkpoint.with_suffix(".part")
    torch.save({"step": step, **{name: part.state_dict() for name, part in state.items()}}, unfinished)
    unfinished.replace(checkpoint)
