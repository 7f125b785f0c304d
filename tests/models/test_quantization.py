"""Quantized bases: near the base itself, trained on and identified as it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from tests.conftest import MINI_SEQUENCE_LENGTH
from utils.config.schema import choices
from utils.errors import UserError
from utils.flow.mixes import Mix
from utils.generation.sweep import applied_lora
from utils.lora.files import save_lora
from utils.lora.metadata import BASE_HASH
from utils.models.adapters import adapter_parameters, add_adapter, linear_layers, remove_adapter
from utils.models.base import Base, load_base_model
from utils.models.identity import base_hash
from utils.models.quantization import QUANTIZATIONS
from utils.models.velocity import Velocity

CPU = torch.device("cpu")
LIBRARIES = {"nf4": "bitsandbytes", "int8": "torchao", "fp8": "torchao"}
BYTES = {"nf4": 0.5, "int8": 1, "fp8": 1}
TOLERANCES = {"nf4": 0.2, "int8": 0.02, "fp8": 0.06}  # of the velocity's norm; no two formats are that near
TRAIN = Mix({"semantic": 1.0}, train=("semantic",))


def quantized(folder: Path, quantization: str) -> Base:
    if quantization != "none":
        pytest.importorskip(LIBRARIES[quantization])
    return load_base_model(str(folder), CPU, torch.bfloat16, quantization)


def model_of(base: Base) -> Velocity:
    return Velocity(base, base.encode_prompts(["a cat"], MINI_SEQUENCE_LENGTH), 3.5)


def drawn() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 16, 4, 4, generator=generator), torch.tensor([0.2, 0.8])


def test_names_are_those_of_the_config() -> None:
    assert tuple(QUANTIZATIONS) == choices("quantization")
    assert set(LIBRARIES) == set(choices("quantization")) - {"none"}


@pytest.mark.parametrize("quantization", sorted(LIBRARIES))
def test_velocity_is_near_that_of_the_base(mini_flux: Path, quantization: str) -> None:
    with torch.no_grad():
        velocity = model_of(quantized(mini_flux, "none"))(*drawn())
        near = model_of(quantized(mini_flux, quantization))(*drawn())
    error = ((near - velocity).norm() / velocity.norm()).item()
    assert 0 < error < TOLERANCES[quantization]


@pytest.mark.parametrize("quantization", sorted(LIBRARIES))
def test_blocks_are_held_in_so_many_bytes_a_weight(mini_flux: Path, quantization: str) -> None:
    plain, base = quantized(mini_flux, "none"), quantized(mini_flux, quantization)
    sizes = {name: linear.weight.numel() for name, linear in linear_layers(plain.transformer).items()}
    for name, linear in linear_layers(base.transformer).items():
        if "transformer_blocks." not in name:
            assert linear.weight.dtype == torch.bfloat16
            continue
        stored = linear.weight
        stored = getattr(stored, "qdata", stored)
        assert stored.numel() * stored.element_size() == sizes[name] * BYTES[quantization]


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("quantization", sorted(LIBRARIES))
def test_a_lora_is_trained_on_it(mini_flux: Path, quantization: str, checkpointing: bool) -> None:
    """Its gradients are near those on the base itself, and a few steps lower the loss."""
    gradients, losses = {}, []
    for name in ("none", quantization):
        base = quantized(mini_flux, name)
        add_adapter(base.transformer, "semantic", 4, 4, seed=1)
        if checkpointing:
            base.transformer.enable_gradient_checkpointing()
        weights, model = adapter_parameters(base.transformer, "semantic"), model_of(base)
        assert {weight.dtype for weight in weights} == {torch.float32}
        optimizer = torch.optim.AdamW(weights, lr=1e-2)
        losses = []
        for step in range(8):
            with model.adapters(TRAIN):
                loss = functional.mse_loss(model(*drawn()), torch.ones(2, 16, 4, 4))
                loss.backward()
            if step == 0:
                gradients[name] = torch.cat([weight.grad.flatten() for weight in weights])
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    similarity = functional.cosine_similarity(gradients["none"], gradients[quantization], dim=0)
    assert similarity > 0.9
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("quantization", ["none", *sorted(LIBRARIES)])
def test_no_weight_is_kept_in_full_for_the_backward_pass(mini_flux: Path, quantization: str) -> None:
    layer = quantized(mini_flux, quantization).transformer.single_transformer_blocks[0].proj_mlp
    x = torch.randn(5, layer.in_features, dtype=torch.bfloat16, requires_grad=True)
    shapes = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if type(tensor) is torch.Tensor and tensor.dtype == torch.bfloat16:
            shapes.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        y = layer(x)
    kept = (layer.in_features, layer.out_features) in shapes
    assert kept == (quantization == "none")  # the base's own weight, transposed, which costs nothing
    y.sum().backward()
    with torch.no_grad():  # W column by column; its sums are the gradient
        columns = torch.stack([layer(unit[None])[0] for unit in torch.eye(layer.in_features).bfloat16()])
        columns = columns - layer(torch.zeros(1, layer.in_features).bfloat16())
    torch.testing.assert_close(x.grad[0].float(), columns.float().sum(1), atol=0.02, rtol=0.05)


@pytest.mark.parametrize("quantization", sorted(LIBRARIES))
def test_it_is_the_base_that_it_was_made_of(mini_flux: Path, tmp_path: Path, quantization: str) -> None:
    plain, base = quantized(mini_flux, "none"), quantized(mini_flux, quantization)
    assert base_hash(base.transformer) == base_hash(plain.transformer)
    add_adapter(plain.transformer, "semantic", 2, 2)
    path = tmp_path / "lora.safetensors"
    save_lora(plain.transformer, "semantic", path, {BASE_HASH: base_hash(plain.transformer)})
    with applied_lora(base.transformer, path):  # refused, were it another base
        assert base_hash(base.transformer) == base_hash(plain.transformer)
    add_adapter(base.transformer, "other", 2, 2)
    remove_adapter(base.transformer, "other")


def test_without_the_library(mini_flux: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(transformer: object, device: object) -> None:
        raise ImportError("No module named 'bitsandbytes'")

    monkeypatch.setitem(QUANTIZATIONS, "nf4", without)
    with pytest.raises(UserError, match=r"nf4: expected its library \(pip install .\[quantization\]\)"):
        _ = load_base_model(str(mini_flux), CPU, torch.bfloat16, "nf4").transformer
    with pytest.raises(UserError, match=r"expected one of none, nf4.*found fp4 \(did you mean 'nf4'"):
        _ = load_base_model(str(mini_flux), CPU, torch.bfloat16, "fp4").transformer
