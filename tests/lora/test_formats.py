"""The formats: round trips to the bit; foreign files; strange names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.lora.layouts import DOUBLE, SINGLE, delta
from tests.mini_loras import assert_same, block_loras, change, random_lora
from utils.errors import UserError
from utils.lora.files import read_lora, write_lora
from utils.lora.linear import LinearLora

# --- round trips ---


@pytest.mark.parametrize(
    "order",
    [
        ("diffusers", "kohya", "diffusers"),
        ("kohya", "diffusers", "kohya"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_round_trips_are_exact_to_the_bit(transformer, tmp_path, order, dtype):
    """Ranks and alpha / rank differ between the parts of a fused linear; names of files say nothing."""
    generator = torch.Generator().manual_seed(2)
    loras = {
        name: LinearLora(lora.weight_a.to(dtype), lora.weight_b.to(dtype), lora.alpha)
        for name, lora in block_loras(transformer).items()
        if torch.rand((), generator=generator) < 0.7
    }
    current = loras
    for number, kind in enumerate(order):
        write_lora(tmp_path / f"{number}.bin", current, kind, {})
        file = read_lora(tmp_path / f"{number}.bin")
        assert file.format == kind
        current = file.loras
    expected = read_alphas_as_float32(loras)
    if dtype == torch.bfloat16:  # where a ratio is folded in, the file is float32; the values are the same
        current, expected = (in_float32(each) for each in (current, expected))
    assert_same(current, expected)


def read_alphas_as_float32(loras: dict[str, LinearLora]) -> dict[str, LinearLora]:
    """Files hold alpha as float32, so that 0.7 comes back as its neighbour."""
    alphas = {name: torch.tensor(lora.alpha).item() for name, lora in loras.items()}
    return {name: LinearLora(lora.weight_a, lora.weight_b, alphas[name]) for name, lora in loras.items()}


def in_float32(loras: dict[str, LinearLora]) -> dict[str, LinearLora]:
    return {
        name: LinearLora(lora.weight_a.float(), lora.weight_b.float(), lora.alpha)
        for name, lora in loras.items()
    }


def some(**ranks: int) -> dict[str, LinearLora]:
    """On projections of one double block, alpha / rank the same for all."""
    generator = torch.Generator().manual_seed(5)
    return {
        f"{DOUBLE}attn.{name}": random_lora(8, 8, rank, 0.5 * rank, generator) for name, rank in ranks.items()
    }


@pytest.mark.parametrize("loras", [some(to_q=2, to_k=2, to_v=2), some(to_q=1, to_v=3), some(to_k=3)])
def test_structure_alone_gives_the_parts_back(tmp_path, loras):
    write_lora(tmp_path / "with", loras, "kohya", {})
    save_file(load_file(tmp_path / "with"), tmp_path / "without")
    assert_same(read_lora(tmp_path / "without").loras, loras)


@pytest.mark.parametrize("names", [("to_q", "to_k", "to_v"), ("to_q", "to_v"), ("add_k_proj",)])
def test_a_fresh_lora_whose_b_is_zero(tmp_path, names):
    loras = {
        name: LinearLora(lora.weight_a, torch.zeros_like(lora.weight_b), lora.alpha)
        for name, lora in some(**dict.fromkeys(names, 2)).items()
    }
    write_lora(tmp_path / "with", loras, "kohya", {})
    assert_same(read_lora(tmp_path / "with").loras, loras)
    save_file(load_file(tmp_path / "with"), tmp_path / "without")
    assert all((change(lora) == 0).all() for lora in read_lora(tmp_path / "without").loras.values())


def test_columns_of_zeros_without_a_note(tmp_path):
    """No part's: they go along and do nothing."""
    loras = some(to_q=1, to_v=3)
    loras[f"{DOUBLE}attn.to_v"].weight_b[:, 1] = 0
    write_lora(tmp_path / "with", loras, "kohya", {})
    save_file(load_file(tmp_path / "with"), tmp_path / "without")
    read = read_lora(tmp_path / "without").loras
    assert read.keys() == loras.keys()
    assert all(torch.allclose(change(read[name]), change(lora)) for name, lora in loras.items())


