"""utils/lora/metadata.py and utils/lora/card.py: bases told apart, cards, and the way to the hub."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from tests.training.mini_runs import learn, make_run, objective_of
from utils.data.pixels import pixel_hash
from utils.errors import UserError
from utils.generation.sweep import applied_lora
from utils.lora.card import card, push_to_hub
from utils.lora.files import read_metadata
from utils.models.adapters import add_adapter
from utils.models.identity import base_hash, evenly_spaced


def test_the_same_base_has_one_hash(mini_flux_loaded):
    transformer = mini_flux_loaded.transformer
    found = base_hash(transformer)
    assert len(found) == 16
    assert int(found, 16)
    add_adapter(transformer, "edit", 2, 2.0)
    assert base_hash(transformer) == found
    assert base_hash(transformer.to(torch.bfloat16)) == found


@pytest.mark.parametrize("length", [16, 17, 100, 28_311_552, 56_623_104])  # the last two are FLUX.1-dev's
def test_the_weights_looked_at_are_there(length):
    index = evenly_spaced(length)
    assert (index[0], index[-1], len(index)) == (0, length - 1, 16)
    assert index.dtype == torch.int64
    assert (index.diff() > 0).all()


def test_a_changed_base_has_another(mini_flux_loaded):
    transformer = mini_flux_loaded.transformer
    before = base_hash(transformer)
    with torch.no_grad():
        transformer.transformer_blocks[1].attn.to_k.weight[0, 0] += 1
    assert base_hash(transformer) != before


def test_a_lora_of_another_base_is_refused_unless_asked_for(tmp_path, mini_flux_loaded, pairs):
    run = make_run(tmp_path, train_iteration=1)
    learn(run, mini_flux_loaded, pairs, objective_of(run))
    with applied_lora(mini_flux_loaded.transformer, run.weights_path()) as metadata:
        assert metadata["base_hash"] == base_hash(mini_flux_loaded.transformer)
    with torch.no_grad():
        mini_flux_loaded.transformer.proj_out.weight.mul_(2)
    with (
        pytest.raises(UserError, match=r"expected the base it was trained on, .* other_base=1"),
        applied_lora(mini_flux_loaded.transformer, run.weights_path()),
    ):
        pass
    with applied_lora(mini_flux_loaded.transformer, run.weights_path(), other_base=True):
        pass


def test_images_are_told_apart():
    image = torch.zeros(3, 4, 4)
    other = image.clone()
    other[0, 0, 0] = 0.1
    assert pixel_hash(image) == pixel_hash(image + 1e-4) != pixel_hash(other)


def test_a_card_names_bases_of_the_hub_alone_and_says_what_the_lora_does(tmp_path, mini_flux_loaded, pairs):
    run = make_run(tmp_path, train_iteration=1)
    learn(run, mini_flux_loaded, pairs, objective_of(run))
    metadata = read_metadata(run.weights_path())
    front = yaml.safe_load(card("a.safetensors", metadata).split("---")[1])
    assert front["base_model"] == "black-forest-labs/FLUX.1-dev"
    assert "lora" in front["tags"]
    local = card("a.safetensors", {**metadata, "base_model": str(tmp_path), "method": "train_image_real"})
    assert "base_model" not in yaml.safe_load(local.split("---")[1])
    assert "that draws one photograph" in local
    assert "that makes one edit" in card("a.safetensors", metadata)


def test_what_is_pushed_and_what_the_hub_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import huggingface_hub

    calls = []

    class Hub:
        def create_repo(self, name, exist_ok):
            calls.append((name, exist_ok))

        def upload_folder(self, repo_id, folder_path, allow_patterns):
            if len(calls) > 1:
                raise OSError("401 Client Error\nmore")
            calls.append((repo_id, folder_path, allow_patterns))
            return "https://hub/me/glasses"

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    run = make_run(tmp_path)
    run = replace(run, config=replace(run.config, push_to_hub="me/glasses"))
    assert push_to_hub(run) == "https://hub/me/glasses"
    patterns = [run.weights_path().name, "README.md", "config.yaml"]
    assert calls == [("me/glasses", True), ("me/glasses", run.folder, patterns)]
    with pytest.raises(UserError, match="push_to_hub: me/glasses: 401 Client Error; the LoRA is in"):
        push_to_hub(run)
