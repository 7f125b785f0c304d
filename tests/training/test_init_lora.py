"""A training that goes on from another LoRA: from its change, by the config's alpha; faults in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.mini_loras import change
from tests.strangers.captions import refused_by
from tests.training.mini_runs import learn, make_run, objective_of
from utils.config.runs import Run
from utils.data.pairs import ImagePair
from utils.lora.files import read_lora, read_metadata, update_metadata
from utils.models.adapters import adapter_parameters, add_adapter
from utils.models.base import Base
from utils.training.claims import claimed, is_trained
from utils.training.init_lora import check_init_lora, load_init_lora

ALONE = {"python_name": "train_image_wocontent", "alpha": 1.0, "train_iteration": 4}


@pytest.fixture
def first(tmp_path: Path, mini_flux_loaded: Base, pairs: list[ImagePair]) -> Run:
    """Trained."""
    run = make_run(tmp_path / "first", **ALONE)
    learn(run, mini_flux_loaded, pairs, objective_of(run))
    return run


def begun(run: Run, base: Base) -> dict[str, torch.Tensor]:
    """A and B that the run begins with."""
    add_adapter(base.transformer, "semantic", run.config.rank, run.config.alpha, run.config.train_method, 5)
    load_init_lora(base.transformer, "semantic", run.config)
    return dict(enumerate(map(torch.clone, adapter_parameters(base.transformer, "semantic"))))


def test_it_begins_as_the_other_ended_with_the_same_factors(
    first: Run, tmp_path: Path, mini_flux_loaded: Base, pairs: list[ImagePair]
) -> None:
    """Of the file, which has alpha folded into B, and of the .pt, which has not."""
    weights = [
        begun(make_run(tmp_path, **ALONE, init_lora=str(path)), clean(mini_flux_loaded))
        for path in (first.weights_path(), first.reference_path())
    ]
    assert all(torch.equal(*both) for both in zip(*map(dict.values, weights), strict=True))
    loras = read_lora(first.reference_path()).loras
    assert {lora.alpha for lora in loras.values()} == {1.0}
    for (weight_a, weight_b), lora in zip(
        zip(*[iter(weights[0].values())] * 2, strict=True), loras.values(), strict=True
    ):
        assert torch.equal(weight_a, lora.weight_a)
        assert torch.equal(weight_b, lora.weight_b)


def clean(base: Base) -> Base:
    from utils.models.adapters import adapter_names, remove_adapter

    for name in adapter_names(base.transformer):
        remove_adapter(base.transformer, name)
    return base


def test_only_what_is_saved_goes_on_and_an_unmoved_training_keeps_the_change(
    first: Run, tmp_path: Path, mini_flux_loaded: Base, pairs: list[ImagePair]
) -> None:
    """At a learning rate that moves nothing, of a method with a second adapter, which begins anew."""
    still = {"init_lora": str(first.weights_path()), "lr": 1e-30, "train_iteration": 1}
    run = make_run(tmp_path / "second", alpha=4.0, **still)
    learn(run, mini_flux_loaded, pairs, objective_of(run))
    before, after = (read_lora(each.weights_path()).loras for each in (first, run))
    for name, lora in before.items():
        torch.testing.assert_close(change(after[name]), change(lora))
    moved = make_run(tmp_path / "third", **ALONE, init_lora=str(first.weights_path()))
    learn(moved, mini_flux_loaded, pairs, objective_of(moved))
    found = read_lora(moved.weights_path()).loras
    assert not any(torch.equal(change(found[name]), change(before[name])) for name in before)


def test_another_file_is_another_training(first: Run, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file(load_file(first.weights_path()), path)
    run = make_run(tmp_path / "next", **ALONE, init_lora=str(path))
    with claimed(run, "images"):
        run.record_path.write_text("{}")
        path_of = run.weights_path()
        path_of.write_bytes(first.weights_path().read_bytes())
    assert is_trained(run, "images")
    save_file({key: 2 * tensor for key, tensor in load_file(path).items()}, path)
    assert not is_trained(run, "images")


def test_what_can_be_told_from_the_file_is_told_without_a_model(first: Run, tmp_path: Path) -> None:
    path = first.weights_path()
    line = refused_by(lambda: check_init_lora(make_run(tmp_path, rank=3, init_lora=str(path)).config))
    assert line == f"rank: expected that of init_lora ({path}), 2; found 3"
    wrong = path.with_name(path.name.replace("4epoch", "5epoch"))
    line = refused_by(lambda: check_init_lora(make_run(tmp_path, init_lora=str(wrong)).config))
    assert line.startswith(f"init_lora: expected a LoRA file, found none at {wrong} (did you mean ")
    (tmp_path / "torn.safetensors").write_bytes(path.read_bytes()[:100])
    line = refused_by(
        lambda: check_init_lora(make_run(tmp_path, init_lora=str(tmp_path / "torn.safetensors")).config)
    )
    assert "torn.safetensors: expected a LoRA file" in line
    check_init_lora(make_run(tmp_path).config)


def test_another_base_and_other_linears_are_refused(
    first: Run, tmp_path: Path, mini_flux_loaded: Base
) -> None:
    path = first.weights_path()
    narrow = make_run(tmp_path, train_method="xattn", init_lora=str(path))
    line = refused_by(lambda: begun(narrow, clean(mini_flux_loaded)))
    assert line.startswith(f"init_lora: {path}: expected linears that train_method has, found: ")
    assert "is not among those of xattn" in line
    update_metadata(path, {"base_hash": "0123"})
    assert read_metadata(path)["base_hash"] == "0123"
    other = make_run(tmp_path, init_lora=str(path))
    line = refused_by(lambda: begun(other, clean(mini_flux_loaded)))
    assert "expected the base it was trained on" in line
    begun(make_run(tmp_path, init_lora=str(path), other_base=True), clean(mini_flux_loaded))