# --- foreign kohya files ---


def dense_file(path: Path, alpha: float | None) -> dict[str, Tensor]:
    """q, k, v and the MLP trained as one, as sd-scripts does unless told to split them."""
    generator = torch.Generator().manual_seed(9)
    tensors = {}
    for stem, out in (
        ("lora_unet_double_blocks_0_img_attn_qkv", 24),
        ("lora_unet_single_blocks_1_linear1", 56),
    ):
        tensors[f"{stem}.lora_down.weight"] = torch.randn(3, 8, generator=generator)
        tensors[f"{stem}.lora_up.weight"] = torch.randn(out, 3, generator=generator)
        if alpha is not None:
            tensors[f"{stem}.alpha"] = torch.tensor(alpha)
    save_file(tensors, path, metadata={"ss_network_dim": "3"})
    return tensors


@pytest.mark.parametrize("alpha", [1.0, None])
def test_a_dense_foreign_file(tmp_path, alpha):
    """Its parts share A, each with its rows of B; and back, it is the same file again."""
    tensors = dense_file(tmp_path / "foreign", alpha)
    file = read_lora(tmp_path / "foreign")
    assert (file.format, file.metadata) == ("kohya", {"ss_network_dim": "3"})
    rows = {DOUBLE: [8, 8, 8], SINGLE: [8, 8, 8, 32]}
    for block, stem in ((DOUBLE, "double_blocks_0_img_attn_qkv"), (SINGLE, "single_blocks_1_linear1")):
        names = [*(f"{block}attn.{name}" for name in ("to_q", "to_k", "to_v")), f"{SINGLE}proj_mlp"]
        ups = tensors[f"lora_unet_{stem}.lora_up.weight"].split(rows[block])
        for name, up in zip(names, ups, strict=False):
            lora = file.loras[name]
            assert lora.alpha == (alpha or 3)
            assert torch.equal(lora.weight_a, tensors[f"lora_unet_{stem}.lora_down.weight"])
            assert torch.equal(lora.weight_b, up)
    assert len(file.loras) == 7
    write_lora(tmp_path / "x", file.loras, "diffusers", {})
    write_lora(tmp_path / "back", read_lora(tmp_path / "x").loras, "kohya", {})
    again = load_file(tmp_path / "back")
    assert all(torch.equal(again[key], value) for key, value in tensors.items())


def test_a_note_that_no_longer_holds_is_passed_over(tmp_path):
    """Someone changed alpha, or trained on: the matrices count."""
    loras = some(to_q=2, to_k=2, to_v=2)
    write_lora(tmp_path / "x", loras, "kohya", {})
    with safe_open(tmp_path / "x", framework="pt") as file:
        header = file.metadata()
    for key, value in {
        "lora_unet_double_blocks_0_img_attn_qkv.alpha": torch.tensor(6.0),
        "lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight": torch.ones(24, 6),
    }.items():
        tensors = {**load_file(tmp_path / "x"), key: value}
        save_file(tensors, tmp_path / "changed", metadata=header)
        read = read_lora(tmp_path / "changed").loras
        whole = torch.cat([change(lora) for lora in read.values()]).float()
        torch.testing.assert_close(whole, delta(tensors, "lora_unet_double_blocks_0_img_attn_qkv"))


@pytest.mark.parametrize(
    "note",
    ["{", "[1]", '{"x": 3}', '{"x": [3]}', '{"x": [[0, 0, 1, null]]}', '{"x": [[0, 1, "a", null]]}'],
)
def test_a_damaged_note(tmp_path, note):
    write_lora(tmp_path / "x", some(to_q=2), "kohya", {})
    save_file(load_file(tmp_path / "x"), tmp_path / "bad", metadata={"kohya_parts": note})
    with pytest.raises(UserError, match="kohya_parts in its header is damaged"):
        read_lora(tmp_path / "bad")


