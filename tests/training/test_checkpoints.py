"""utils/training/checkpoints.py and `resume`: a training that is stopped anywhere ends as if it never was."""

from __future__ import annotations

import math
import os
import random
import signal
import stat
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.training.mini_runs import learn, lines, make_run, objective_of
from utils.errors import UserError
from utils.records import read_record
from utils.training import trainer
from utils.training.checkpoints import Checkpoint, interruptible, kept_rng, rng_state, set_rng_state
from utils.training.log import _cut_log

SETTINGS = {"train_iteration": 8, "save_per_steps": 3, "lr_scheduler": "cosine"}


def draw() -> list[float]:
    """One number of every global source."""
    return [random.random(), float(np.random.rand()), torch.rand(()).item()]


class KilledError(Exception):
    """In place of a power cut."""


def kill_at(monkeypatch: pytest.MonkeyPatch, moment: int) -> None:
    """Stop the next training at the `moment`-th backward pass of its life."""
    seen = []
    add = trainer.TrainingLog.add

    def counting(self, global_step, losses):
        seen.append(global_step)
        if len(seen) == moment:
            raise KilledError
        add(self, global_step, losses)

    monkeypatch.setattr(trainer.TrainingLog, "add", counting)


@pytest.mark.parametrize("method", ["train_image", "train_image_sliders"])
@pytest.mark.parametrize("moment", [1, 4, 5, 7])
def test_a_stopped_training_goes_on_bit_for_bit(
    tmp_path,
    mini_flux_loaded,
    pairs,
    monkeypatch,
    method,
    moment,
):
    settings = SETTINGS if method == "train_image" else {**SETTINGS, "ema_decay": 0.5, "max_grad_norm": 0.1}
    whole = make_run(tmp_path / "whole", python_name=method, **settings)
    learn(whole, mini_flux_loaded, pairs, objective_of(whole))
    run = make_run(tmp_path / "parts", python_name=method, resume=True, **settings)
    with monkeypatch.context() as patch:
        kill_at(patch, moment)
        with pytest.raises(KilledError):
            learn(run, mini_flux_loaded, pairs, objective_of(run))
    assert not run.record_path.exists()
    if moment > 3:
        assert Checkpoint.load(run.state_path).step in (3, 6)
    learn(run, mini_flux_loaded, pairs, objective_of(run))
    for step in (3, 6, 8):
        expected, found = load_file(whole.weights_path(step)), load_file(run.weights_path(step))
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[key], found[key]) for key in expected), step
    assert [{**line, "seconds": 0} for line in lines(run)] == [
        {**line, "seconds": 0} for line in lines(whole)
    ]
    seconds = [line["seconds"] for line in lines(run)]
    assert seconds == sorted(seconds)
    assert read_record(run.record_path).seconds >= seconds[-1] - 0.001
    assert not run.state_path.exists()


def test_without_resume_it_begins_anew(tmp_path, mini_flux_loaded, pairs, monkeypatch):
    run = make_run(tmp_path, **SETTINGS)
    with monkeypatch.context() as patch:
        kill_at(patch, 5)
        with pytest.raises(KilledError):
            learn(run, mini_flux_loaded, pairs, objective_of(run))
    learn(run, mini_flux_loaded, pairs, objective_of(run))
    assert [line["step"] for line in lines(run)] == [2, 3, 4, 6, 8]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_step_saves_and_leaves(
    tmp_path,
    mini_flux_loaded,
    mixed_pairs,
    monkeypatch,
    number,
):
    """Of pairs of several sizes, too."""
    pairs = mixed_pairs
    whole = make_run(tmp_path / "whole", **SETTINGS)
    learn(whole, mini_flux_loaded, pairs, objective_of(whole))
    run = make_run(tmp_path / "parts", resume=True, **SETTINGS)
    add = trainer.TrainingLog.add

    def interrupt(self, global_step, losses):
        if global_step == 5:
            os.kill(os.getpid(), number)
        add(self, global_step, losses)

    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(trainer.TrainingLog, "add", interrupt)
        with pytest.raises(KeyboardInterrupt, match="saved after step 5; --resume continues from there"):
            learn(run, mini_flux_loaded, pairs, objective_of(run))
    assert signal.getsignal(number) is before
    assert Checkpoint.load(run.state_path).step == 5
    assert run.weights_path(5).is_file()
    learn(run, mini_flux_loaded, pairs, objective_of(run))
    expected, found = load_file(whole.weights_path()), load_file(run.weights_path())
    assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_a_second_interrupt_does_not_wait():
    with interruptible() as interrupted:
        assert not interrupted()
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupted()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_loss_that_is_not_finite_keeps_the_last_good_save(tmp_path, mini_flux_loaded, pairs, monkeypatch):
    run = make_run(tmp_path, **{**SETTINGS, "log_every": 100})
    add = trainer.TrainingLog.add

    def spoil(self, global_step, losses):
        factor = float("nan") if global_step == 4 else 1.0
        add(self, global_step, {name: factor * loss for name, loss in losses.items()})

    monkeypatch.setattr(trainer.TrainingLog, "add", spoil)
    with pytest.raises(FloatingPointError, match="loss is nan at step 4"):
        learn(run, mini_flux_loaded, pairs, objective_of(run))
    assert Checkpoint.load(run.state_path).step == 3
    assert sorted(path.name for path in run.folder.glob("*.safetensors")) == [run.weights_path(3).name]


