"""The formats: foreign loaders give the same output."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.lora.layouts import SINGLE, delta
from tests.mini_loras import SCALES, block_loras, forward, fresh, outputs, random_lora
from utils.lora.files import write_lora
from utils.lora.loading import load_lora
from utils.models.adapters import linear_layers


def ours(transformer: nn.Module, path: Path) -> list[Tensor]:
    load_lora(transformer, path, "edit")
    return outputs(transformer, "edit")


def assert_close(mine: list[Tensor], theirs: list[Tensor], bare: Tensor) -> None:
    worst = max((one - two).abs().max().item() for one, two in zip(mine, theirs, strict=True))
    assert worst <= 1e-5
    assert min((one - bare).abs().max().item() for one in mine) > 1e-3


def test_the_reference_format_by_its_definition(transformer, mini_flux, tmp_path):
    """A loader of a few lines: W + scale * alpha / rank * up @ down on lora_unet_{name with underscores}."""
    write_lora(tmp_path / "edit.pt", block_loras(transformer), "reference", {})
    state = torch.load(tmp_path / "edit.pt", weights_only=True)
    assert "lora_unet_transformer_blocks_1_attn_to_out_0.lora_up.weight" in state
    theirs = []
    for scale in SCALES:
        foreign = fresh(mini_flux)
        for name, linear in linear_layers(foreign).items():
            flat = "lora_unet_" + name.replace(".", "_")
            if f"{flat}.alpha" in state:
                linear.weight.data += scale * delta(state, flat)
        theirs.append(forward(foreign))
    bare = forward(transformer)
    assert_close(ours(transformer, tmp_path / "edit.pt"), theirs, bare)


def original_modules(transformer: nn.Module) -> dict[str, list[str]]:
    """FLUX's own modules -> the diffusers linears stacked in them, in order."""
    modules = {}
    for index in range(2):
        block = f"transformer_blocks.{index}"
        streams = {
            "img": ("to_q to_k to_v", "to_out.0", "ff", "norm1"),
            "txt": ("add_q_proj add_k_proj add_v_proj", "to_add_out", "ff_context", "norm1_context"),
        }
        for stream, (qkv, proj, ff, norm) in streams.items():
            start = f"double_blocks_{index}_{stream}"
            modules[f"{start}_attn_qkv"] = [f"{block}.attn.{name}" for name in qkv.split()]
            modules[f"{start}_attn_proj"] = [f"{block}.attn.{proj}"]
            modules[f"{start}_mlp_0"] = [f"{block}.{ff}.net.0.proj"]
            modules[f"{start}_mlp_2"] = [f"{block}.{ff}.net.2"]
            modules[f"{start}_mod_lin"] = [f"{block}.{norm}.linear"]
        single, start = f"single_{block}", f"single_blocks_{index}"
        names = ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
        modules[f"{start}_linear1"] = [f"{single}.{name}" for name in names]
        modules[f"{start}_linear2"] = [f"{single}.proj_out"]
        modules[f"{start}_modulation_lin"] = [f"{single}.norm.linear"]
    return modules


def kohya_outputs(mini_flux: Path, path: Path) -> list[Tensor]:
    """By definition: stack the base's weights as FLUX's own code does, add the change, take them apart."""
    state = load_file(path)
    results = []
    for scale in SCALES:
        foreign = fresh(mini_flux)
        linears = linear_layers(foreign)
        for module, names in original_modules(foreign).items():
            weights = [linears[name].weight.data for name in names]
            fused = torch.cat(weights)
            if f"lora_unet_{module}.alpha" in state:
                fused = fused + scale * delta(state, f"lora_unet_{module}")
            for weight, changed in zip(weights, fused.split([len(rows) for rows in weights]), strict=True):
                weight.copy_(changed)
        results.append(forward(foreign))
    return results


@pytest.mark.parametrize("among", ["blocks.", ".attn.", ".to_k", ".proj_mlp"])
def test_the_kohya_format_by_its_definition(transformer, mini_flux, tmp_path, among):
    path = tmp_path / "edit.safetensors"
    write_lora(path, block_loras(transformer, among), "kohya", {})
    modules = {f"lora_unet_{module}" for module in original_modules(transformer)}
    assert {key.split(".")[0] for key in load_file(path)} <= modules
    bare = forward(transformer)
    assert_close(ours(transformer, path), kohya_outputs(mini_flux, path), bare)


@pytest.mark.parametrize("ranks", [(2, 2, 2, 2), (1, 3, 2, 4)])
def test_stock_diffusers_reads_single_blocks_of_flux_width(tmp_path, ranks):
    from diffusers import FluxPipeline

    generator = torch.Generator().manual_seed(0)
    names = ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
    loras = {
        SINGLE + name: random_lora(12288 if "mlp" in name else 3072, 3072, rank, rank / 2, generator)
        for name, rank in zip(names, ranks, strict=True)
    }
    write_lora(tmp_path / "x.safetensors", loras, "kohya", {})
    state = FluxPipeline.lora_state_dict(tmp_path / "x.safetensors")
    probe = torch.randn(3072, generator=generator)
    for name, lora in loras.items():
        weight_a, weight_b = (state[f"transformer.{name}.lora_{part}.weight"] for part in "AB")
        expected = lora.scale * lora.weight_b @ (lora.weight_a @ probe)
        torch.testing.assert_close(weight_b @ (weight_a @ probe), expected, atol=1e-5, rtol=1e-5)