# --- names and sizes ---


@pytest.mark.parametrize("kind", ["diffusers", "kohya", "reference"])
def test_every_linear_of_flux_has_a_place(transformer, tmp_path, kind):
    """The last layer's too, whose halves stand the other way round in kohya files."""
    loras = block_loras(transformer, "")
    write_lora(tmp_path / "x", loras, kind, {})
    read = read_lora(tmp_path / "x").loras
    assert read.keys() == loras.keys()
    for name, lora in loras.items():
        torch.testing.assert_close(change(read[name]), change(lora), atol=1e-6, rtol=1e-6)


def test_the_reference_has_the_alpha_that_its_reader_takes(transformer, tmp_path):
    write_lora(tmp_path / "x.pt", block_loras(transformer), "reference", {})
    assert {lora.alpha for lora in read_lora(tmp_path / "x.pt").loras.values()} == {1.0}


@pytest.mark.parametrize("kind", ["kohya", "reference"])
def test_names_without_a_place(tmp_path, kind):
    lora = some(to_q=1)[f"{DOUBLE}attn.to_q"]
    loras = {f"{DOUBLE}attn.to_q": lora, "blocks.0.nowhere": lora, f"{DOUBLE}attn.to_x": lora}
    message = rf"found: blocks\.0\.nowhere has no place .*; {DOUBLE}attn\.to_x has no place in the {kind}"
    with pytest.raises(UserError, match=message):
        write_lora(tmp_path / "x", loras, kind, {})
    write_lora(tmp_path / "x", loras, "diffusers", {})
    assert_same(read_lora(tmp_path / "x").loras, loras)


def test_parts_whose_sizes_do_not_go_together(tmp_path):
    loras = some(to_q=1)
    generator = torch.Generator().manual_seed(0)
    loras[f"{DOUBLE}attn.to_k"] = random_lora(9, 8, 1, 1.0, generator)
    with pytest.raises(UserError, match="double_blocks_0_img_attn_qkv: parts of shapes"):
        write_lora(tmp_path / "x", loras, "kohya", {})
    mlp = {f"{SINGLE}proj_mlp": random_lora(9, 8, 1, 1.0, generator)}
    with pytest.raises(UserError, match=r"linear1: parts of shapes \(9, 8\)"):
        write_lora(tmp_path / "x", mlp, "kohya", {})


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (
            "lora_te1_text_model_x.lora_down.weight",
            "lora_te1_text_model_x.* matches no linear of a text encoder",
        ),
        ("lora_unet_double_blocks_0_img_nothing.lora_up.weight", "img_nothing.* matches no linear of FLUX"),
        ("lora_unet_final_layer_linear.alpha", "final_layer_linear without its A and B"),
        ("lora_unet_transformer_blocks_0_attn_to_q.alpha", r"attn\.to_q has 2 LoRAs in it"),
        ("lora_unet_double_blocks_0_img_attn_qkv.dora_scale", r"found DoRA \(1 of 2\)"),
    ],
)
def test_keys_that_the_kohya_layout_lacks(tmp_path, key, message):
    tensors = dense_file(tmp_path / "foreign", 1.0)
    save_file({**tensors, key: torch.zeros(2, 2)}, tmp_path / "bad")
    with pytest.raises(UserError, match=message):
        read_lora(tmp_path / "bad")


def test_rows_that_cannot_be_shared_out(tmp_path):
    tensors = dense_file(tmp_path / "foreign", 1.0)
    tensors["lora_unet_single_blocks_1_linear1.lora_up.weight"] = torch.ones(55, 3)
    save_file(tensors, tmp_path / "bad")
    with pytest.raises(UserError, match="linear1 of 55 outputs where a multiple of 7 fits"):
        read_lora(tmp_path / "bad")
