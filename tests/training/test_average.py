"""The moving mean of weights, and the other settings of a step that other trainers have."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.training.mini_runs import learn, lines, make_run, objective_of
from utils.training.average import Average
from utils.training.optimizers import build_optimizer


def test_the_mean_keeps_its_share_and_gives_the_weights_back() -> None:
    weights = [torch.tensor([1.0, 2.0], requires_grad=True)]
    average = Average.of(weights, 0.75)
    weights[0].data += 4
    average.update(weights)
    with average.in_place_of(weights):
        assert torch.equal(weights[0], torch.tensor([2.0, 3.0]))
    assert torch.equal(weights[0], torch.tensor([5.0, 6.0]))


def _learned(folder: Path, base, pairs, **changes) -> tuple[list[dict[str, Tensor]], list[float]]:
    """The LoRA after each of three steps, and the losses."""
    run = make_run(folder, train_iteration=3, save_per_steps=1, log_every=1, **changes)
    learn(run, base, pairs, objective_of(run))
    losses = [line["semantic"] for line in lines(run)]
    return [load_file(run.weights_path(step)) for step in (1, 2, 3)], losses


def test_what_is_saved_is_the_moving_mean_of_the_same_training(tmp_path, mini_flux_loaded, pairs) -> None:
    last, losses = _learned(tmp_path / "last", mini_flux_loaded, pairs)
    mean, same = _learned(tmp_path / "mean", mini_flux_loaded, pairs, ema_decay=0.75)
    assert same == losses
    for name in (name for name in last[0] if "lora_B" in name):  # which begins at 0
        expected = torch.zeros_like(last[0][name])
        for weights, saved in zip(last, mean, strict=True):
            expected = 0.75 * expected + 0.25 * weights[name]
            torch.testing.assert_close(saved[name], expected)


def test_gradients_are_scaled_down_to_a_norm_alone(tmp_path, mini_flux_loaded, pairs) -> None:
    free, _ = _learned(tmp_path / "free", mini_flux_loaded, pairs)
    above, _ = _learned(tmp_path / "above", mini_flux_loaded, pairs, max_grad_norm=1e6)
    below, _ = _learned(tmp_path / "below", mini_flux_loaded, pairs, max_grad_norm=1e-9)
    assert all(torch.equal(free[-1][name], above[-1][name]) for name in free[-1])
    norms = [
        math.hypot(*(w.norm().item() for n, w in each[-1].items() if "lora_B" in n)) for each in (free, below)
    ]
    assert norms[1] < norms[0] / 5  # far below AdamW's eps its steps shrink with the gradient


def test_training_has_a_guidance_of_its_own(tmp_path, mini_flux_loaded, pairs) -> None:
    settings = {"a": {}, "b": {"guidance_scale": 1.0}, "c": {"train_guidance": 1.0}}
    found = {
        name: _learned(tmp_path / name, mini_flux_loaded, pairs, **own)[1] for name, own in settings.items()
    }
    assert found["b"] == found["c"] != found["a"]


def test_weight_decay_reaches_the_optimizer() -> None:
    weights = [torch.nn.Parameter(torch.ones(2, 2))]
    assert build_optimizer("adamw", weights, 1e-3, 0.5).param_groups[0]["weight_decay"] == 0.5
    assert build_optimizer("adamw", weights, 1e-3).param_groups[0]["weight_decay"] == 0.01