def test_weights_that_are_not_finite_are_not_saved(tmp_path, mini_flux_loaded, pairs, monkeypatch):
    run = make_run(tmp_path, **SETTINGS)
    step = torch.optim.AdamW.step

    def spoil(self, *args, **kwargs):
        step(self, *args, **kwargs)
        if run.state_path.is_file():  # after the first save: its losses are good, its weights are not
            self.param_groups[0]["params"][0].data.fill_(float("inf"))

    monkeypatch.setattr(torch.optim.AdamW, "step", spoil)
    monkeypatch.setattr(trainer.TrainingLog, "_take_means", lambda self: self._pending.clear() or {})
    with pytest.raises(FloatingPointError, match="weights are not finite after step 6"):
        learn(run, mini_flux_loaded, pairs, objective_of(run))
    assert Checkpoint.load(run.state_path).step == 3
    assert not run.weights_path(6).exists()


def test_a_state_of_another_base_is_refused(tmp_path, mini_flux_loaded, pairs, monkeypatch):
    run = make_run(tmp_path, resume=True, **SETTINGS)
    with monkeypatch.context() as patch:
        kill_at(patch, 5)
        with pytest.raises(KilledError):
            learn(run, mini_flux_loaded, pairs, objective_of(run))
    with torch.no_grad():
        mini_flux_loaded.transformer.proj_out.weight.mul_(2)
    with pytest.raises(UserError, match="--resume: expected the base of hash"):
        learn(run, mini_flux_loaded, pairs, objective_of(run))


def test_a_damaged_log_does_not_stop_it(tmp_path, mini_flux_loaded, pairs, monkeypatch):
    run = make_run(tmp_path, resume=True, **SETTINGS)
    with monkeypatch.context() as patch:
        kill_at(patch, 7)
        with pytest.raises(KilledError):
            learn(run, mini_flux_loaded, pairs, objective_of(run))
    good = run.log_path.read_text()
    damages = ('{"step": "3"}', "[]", "null", "[" * 10_000, '{"step": true}', good.splitlines()[0] + " ")
    for number, damage in enumerate(damages, 1):
        run.log_path.write_text(f"{damage}\n{good}")
        _cut_log(run.log_path, 6, sha256(good.encode()).hexdigest())
        assert len(list(run.folder.glob("losses_damaged*.jsonl"))) == number
    run.log_path.write_bytes(run.log_path.read_bytes()[:-4] + bytes(9) + b"\xff{")
    learn(run, mini_flux_loaded, pairs, objective_of(run))
    assert [line["step"] for line in lines(run)][-1] == 8


