"""The training loop: resuming changes nothing, the schedule and the average are those of their formulas."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tinyflux import fit as fit_module
from tinyflux.fit import ADAM_SHARE, FlatMuon, Schedule, fit, optimizers_for, step_generator

SCHEDULE = Schedule(steps=12, lr=0.02, warmup=3, decay_from=0.5, ema_decay=0.9)


class Mixed(nn.Module):
    """Weights of every kind: a convolution, a matrix in a block, a matrix outside, biases, a frozen one."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.conv = nn.Conv2d(2, 4, 3)
            self.transformer_blocks = nn.ModuleList([nn.Linear(4, 4)])
            self.head = nn.Linear(4, 1)
        self.frozen = nn.Parameter(torch.full((2, 2), 3.0), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.transformer_blocks[0](self.conv(x).mean(dim=(2, 3)))))


def losses_of(model: nn.Module, seen: list[int] | None = None, stop: int | None = None):
    """Two named losses on random images; the steps go into `seen`; the run is cut off before step `stop`."""

    def losses(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        if step == stop:
            raise KeyboardInterrupt
        if seen is not None:
            seen.append(step)
        x = torch.randn(4, 2, 5, 5, generator=generator)
        error = model(x).flatten() - x.mean(dim=(1, 2, 3)) - 0.5
        return {"square": error.square().mean(), "absolute": 0.1 * error.abs().mean()}

    return losses


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert set(one) == set(other)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> list[list[float]]:
    """The learning rates that the optimizers step with: a list a step, Muon's and AdamW's."""
    taken: list[list[float]] = []
    build = fit_module.optimizers_for

    def spied(model: nn.Module, schedule: Schedule) -> list[torch.optim.Optimizer]:
        optimizers = build(model, schedule)
        optimizers[0].register_step_pre_hook(
            lambda *_: taken.append([group["lr"] for o in optimizers for group in o.param_groups])
        )
        return optimizers

    monkeypatch.setattr(fit_module, "optimizers_for", spied)
    return taken


@pytest.mark.parametrize("stop", [1, 7, 11])
def test_a_run_that_was_cut_off_ends_as_one_that_was_not(
    tmp_path: Path, stop: int, rates: list[list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Mixed()
    average = fit(whole, losses_of(whole), SCHEDULE, tmp_path / "whole.ckpt")
    whole_rates = rates.copy()
    rates.clear()

    monkeypatch.setattr(fit_module, "_SAVE_SECONDS", -1)
    cut, seen = Mixed(), []
    with pytest.raises(KeyboardInterrupt):
        fit(cut, losses_of(cut, seen, stop), SCHEDULE, tmp_path / "cut.ckpt")
    resumed = Mixed(seed=1)  # whatever the weights: they come from the checkpoint
    resumed_average = fit(resumed, losses_of(resumed, seen), SCHEDULE, tmp_path / "cut.ckpt")

    assert seen == list(range(12))
    assert rates == whole_rates
    assert_equal(weights(resumed), weights(whole))
    assert_equal(weights(resumed_average), weights(average))
    assert not list(tmp_path.glob("*.part"))


def test_a_finished_run_is_only_read(tmp_path: Path) -> None:
    first, again, seen = Mixed(), Mixed(seed=1), []
    average = fit(first, losses_of(first), SCHEDULE, tmp_path / "run.ckpt")
    before = (tmp_path / "run.ckpt").stat().st_mtime_ns
    assert_equal(
        weights(fit(again, losses_of(again, seen), SCHEDULE, tmp_path / "run.ckpt")), weights(average)
    )
    assert seen == []
    assert (tmp_path / "run.ckpt").stat().st_mtime_ns == before


def test_the_learning_rate_follows_the_schedule(tmp_path: Path, rates: list[list[float]]) -> None:
    model = Mixed()
    fit(model, losses_of(model), SCHEDULE, tmp_path / "run.ckpt")
    muon = [0.02 * SCHEDULE.factor(step) for step in range(12)]
    assert [step[0] for step in rates] == pytest.approx(muon)
    assert [step[1] for step in rates] == pytest.approx([ADAM_SHARE * rate for rate in muon])


def test_the_schedule_warms_up_holds_and_falls_by_a_cosine() -> None:
    schedule = Schedule(steps=1000, lr=1.0, warmup=50, decay_from=0.6)
    assert schedule.factor(0) == pytest.approx(1 / 50)
    assert schedule.factor(24) == pytest.approx(0.5)
    assert [schedule.factor(step) for step in (49, 50, 300, 600)] == pytest.approx([1, 1, 1, 1])
    assert schedule.factor(800) == pytest.approx(0.505)  # halfway from 1 to 0.01
    assert schedule.factor(700) == pytest.approx(0.01 + 0.99 * (0.5 + 0.5 * 0.5**0.5))
    assert schedule.factor(1000) == pytest.approx(0.01)
    assert schedule.factor(5000) == pytest.approx(0.01)
    falling = [schedule.factor(step) for step in range(600, 1001)]
    assert falling == sorted(falling, reverse=True)


def test_the_average_is_returned(tmp_path: Path) -> None:
    """average = d * average + (1 - d) * weights, d = min(0.9, (k + 1) / (k + 10)); the first is a copy."""
    model, after = Mixed(), []
    losses = losses_of(model)

    def recorded(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        after.append(weights(model))
        return losses(step, generator)

    average = fit(model, recorded, SCHEDULE, tmp_path / "run.ckpt")
    after = [*after[1:], weights(model)]
    expected = after[0]
    for step in range(1, 12):
        decay = min(0.9, (step + 1) / (step + 10))
        expected = {name: decay * expected[name] + (1 - decay) * after[step][name] for name in expected}
    for name, value in weights(average).items():
        torch.testing.assert_close(value, expected[name])
    assert not torch.allclose(average.head.weight, model.head.weight, atol=1e-4)
    assert not average.training


def test_frozen_parameters_stay_and_the_others_learn(tmp_path: Path) -> None:
    model = Mixed()
    before = weights(model)
    average = fit(model, losses_of(model), SCHEDULE, tmp_path / "run.ckpt")
    for trained in (model, average):
        for name, value in weights(trained).items():
            assert torch.equal(value, before[name]) == (name == "frozen")


def test_the_loss_falls(tmp_path: Path) -> None:
    model = Mixed()

    def loss() -> float:
        return losses_of(model)(0, torch.Generator().manual_seed(5))["square"].item()

    before = loss()
    fit(model, losses_of(model), Schedule(steps=150, lr=0.02, warmup=5), tmp_path / "run.ckpt")
    assert loss() < 0.1 * before


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path, bad: float) -> None:
    model = Mixed()
    losses = losses_of(model)

    def breaking(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        named = losses(step, generator)
        return {**named, "square": named["square"] * bad} if step == 3 else named

    with pytest.raises(FloatingPointError, match=r"broken: loss (nan|inf) at step 3"):
        fit(model, breaking, SCHEDULE, tmp_path / "broken.ckpt")
    assert not (tmp_path / "broken.ckpt").exists()


def test_steps_draw_their_own_numbers() -> None:
    draws = {(seed, step): torch.rand(1, generator=step_generator(seed, step)).item()
             for seed in (0, 1, 2) for step in (0, 1, 999)}  # fmt: skip
    assert len(set(draws.values())) == 9
    assert torch.rand(1, generator=step_generator(1, 999)).item() == draws[1, 999]


def test_every_trained_parameter_has_one_optimizer() -> None:
    model = Mixed()
    muon, adam = optimizers_for(model, SCHEDULE)
    assert [id(p) for p in muon.weights] == [id(model.conv.weight), id(model.transformer_blocks[0].weight)]
    rest = [model.conv.bias, model.transformer_blocks[0].bias, model.head.weight, model.head.bias]
    assert {id(p) for p in adam.param_groups[0]["params"]} == {id(p) for p in rest}


def muon_steps(optimizer: torch.optim.Optimizer, weight: nn.Parameter) -> Tensor:
    """`weight` after three steps on fixed random gradients."""
    generator = torch.Generator().manual_seed(3)
    for _ in range(3):
        weight.grad = torch.randn(weight.numel(), generator=generator).reshape(weight.shape)
        optimizer.step()
    return weight.detach()


@pytest.mark.parametrize("shape", [(6, 4), (4, 10), (5, 2, 3, 3)])
def test_flat_muon_is_muon_on_outputs_by_all_the_rest(shape: tuple[int, ...]) -> None:
    start = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    ours, plain = nn.Parameter(start.clone()), nn.Parameter(start.reshape(shape[0], -1).clone())
    stock = torch.optim.Muon([plain], 0.1, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    moved = muon_steps(FlatMuon([ours], 0.1, 0.05), ours)
    assert moved.shape == shape
    assert torch.equal(moved.reshape(shape[0], -1), muon_steps(stock, plain))
    assert not torch.allclose(moved, start, atol=1e-2)


def test_flat_muon_leaves_a_weight_without_a_gradient() -> None:
    used, unused = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimizer = FlatMuon([used, unused], 0.1, 0.0)
    used.grad = torch.eye(2)
    optimizer.step()
    assert torch.equal(unused, torch.ones(2, 2))
    assert not torch.equal(used, torch.ones(2, 2))


def test_flat_muons_state_can_be_saved_and_loaded() -> None:
    start = nn.Parameter(torch.randn(3, 2, 2, 2, generator=torch.Generator().manual_seed(0)))
    whole, halved = copy.deepcopy(start), copy.deepcopy(start)
    muon_steps(optimizer := FlatMuon([whole], 0.1, 0.05), whole)
    muon_steps(optimizer, whole)
    muon_steps(first := FlatMuon([halved], 0.1, 0.05), halved)
    again = FlatMuon([halved], 0.1, 0.05)
    again.load_state_dict(copy.deepcopy(first.state_dict()))
    muon_steps(again, halved)
    assert torch.equal(whole, halved)
