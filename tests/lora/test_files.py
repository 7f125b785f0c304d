"""LoRA files: adapters written and read back; what stock diffusers writes; metadata."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.lora.conftest import fill
from tests.mini_loras import forward, fresh, outputs, use_adapters
from utils.lora.files import (
    adapter_loras,
    read_lora,
    read_metadata,
    save_lora,
    save_reference,
    update_metadata,
    write_lora,
)
from utils.lora.loading import load_lora
from utils.models.adapters import (
    adapter_names,
    add_adapter,
    inject_adapter,
    lora_layers,
    lora_weights,
)


@pytest.mark.parametrize("kind", ["diffusers", "reference"])
def test_round_trip_whatever_the_file_is_called(trained, mini_flux, tmp_path, kind):
    path = tmp_path / "weights.bin"
    if kind == "diffusers":
        save_lora(trained, "semantic", path, {"dataset": "glasses"})
    else:
        save_reference(trained, "semantic", path)
    other = fresh(mini_flux)
    bare = forward(other)
    metadata = load_lora(other, path, "edit")
    assert metadata == ({"format": "pt", "dataset": "glasses"} if kind == "diffusers" else {})
    assert torch.equal(forward(other), bare)
    for mine, read in zip(outputs(trained, "semantic"), outputs(other, "edit"), strict=True):
        if kind == "diffusers":  # alpha / rank is a power of two
            assert torch.equal(mine, read)
        torch.testing.assert_close(mine, read, atol=1e-5, rtol=0)


def test_ranks_and_alphas_of_their_own(transformer, mini_flux, tmp_path):
    sizes = {
        "transformer_blocks.0.attn.to_q": (2, 1.0),
        "transformer_blocks.1.attn.to_out.0": (4, 3.0),
        "single_transformer_blocks.0.attn.to_q": (3, 1.0),
    }
    inject_adapter(transformer, "odd", sizes)
    fill(transformer, "odd")
    write_lora(tmp_path / "odd", adapter_loras(transformer, "odd"), "diffusers", {})
    other = fresh(mini_flux)
    load_lora(other, tmp_path / "odd", "odd")
    read = {name: (layer.r["odd"], layer.lora_alpha["odd"]) for name, layer in lora_layers(other).items()}
    assert read == sizes
    for mine, theirs in zip(outputs(transformer, "odd"), outputs(other, "odd"), strict=True):
        assert torch.equal(mine, theirs)


def test_files_that_stock_diffusers_writes(transformer, mini_flux, tmp_path):
    """With the LoraConfig in the header; and without, where alpha is the rank."""
    from peft import LoraConfig

    stock = fresh(mini_flux)
    config = LoraConfig(r=4, lora_alpha=2, target_modules=["attn.to_q"], init_lora_weights=False)
    stock.add_adapter(config, "default")
    stock.save_lora_adapter(tmp_path, weight_name="bare.safetensors")
    with safe_open(tmp_path / "bare.safetensors", framework="pt") as file:
        header = json.loads(file.metadata()["lora_adapter_metadata"])
    tensors = {f"transformer.{key}": value for key, value in load_file(tmp_path / "bare.safetensors").items()}
    packed = json.dumps({f"transformer.{key}": value for key, value in header.items()})
    save_file(tensors, tmp_path / "with", metadata={"lora_adapter_metadata": packed})
    save_file(tensors, tmp_path / "without")
    load_lora(transformer, tmp_path / "with", "with")
    load_lora(transformer, tmp_path / "without", "without")
    with use_adapters(transformer, {"with": 1.0}):
        torch.testing.assert_close(forward(transformer), forward(stock), atol=1e-5, rtol=0)
    stock.set_adapters("default", 2.0)
    with use_adapters(transformer, {"without": 1.0}):
        torch.testing.assert_close(forward(transformer), forward(stock), atol=1e-5, rtol=0)


def test_bfloat16_base_and_other_adapters(trained, mini_flux, tmp_path):
    write_lora(tmp_path / "file", adapter_loras(trained, "semantic"), "diffusers", {})
    other = fresh(mini_flux).to(torch.bfloat16)
    add_adapter(other, "content", 2, 1)
    load_lora(other, tmp_path / "file", "edit")
    assert adapter_names(other) == ["content", "edit"]
    for name, layer in lora_layers(other, "edit").items():
        for mine, read in zip(
            lora_weights(lora_layers(trained)[name], "semantic"), lora_weights(layer, "edit"), strict=True
        ):
            assert torch.equal(mine, read)
            assert not read.requires_grad


def test_unknown_adapter(trained, tmp_path):
    with pytest.raises(ValueError, match="no adapter style; there are: content, semantic"):
        save_lora(trained, "style", tmp_path / "x", {})
    assert not list(tmp_path.iterdir())


def test_metadata_changes_leave_the_tensors(trained, tmp_path):
    """A kohya file's own note too."""
    loras = adapter_loras(trained, "semantic")
    write_lora(tmp_path / "x", loras, "kohya", {"dataset": "glasses"})
    before = load_file(tmp_path / "x")
    update_metadata(tmp_path / "x", {"calibration": "{}"})
    assert all(torch.equal(value, before[key]) for key, value in load_file(tmp_path / "x").items())
    file = read_lora(tmp_path / "x")
    assert file.metadata == {"format": "pt", "dataset": "glasses", "calibration": "{}"}
    assert file.format == "kohya"
    assert list(read_metadata(tmp_path / "x")) != list(file.metadata)