def test_a_state_without_a_hash_is_taken_if_it_fits(tmp_path, mini_flux_loaded, pairs, monkeypatch):
    """As earlier versions wrote it; of one that does not fit nothing is used."""
    run = make_run(tmp_path, resume=True, **SETTINGS)
    with monkeypatch.context() as patch:
        kill_at(patch, 5)
        with pytest.raises(KilledError):
            learn(run, mini_flux_loaded, pairs, objective_of(run))
    good = Checkpoint.load(run.state_path)
    small = {name: [tensor[:1] for tensor in own] for name, own in good.weights.items()}
    moments = {index: {**own, "exp_avg": torch.ones(1)} for index, own in good.optimizer["state"].items()}
    changes = [
        {"step": 0},
        {"step": 2},
        {"seconds": math.nan},
        {"means": {"semantic": "low"}},
        {"weights": small},
        {"weights": {**good.weights, "other": []}},
        {"optimizer": {**good.optimizer, "state": moments}},
        {"generator": torch.zeros(3)},
        {"rng": {**good.rng, "python": "x"}},
        {"rng": {}},
    ]
    for change in changes:
        torch.save({**vars(good), **change}, run.state_path)
        with pytest.raises(UserError, match=r"expected .*state.*, found: "):
            learn(run, mini_flux_loaded, pairs, objective_of(run))
    torch.save({key: value for key, value in vars(good).items() if key != "log"}, run.state_path)
    learn(run, mini_flux_loaded, pairs, objective_of(run))
    assert [line["step"] for line in lines(run)][-1] == 8


def test_a_full_disk_keeps_the_last_good_save(tmp_path, mini_flux_loaded, pairs, monkeypatch):
    run = make_run(tmp_path, **SETTINGS)
    fsync = os.fsync

    def full(handle: int) -> None:
        fits = not run.weights_path(6).exists() or stat.S_ISDIR(os.fstat(handle).st_mode)
        if not fits:
            raise OSError(28, "No space left on device")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device; what was there before is kept"):
        learn(run, mini_flux_loaded, pairs, objective_of(run))
    assert Checkpoint.load(run.state_path).step == 3
    assert not list(run.folder.glob(".*.tmp"))


@pytest.mark.parametrize(("limit", "kept"), [(0, [2, 4, 6, 8]), (1, [6, 8]), (2, [4, 6, 8])])
def test_save_total_limit(tmp_path, mini_flux_loaded, pairs, limit, kept):
    run = make_run(tmp_path, **{**SETTINGS, "save_per_steps": 2, "save_total_limit": limit})
    learn(run, mini_flux_loaded, pairs, objective_of(run))
    names = {run.weights_path(step).name for step in kept} | {run.reference_path(step).name for step in kept}
    found = {path.name for path in run.folder.iterdir() if path.suffix in (".safetensors", ".pt")}
    assert found == names


def test_looking_does_not_change_what_is_learned(tmp_path, mini_flux_loaded, pairs):
    blind = make_run(tmp_path / "blind", **SETTINGS)
    looking = make_run(tmp_path / "looking", **SETTINGS, sample_per_steps=4, scales=[0.0, 1.0], count_gen=2)
    for run in (blind, looking):
        learn(run, mini_flux_loaded, pairs, objective_of(run))
    expected, found = load_file(blind.weights_path()), load_file(looking.weights_path())
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert sorted(path.name for path in (looking.folder / "samples").iterdir()) == ["step4.png", "step8.png"]
    assert not (blind.folder / "samples").exists()


def test_every_source_of_randomness_is_put_back():
    with kept_rng():
        state = rng_state()
        drawn = draw()
        assert draw() != drawn
        set_rng_state(state)
        assert draw() == drawn
        outside = rng_state()
        with kept_rng():
            draw()
        expected = draw()
        set_rng_state(outside)
        assert draw() == expected


def test_a_state_is_read_without_running_code_or_not_at_all(tmp_path: Path):
    for content in (b"", b"nonsense", b"PK\x03\x04" + bytes(50)):
        (tmp_path / "state.pt").write_bytes(content)
        with pytest.raises(UserError, match=r"state.pt: expected a training's state, found"):
            Checkpoint.load(tmp_path / "state.pt")
    torch.save({"step": replace}, tmp_path / "state.pt")  # a function, which only code could make
    with pytest.raises(UserError, match=r"state.pt: expected a training's state, found"):
        Checkpoint.load(tmp_path / "state.pt")
