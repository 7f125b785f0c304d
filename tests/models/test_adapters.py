"""Adapters on a miniature FLUX: what is active, what is frozen (bit for bit), LoRA against merged weights."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from torch import nn

from tests.mini_loras import forward, fresh, use_adapters
from utils.errors import UserError
from utils.models.adapters import (
    adapter_names,
    adapter_parameters,
    add_adapter,
    linear_layers,
    lora_layers,
    lora_weights,
    remove_adapter,
)
from utils.models.families import FAMILIES

TARGETS = FAMILIES["flux1"].targets


@pytest.fixture
def transformer(mini_flux) -> nn.Module:
    return fresh(mini_flux)


def fill(transformer: nn.Module, name: str, seed: int) -> None:
    """Random weights in B as well, so that the adapter does something."""
    generator = torch.Generator().manual_seed(seed)
    for weight in adapter_parameters(transformer, name):
        weight.data.copy_(torch.randn(weight.shape, generator=generator) * 0.3)


@pytest.fixture
def adapted(transformer: nn.Module) -> nn.Module:
    for index, name in enumerate(["content", "semantic"]):
        add_adapter(transformer, name, rank=3, alpha=1.5)
        fill(transformer, name, seed=index)
    return transformer


@torch.no_grad()
def merged(transformer: nn.Module, plain: nn.Module, scales: dict[str, float], ratio: float) -> nn.Module:
    """`plain` with scale * alpha / rank * B @ A added to its weights: the definition, without peft."""
    plain = copy.deepcopy(plain)
    linears = dict(plain.named_modules())
    for linear, layer in lora_layers(transformer).items():
        for name, scale in scales.items():
            weight_a, weight_b = lora_weights(layer, name)
            linears[linear].weight += scale * ratio * (weight_b @ weight_a)
    return plain


def test_targets_are_the_real_names_and_full_is_every_linear_in_attention(transformer):
    in_attention = {name for name in linear_layers(transformer) if ".attn." in name}
    found = {
        method: {
            name
            for name in linear_layers(transformer)
            if name.endswith(tuple(f".{suffix}" for suffix in suffixes))
        }
        for method, suffixes in TARGETS.items()
    }
    assert found["full"] == in_attention
    assert len(in_attention) == 2 * 8 + 2 * 3  # double blocks have eight, single blocks three
    assert found["image"] | found["xattn"] == in_attention
    assert not found["image"] & found["xattn"]
    assert found["xattn-strict"] < found["xattn"]
    assert found["blocks"] > in_attention
    assert len(found["blocks"]) == 2 * 14 + 2 * 6
    for suffix in (suffix for method, ends in TARGETS.items() if method != "blocks" for suffix in ends):
        assert any(name.endswith(f".{suffix}") for name in in_attention), suffix


@pytest.mark.parametrize("method", sorted(TARGETS))
def test_train_method_decides_which_linears_are_wrapped(transformer, method):
    add_adapter(transformer, "semantic", 2, 1, train_method=method)
    for name in lora_layers(transformer):
        assert name.split(".", 2)[2] in TARGETS[method]
    wrapped = {"full": 22, "image": 14, "xattn": 8, "xattn-strict": 4, "blocks": 40}
    assert len(lora_layers(transformer)) == wrapped[method]


def test_unknown_train_method(transformer):
    with pytest.raises(UserError, match=r"train_method.*full.*found .fulll..*did you mean 'full'"):
        add_adapter(transformer, "semantic", 2, 1, train_method="fulll")


def test_fresh_adapter_changes_nothing_and_is_at_rest(transformer):
    before = forward(transformer)
    add_adapter(transformer, "semantic", 4, 1)
    assert torch.equal(forward(transformer), before)
    assert not any(parameter.requires_grad for parameter in transformer.parameters())
    with use_adapters(transformer, {"semantic": 1.0}):
        torch.testing.assert_close(forward(transformer), before)


def test_initial_weights_come_from_the_seed_alone(transformer, mini_flux):
    from diffusers import FluxTransformer2DModel

    other = FluxTransformer2DModel.from_pretrained(mini_flux, subfolder="transformer")
    torch.manual_seed(11)
    state = torch.get_rng_state()
    add_adapter(transformer, "a", 4, 1, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(12)
    add_adapter(other, "b", 4, 1, seed=5)
    add_adapter(other, "c", 4, 1, seed=6)
    first, same, different = (
        adapter_parameters(model, name) for model, name in [(transformer, "a"), (other, "b"), (other, "c")]
    )
    assert all(torch.equal(left, right) for left, right in zip(first, same, strict=True))
    assert not torch.equal(first[0], different[0])
    for weight_a, weight_b in zip(first[::2], first[1::2], strict=True):
        bound = (3 / weight_a.shape[1]) ** 0.5
        assert 0.8 * bound < weight_a.abs().max() <= bound
        assert not weight_b.any()


@pytest.mark.parametrize(
    "scales",
    [
        {"content": 1.0},
        {"semantic": -0.7},
        {"content": 1.0, "semantic": 0.5},
        {"content": -1.0, "semantic": 2.0},
    ],
)
def test_output_equals_merged_weights(transformer, scales):
    plain = copy.deepcopy(transformer)
    for index, name in enumerate(["content", "semantic"]):
        add_adapter(transformer, name, rank=3, alpha=1.5)
        fill(transformer, name, seed=index)
    expected = forward(merged(transformer, plain, scales, ratio=1.5 / 3))
    with use_adapters(transformer, scales):
        torch.testing.assert_close(forward(transformer), expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(expected, forward(plain), atol=1e-3)


@pytest.mark.parametrize("scales", [{}, {"content": 0.0}, {"content": 0, "semantic": -0.0}])
def test_scale_zero_is_the_bare_base_bit_for_bit(transformer, scales):
    before = forward(transformer)
    for name in ["content", "semantic"]:
        add_adapter(transformer, name, 3, 1)
        fill(transformer, name, 0)
    with use_adapters(transformer, scales):
        assert torch.equal(forward(transformer), before)


def test_inside_an_outer_context_the_base_can_still_be_bare(adapted):
    bare = forward(adapted)
    with use_adapters(adapted, {"content": 1.0, "semantic": 0.5}):
        outer = forward(adapted)
        with use_adapters(adapted, {}):
            assert torch.equal(forward(adapted), bare)
        with use_adapters(adapted, {"semantic": -2.0}, train=["semantic"]):
            assert not torch.equal(forward(adapted), outer)
        assert torch.equal(forward(adapted), outer)
    assert torch.equal(forward(adapted), bare)


def test_the_order_of_the_scales_does_not_matter(adapted):
    with use_adapters(adapted, {"content": 0.3, "semantic": 0.7}):
        expected = forward(adapted)
    with use_adapters(adapted, {"semantic": 0.7, "content": 0.3}):
        assert torch.equal(forward(adapted), expected)


def test_state_is_restored_after_an_error(adapted):
    bare = forward(adapted)
    with (
        pytest.raises(RuntimeError, match="boom"),
        use_adapters(adapted, {"content": 3.0}, train=["content"]),
    ):
        raise RuntimeError("boom")
    assert torch.equal(forward(adapted), bare)
    assert not any(parameter.requires_grad for parameter in adapted.parameters())
    with use_adapters(adapted, {"content": 1.0}):
        once = forward(adapted)
    with use_adapters(adapted, {"content": 3.0}), use_adapters(adapted, {"content": 1.0}):
        assert torch.equal(forward(adapted), once)


def test_only_the_trained_adapter_learns_bit_for_bit(adapted):
    """An optimizer over everything: frozen weights, base and adapters, stay equal to the last bit."""
    before = {name: parameter.detach().clone() for name, parameter in adapted.named_parameters()}
    optimizer = torch.optim.AdamW(
        adapter_parameters(adapted, "content") + adapter_parameters(adapted, "semantic"),
        lr=0.1,
        weight_decay=0.1,
    )
    for _ in range(3):
        with use_adapters(adapted, {"content": 1.0, "semantic": 1.0}, train=["semantic"]):
            trainable = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
            forward(adapted).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert trainable == {name for name in before if re.search(r"\.lora_[AB]\.semantic\.", name)}
    for name, parameter in adapted.named_parameters():
        assert torch.equal(parameter, before[name]) == (name not in trainable), name


def test_gradients_reach_the_first_layer_through_a_frozen_adapter(adapted):
    with use_adapters(adapted, {"content": 1.0, "semantic": 1.0}, train=["semantic"]):
        forward(adapted).square().mean().backward()
    assert all(parameter.grad is not None for parameter in adapter_parameters(adapted, "semantic"))
    assert all(parameter.grad is None for parameter in adapter_parameters(adapted, "content"))


def test_bfloat16_base_keeps_float32_adapters(transformer):
    transformer = transformer.to(torch.bfloat16)
    bare = forward(transformer, torch.bfloat16)
    add_adapter(transformer, "semantic", 3, 1)
    fill(transformer, "semantic", 0)
    assert {parameter.dtype for parameter in adapter_parameters(transformer, "semantic")} == {torch.float32}
    with use_adapters(transformer, {"semantic": 1.0}):
        out = forward(transformer, torch.bfloat16)
    assert out.dtype == torch.bfloat16
    assert not torch.equal(out, bare)
    assert torch.equal(forward(transformer, torch.bfloat16), bare)


def test_removal_leaves_the_others_alone_and_the_last_gives_plain_linears(transformer):
    names = dict(transformer.named_parameters()).keys()
    bare = forward(transformer)
    for index, name in enumerate(["content", "semantic"]):
        add_adapter(transformer, name, 3, 1)
        fill(transformer, name, index)
    with use_adapters(transformer, {"semantic": 1.0}):
        semantic = forward(transformer)
    remove_adapter(transformer, "content")
    assert adapter_names(transformer) == ["semantic"]
    assert torch.equal(forward(transformer), bare)
    with use_adapters(transformer, {"semantic": 1.0}):
        assert torch.equal(forward(transformer), semantic)
    remove_adapter(transformer, "semantic")
    assert dict(transformer.named_parameters()).keys() == names
    assert torch.equal(forward(transformer), bare)
    add_adapter(transformer, "semantic", 3, 1)
    assert adapter_names(transformer) == ["semantic"]


def test_an_adapter_added_while_others_are_active_stays_out(adapted):
    with use_adapters(adapted, {"content": 1.0}, train=["content"]):
        before = forward(adapted)
        add_adapter(adapted, "third", 2, 1)
        fill(adapted, "third", 4)
        assert torch.equal(forward(adapted), before)
        assert all(parameter.requires_grad for parameter in adapter_parameters(adapted, "content"))


def test_errors_name_the_adapters_there_are(adapted):
    with pytest.raises(ValueError, match=r"no adapter style; there are: content, semantic"):
        use_adapters(adapted, {"style": 1.0}).__enter__()
    with pytest.raises(ValueError, match="no adapter style"):
        remove_adapter(adapted, "style")
    with pytest.raises(ValueError, match="no adapter style"):
        adapter_parameters(adapted, "style")
    with pytest.raises(ValueError, match="exists already"):
        add_adapter(adapted, "content", 2, 1)
    with pytest.raises(ValueError, match="no scale other than 0"):
        use_adapters(adapted, {"content": 0.0}, train=["content"]).__enter__()
