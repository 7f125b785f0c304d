"""The optimizers: the default as ever, all of them gone on from bit for bit, faults in one line."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from tests.strangers.captions import refused_by
from tests.training.mini_runs import learn, make_run, objective_of
from tests.training.test_checkpoints import KilledError, kill_at
from utils.config.load import read_settings
from utils.config.schema import choices
from utils.errors import UserError
from utils.lora.files import read_metadata
from utils.training import optimizers
from utils.training.optimizers import OPTIMIZERS, build_optimizer, optimizer_kind

RATES = {"adamw": 1e-2, "adamw8bit": 1e-2, "prodigy": 1.0}
NEEDS = {"adamw8bit": "bitsandbytes", "prodigy": "prodigyopt"}


def descend(optimizer: torch.optim.Optimizer, weight: torch.Tensor, steps: int = 40) -> float:
    """|| w - 3 ||^2 after some steps down it."""
    for _ in range(steps):
        optimizer.zero_grad()
        loss = ((weight - 3) ** 2).sum()
        loss.backward()
        optimizer.step()
    return float(loss.detach())


def test_adamw_is_torchs_fused_with_its_defaults_bit_for_bit() -> None:
    ours, theirs = (torch.nn.Parameter(torch.ones(8, 4)) for _ in range(2))
    descend(build_optimizer("adamw", [ours], 2e-3), ours)
    descend(torch.optim.AdamW([theirs], lr=2e-3, fused=True), theirs)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_each_learns_and_is_a_value_of_the_key(name: str) -> None:
    pytest.importorskip(NEEDS.get(name, "torch"))
    weight = torch.nn.Parameter(torch.ones(8, 4))
    before = 8 * 4 * (1 - 3) ** 2
    assert descend(build_optimizer(name, [weight], 10 * RATES[name]), weight) < before / 2
    assert name in choices("optimizer")
    assert set(choices("optimizer")) == set(OPTIMIZERS)


@pytest.mark.parametrize("name", sorted(NEEDS))
def test_a_stopped_training_goes_on_bit_for_bit(
    tmp_path, mini_flux_loaded, pairs, monkeypatch, name: str
) -> None:
    """With moments of 8 bits, too: the greater matrices of rank 128 have them."""
    pytest.importorskip(NEEDS[name])
    settings = {"optimizer": name, "lr": RATES[name], "rank": 128, "python_name": "train_image_wocontent"}
    settings |= {"train_iteration": 4, "save_per_steps": 2}
    whole = make_run(tmp_path / "whole", **settings)
    learn(whole, mini_flux_loaded, pairs, objective_of(whole))
    run = make_run(tmp_path / "parts", resume=True, **settings)
    with monkeypatch.context() as patch:
        kill_at(patch, 4)
        with pytest.raises(KilledError):
            learn(run, mini_flux_loaded, pairs, objective_of(run))
    learn(run, mini_flux_loaded, pairs, objective_of(run))
    expected, found = load_file(whole.weights_path()), load_file(run.weights_path())
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert read_metadata(run.weights_path())["ss_optimizer"] == OPTIMIZERS[name].called


@pytest.mark.parametrize("name", sorted(NEEDS))
def test_a_package_that_is_not_there_is_one_line_with_its_extra(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimizers, "find_spec", lambda package: None)
    assert refused_by(lambda: optimizer_kind(name)) == (
        f"optimizer: expected {NEEDS[name]} to be there for {name}, found none; "
        f"pip install -e '.[{OPTIMIZERS[name].extra}]' installs it"
    )


def test_an_unknown_one_names_the_nearest_and_a_rate_that_is_none_for_prodigy_is_told() -> None:
    with pytest.raises(UserError, match=r"found adamw8bits \(did you mean 'adamw8bit'\?\)"):
        optimizer_kind("adamw8bits")
    line = refused_by(lambda: read_settings({"": {"optimizer": "prodigy", "lr": 2e-3}}))
    assert line.startswith("lr: expected 0.1 or more, 1 as a rule, since prodigy finds the rate itself")
